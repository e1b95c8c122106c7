// Reads 16 bytes at a time, neighbouring threads side by side, around and around a set of a power of two of them.
@group(0) @binding(0) var<storage, read> data: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> out: array<u32>;

const ROUNDS = 16u;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let threads = groups.x * 256u;
    let last = arrayLength(&data) - 1u;
    var a = vec4<u32>();
    var b = vec4<u32>();
    var c = vec4<u32>();
    var d = vec4<u32>();
    var at = id.x;
    for (var i = 0u; i < ROUNDS; i++) {
        a ^= data[at & last];
        b ^= data[(at + threads) & last];
        c ^= data[(at + 2u * threads) & last];
        d ^= data[(at + 3u * threads) & last];
        at += 4u * threads;
    }
    let all = (a ^ b) ^ (c ^ d);
    let word = (all.x ^ all.y) ^ (all.z ^ all.w);
    // The data are zeros, which no compiler knows.
    if (word != 0u) {
        out[0] = word;
    }
}
