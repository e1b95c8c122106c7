// Copies 16 bytes at a time, neighbouring threads side by side, over sets of a power of two of them.
@group(0) @binding(0) var<storage, read> data: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> out: array<vec4<u32>>;

const ROUNDS = 64u;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let threads = groups.x * 256u;
    let last = min(arrayLength(&data), arrayLength(&out)) - 1u;
    var at = id.x;
    for (var i = 0u; i < ROUNDS; i++) {
        out[at & last] = data[at & last];
        at += threads;
    }
}
