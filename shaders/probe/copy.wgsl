// Copies 16 bytes at a time, neighbouring threads side by side, each workgroup its own stretch of sets whose size is a
// power of two.
@group(0) @binding(0) var<storage, read> data: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> out: array<vec4<u32>>;

const ROUNDS = 64u;

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_id) id: vec3<u32>, @builtin(workgroup_id) group: vec3<u32>) {
    let last = min(arrayLength(&data), arrayLength(&out)) - 1u;
    var at = group.x * (256u * ROUNDS) + id.x;
    for (var i = 0u; i < ROUNDS; i++) {
        out[at & last] = data[at & last];
        at += 256u;
    }
}
