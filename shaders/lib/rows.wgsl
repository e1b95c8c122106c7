
// ---- lib/rows: rows as they are stored ------------------------------------------------------------------------------
// A row is `row_stride` vectors of four words, zeros behind its last component.

// Groups of four components in a vector of four words; packed bits are taken word by word.
fn quads() -> u32 {
    if (DTYPE == F32 || DTYPE == BITS) {
        return 1u;
    }
    return select(4u, 2u, DTYPE == F16 || DTYPE == BF16);
}

// Group i of a vector as the bits of f32; for packed bits, its words.
fn quad(unit: vec4<u32>, i: u32) -> vec4<u32> {
    if (DTYPE == F32 || DTYPE == BITS) {
        return unit;
    }
    if (DTYPE == F16 || DTYPE == BF16) {
        let four = select(unit.xy, unit.zw, (i & 1u) != 0u);
        if (DTYPE == BF16) {
            return vec4<u32>(four.x << 16u, four.x & 0xffff0000u, four.y << 16u, four.y & 0xffff0000u);
        }
        return vec4<u32>(halves(four.x), halves(four.y));
    }
    let two = select(unit.xy, unit.zw, (i & 2u) != 0u);
    let word = select(two.x, two.y, (i & 1u) != 0u);
    if (DTYPE == U8) {
        let bytes = (vec4<u32>(word) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(255u);
        return bitcast<vec4<u32>>(vec4<f32>(bytes));
    }
    let bytes = bitcast<vec4<i32>>(vec4<u32>(word) << vec4<u32>(24u, 16u, 8u, 0u)) >> vec4<u32>(24u);
    return bitcast<vec4<u32>>(vec4<f32>(bytes));
}

// Components 4 j .. 4 j + 3 of a row as the bits of f32; for packed bits, its words 4 j .. 4 j + 3.
// Zeros behind the last component, but j must lie within the row's stride.
fn row4(row: u32, j: u32) -> vec4<u32> {
    return quad(rows[row * p.row_stride + j / quads()], j % quads());
}
