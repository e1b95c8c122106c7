// Reads 16 bytes at a time, neighbouring threads side by side, each workgroup its own stretch of a set whose size is a
// power of two; many workgroups go around and around it.
@group(0) @binding(0) var<storage, read> data: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> out: array<u32>;

const ROUNDS = 16u;

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_id) id: vec3<u32>, @builtin(workgroup_id) group: vec3<u32>) {
    let last = arrayLength(&data) - 1u;
    var a = vec4<u32>();
    var b = vec4<u32>();
    var c = vec4<u32>();
    var d = vec4<u32>();
    var at = group.x * (1024u * ROUNDS) + id.x;
    for (var i = 0u; i < ROUNDS; i++) {
        a ^= data[at & last];
        b ^= data[(at + 256u) & last];
        c ^= data[(at + 512u) & last];
        d ^= data[(at + 768u) & last];
        at += 1024u;
    }
    let all = (a ^ b) ^ (c ^ d);
    let word = (all.x ^ all.y) ^ (all.z ^ all.w);
    // The data are zeros, which no compiler knows.
    if (word != 0u) {
        out[0] = word;
    }
}
