
// ---- lib/pairs: a thread's 4 x 4 pairs of a query and a row ----------------------------------------------------------

// Bits of the keys of a thread's four queries, each with its four rows.
struct Keys {
    a: vec4<u32>,
    b: vec4<u32>,
    c: vec4<u32>,
    d: vec4<u32>,
}

// Whether the mask lets row r be returned for query q.
fn allowed(q: u32, r: u32) -> bool {
    if (p.has_mask == 0u) {
        return true;
    }
    let bit = p.mask_row_base + r;
    return ((mask[q * p.mask_stride + (bit >> 5u)] >> (bit & 31u)) & 1u) != 0u;
}
