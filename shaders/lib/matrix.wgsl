
// ---- lib/matrix: lower bounds of 4 TY queries with 4 TX rows, HALVES times, from f16 on matrix units -----------------
// A strip is 32 queries with 2 SIDE rows; each subgroup multiplies strips of the tile in turn, by the `strip` of the file
// that is made for the device's shape, and leaves the products in workgroup memory, a half of the tile behind the other.
// From there each thread takes 4 x 4 of a half: queries 4 y .. 4 y + 3, rows 4 x .. 4 x + 3.

var<workgroup> products: array<f32, 16u * TX * TY * HALVES>;

fn tile_rows() -> u32 {
    return 4u * TX * HALVES;
}

// The products of four rows with query `lane` of the tile, as lower bounds.
fn bounds_of(q0: u32, lane: u32, at: u32, of_rows: RowTerms) -> vec4<u32> {
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

// Leaves the products of the queries from q0 and the rows from r0 in workgroup memory. All threads of the workgroup call
// it together (one barrier); those of a subgroup go through the same strips.
fn multiply(q0: u32, r0: u32, team: u32, teams: u32) {
    let across = 2u * TX / SIDE;
    for (var i = team; i < across * HALVES; i += teams) {
        strip(q0, r0 + i * 2u * SIDE, i / across * 16u * TX * TY + i % across * 2u * SIDE);
    }
    workgroupBarrier();
}

// The lower bounds of this thread in a half of the tile, whose rows begin at r0, as keys.
fn bounds_of_half(q0: u32, r0: u32, half: u32, local: vec2<u32>) -> Keys {
    let of_rows = row_terms_of(r0 + local.x * 4u);
    let lane = local.y * 4u;
    let at = half * 16u * TX * TY + lane * 4u * TX + local.x * 4u;
    return Keys(
        bounds_of(q0, lane, at, of_rows),
        bounds_of(q0, lane + 1u, at + 4u * TX, of_rows),
        bounds_of(q0, lane + 2u, at + 8u * TX, of_rows),
        bounds_of(q0, lane + 3u, at + 12u * TX, of_rows),
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
    for (var r0 = first_row(group.y); r0 < p.row_end; r0 += groups.y * tile_rows()) {
        multiply(q0, r0, team, teams);
        for (var half = 0u; half < HALVES; half++) {
            let begin = r0 + half * 4u * TX;
            if (begin < p.row_end) {
                let keys = bounds_of_half(q0, begin, half, local);
                select_tile(keys, q0, begin, local);
            }
        }
    }
    write_heaps(q0, group.y, thread);
    write_bounds(q0, group.y, thread);
}
