
// ---- lib/matrix: lower bounds of 4 TY queries with 4 TX rows, from f16 on matrix units -------------------------------
// A strip is 32 queries with SIDE rows; each subgroup multiplies strips of the tile in turn, by the `strip` of the file
// that is made for the device's shape, and leaves the products in workgroup memory, from where each thread takes its
// 4 x 4: queries 4 y .. 4 y + 3 of the tile, rows 4 x .. 4 x + 3.

var<workgroup> products: array<f32, 16u * TX * TY>;

// The products of four rows with query `lane` of the tile, as lower bounds.
fn bounds_of(q0: u32, lane: u32, x: u32, of_rows: RowTerms) -> vec4<u32> {
    let at = lane * 4u * TX + x * 4u;
    let four = vec4<f32>(products[at], products[at + 1u], products[at + 2u], products[at + 3u]);
    return lower_bounds(four, query_terms[min(q0 + lane, p.q_end - 1u)], 0.0, of_rows);
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
        0.0,
    );
}

// The lower bounds of this thread in the tile of queries from q0 and rows from r0, as keys. All threads of the workgroup
// call it together (one barrier); those of a subgroup go through the same strips.
fn tile_bounds(q0: u32, r0: u32, local: vec2<u32>, team: u32, teams: u32) -> Keys {
    let across = 4u * TX / SIDE;
    for (var i = team; i < across * (TY / 8u); i += teams) {
        let row = i % across * SIDE;
        let query = i / across * 32u;
        strip(q0 + query, r0 + row, query * 4u * TX + row);
    }
    workgroupBarrier();
    let of_rows = row_terms_of(r0 + local.x * 4u);
    let lane = local.y * 4u;
    return Keys(
        bounds_of(q0, lane, local.x, of_rows),
        bounds_of(q0, lane + 1u, local.x, of_rows),
        bounds_of(q0, lane + 2u, local.x, of_rows),
        bounds_of(q0, lane + 3u, local.x, of_rows),
    );
}

// The smallest of all bounds of a workgroup's queries with its tiles.
fn search_tiles(group: vec3<u32>, groups: vec3<u32>, thread: u32, team: u32, teams: u32) {
    let q0 = p.q_begin + (group.x + group.z * groups.x) * 4u * TY;
    if (q0 >= p.q_end) {
        return;
    }
    let local = vec2<u32>(thread % TX, thread / TX);
    empty_heaps(thread);
    if (p.resume != 0u) {
        read_heaps(q0, group.y, thread);
    }
    for (var r0 = first_row(group.y); r0 < p.row_end; r0 += groups.y * 4u * TX) {
        let keys = tile_bounds(q0, r0, local, team, teams);
        select_tile(keys, q0, r0, local);
    }
    write_heaps(q0, group.y, thread);
    write_bounds(q0, group.y, thread);
}
