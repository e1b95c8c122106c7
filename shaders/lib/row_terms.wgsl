
// ---- lib/row_terms: the terms of four rows in the bound --------------------------------------------------------------

// Of rows r .. r + 3.
fn row_terms_of(r: u32) -> RowTerms {
    let at = min(vec4<u32>(r) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(p.row_end - 1u));
    let a = row_terms[at.x];
    let b = row_terms[at.y];
    let c = row_terms[at.z];
    let d = row_terms[at.w];
    return RowTerms(
        vec4<f32>(a.x, b.x, c.x, d.x),
        vec4<f32>(a.y, b.y, c.y, d.y),
        vec4<f32>(a.z, b.z, c.z, d.z),
        vec4<f32>(a.w, b.w, c.w, d.w),
        longest_of(at.x, at.w),
    );
}
