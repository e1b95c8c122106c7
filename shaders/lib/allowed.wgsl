
// ---- lib/allowed: the filter ------------------------------------------------------------------------------------------

// Whether the mask lets row r be returned for query q.
fn allowed(q: u32, r: u32) -> bool {
    if (p.has_mask == 0u) {
        return true;
    }
    let bit = p.mask_row_base + r;
    return ((mask[q * p.mask_stride + (bit >> 5u)] >> (bit & 31u)) & 1u) != 0u;
}
