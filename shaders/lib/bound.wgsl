
// ---- lib/bound: lower bounds of direct keys -------------------------------------------------------------------------

// Of four rows.
struct RowTerms {
    square: vec4<f32>,
    scale: vec4<f32>,
    residual: vec4<f32>,
    tail: vec4<f32>,
    longest: f32,
}

// `kernels::codes::lower_bound`. The query's terms: offset, scale, length, tail.
fn lower_bounds(products: vec4<f32>, query: vec4<f32>, error: f32, of_rows: RowTerms) -> vec4<f32> {
    let estimate = query.x + of_rows.square - of_rows.scale * query.y * products;
    let width = of_rows.residual * query.z + of_rows.tail * query.w + of_rows.longest * error;
    return estimate - width;
}
