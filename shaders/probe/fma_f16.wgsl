// Multiply-adds of f16 in registers, in chains enough to cover their latency: 64 of them per round.
enable f16;
@group(0) @binding(0) var<storage, read> data: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> out: array<u32>;

const ROUNDS = 256u;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    // Zeros, which no compiler knows.
    let seed = vec4<f16>(data[id.x & 3u]);
    let factor = seed + 0.5h;
    let addend = seed + 0.25h;
    var a = seed;
    var b = seed + 1.0h;
    for (var i = 0u; i < ROUNDS; i++) {
        a = fma(a, factor, addend);
        b = fma(b, factor, addend);
        a = fma(a, factor, addend);
        b = fma(b, factor, addend);
        a = fma(a, factor, addend);
        b = fma(b, factor, addend);
        a = fma(a, factor, addend);
        b = fma(b, factor, addend);
        a = fma(a, factor, addend);
        b = fma(b, factor, addend);
        a = fma(a, factor, addend);
        b = fma(b, factor, addend);
        a = fma(a, factor, addend);
        b = fma(b, factor, addend);
        a = fma(a, factor, addend);
        b = fma(b, factor, addend);
    }
    if (any((a + b) < vec4<f16>(vec4<u32>()))) {
        out[0] = 1u;
    }
}
