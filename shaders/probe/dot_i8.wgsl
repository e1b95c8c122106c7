// Products of packed 8-bit integers added up in 32 bits: 32 instructions per round, eight operations each.
@group(0) @binding(0) var<storage, read> data: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> out: array<u32>;

const ROUNDS = 256u;

// Depends on the sum, so that no product is made once for all rounds.
fn step(sum: vec4<i32>, other: vec4<u32>) -> vec4<i32> {
    return vec4<i32>(
        sum.x + dot4I8Packed(bitcast<u32>(sum.x), other.x),
        sum.y + dot4I8Packed(bitcast<u32>(sum.y), other.y),
        sum.z + dot4I8Packed(bitcast<u32>(sum.z), other.z),
        sum.w + dot4I8Packed(bitcast<u32>(sum.w), other.w),
    );
}

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    // Zeros, which no compiler knows.
    let zero = data[id.x & 3u];
    let other = zero + 0x01020304u;
    var a = bitcast<vec4<i32>>(zero) + 1;
    var b = bitcast<vec4<i32>>(zero) + 2;
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
    let all = a ^ b;
    if (all.x == 12345 && all.y == 12345 && all.z == 1 && all.w == 1) {
        out[0] = 1u;
    }
}
