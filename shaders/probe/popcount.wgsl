// Exclusive or, count of bits, addition on words: 32 times per round, three operations each.
@group(0) @binding(0) var<storage, read> data: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> out: array<u32>;

const ROUNDS = 256u;

fn step(sum: vec4<u32>, other: vec4<u32>) -> vec4<u32> {
    return sum + countOneBits(sum ^ other);
}

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    // Zeros, which no compiler knows.
    let zero = data[id.x & 3u];
    let other = zero + 0x55551234u;
    var a = zero;
    var b = zero + 1u;
    for (var i = 0u; i < ROUNDS; i++) {
        a = step(a, other);
        b = step(b, other);
        a = step(a, other);
        b = step(b, other);
        a = step(a, other);
        b = step(b, other);
        a = step(a, other);
        b = step(b, other);
    }
    if (all(a == b)) {
        out[0] = 1u;
    }
}
