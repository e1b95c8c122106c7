
// ---- lib/tile_codes: lower bounds of 4 TY queries with 4 TX rows, from 8-bit codes -----------------------------------
// Thread (x, y) of TX x TY holds 4 x 4 sums of products: queries 4 y .. 4 y + 3 of the tile, rows 4 x .. 4 x + 3. Codes
// pass through workgroup memory TD words of four components at a time, turned so that one vector holds a word of each of
// four rows. Sums of integers are exact in every order.

fn tile_rows() -> u32 {
    return 4u * TX;
}

// What lib/load brings: sixteen components, which are stored plus 128 in rows.
fn tile_units() -> u32 {
    return p.row_stride;
}

fn row_unit(row: u32, j: u32) -> vec4<u32> {
    return rows[row * p.row_stride + j] ^ vec4<u32>(0x80808080u);
}

// The sums with the products of four more components.
fn add_products(sum: vec4<i32>, q: u32, r: vec4<u32>) -> vec4<i32> {
    return sum + vec4<i32>(dot4I8Packed(q, r.x), dot4I8Packed(q, r.y), dot4I8Packed(q, r.z), dot4I8Packed(q, r.w));
}

// Lower bounds of query q with four rows, as keys: the query's terms lie behind its code.
fn bounds_of(products: vec4<i32>, q: u32, of_rows: RowTerms) -> vec4<u32> {
    let at = min(q, p.q_end - 1u) * p.query_stride + p.row_stride;
    let terms = bitcast<vec4<f32>>(queries[at]);
    let error = bitcast<f32>(queries[at + 1u].x);
    return lower_bounds(vec4<f32>(products), terms, error, of_rows);
}

// The lower bounds of this thread in the tile of queries from q0 and rows from r0, as keys. All threads of the workgroup
// call it together (two barriers for each TD words).
fn tile_bounds(q0: u32, r0: u32, local: vec2<u32>) -> Keys {
    let thread = local.y * TX + local.x;
    var a = vec4<i32>(0);
    var b = vec4<i32>(0);
    var c = vec4<i32>(0);
    var d = vec4<i32>(0);
    for (var j = 0u; j < p.row_stride; j += TD / 4u) {
        workgroupBarrier();
        load_tiles(q0, r0, j, thread);
        workgroupBarrier();
        for (var i = 0u; i < TD; i++) {
            let q = query_tile[i * TY + local.y];
            let r = row_tile[i * TX + local.x];
            a = add_products(a, q.x, r);
            b = add_products(b, q.y, r);
            c = add_products(c, q.z, r);
            d = add_products(d, q.w, r);
        }
    }
    let q = q0 + local.y * 4u;
    let of_rows = row_terms_of(r0 + local.x * 4u);
    return Keys(
        bounds_of(a, q, of_rows),
        bounds_of(b, q + 1u, of_rows),
        bounds_of(c, q + 2u, of_rows),
        bounds_of(d, q + 3u, of_rows),
    );
}

// The terms of rows r .. r + 3.
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
        // Four neighbours lie in two groups at most.
        max(longest[at.x / GROUP], longest[at.w / GROUP]),
    );
}
