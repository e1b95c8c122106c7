
// ---- lib/order: keys as integers in the same order ------------------------------------------------------------------

// -inf ... -0 < 0 ... inf < NaN.
fn sortable(bits: u32) -> u32 {
    if ((bits & 0x7fffffffu) > INFINITY) {
        return 0xffffffffu;
    }
    return select(bits | 0x80000000u, ~bits, (bits & 0x80000000u) != 0u);
}

// Of keys that kernels computed: one NaN, which needs no care.
fn sortable4(bits: vec4<u32>) -> vec4<u32> {
    return select(bits | vec4<u32>(0x80000000u), ~bits, (bits & vec4<u32>(0x80000000u)) != vec4<u32>(0u));
}

// The inverse. Only the one NaN comes back as a NaN.
fn unsortable(key: u32) -> u32 {
    if (key > (INFINITY | 0x80000000u)) {
        return NAN;
    }
    return select(~key, key & 0x7fffffffu, (key & 0x80000000u) != 0u);
}

// Whether (key, position) comes before (other, place).
fn before(key: u32, position: u32, other: u32, place: u32) -> bool {
    return key < other || (key == other && position < place);
}
