
// ---- search_matrix_8: lower bounds from f16 on matrix units of 8 x 8 x 8; what beats its query's limit goes to its list
// Buffers: rows and queries (f16, whole tiles of them), row_terms, query_terms, mask
//   -> out_keys, out_positions [q, room], limits [q].
// One workgroup: 32 queries, its share of the tiles of 128 rows. One subgroup: strips of 32 queries x 16 rows, one after
// another. One thread: 4 queries x 4 rows of the tile.
// Barriers: two per tile.

alias Left = coop_mat8x8<f16, A>;
alias Right = coop_mat8x8<f16, B>;
alias Sum = coop_mat8x8<f32, C>;

const SIDE = 8u;

var<workgroup> products: array<f32, 4096>;

// f16 rows have no part that grows with the longest of a group.
fn longest_of(first: u32, last: u32) -> f32 {
    return 0.0;
}

// 32 queries from q0 with the rows from r0, products from place `at` on.
fn strip(q0: u32, r0: u32, at: u32) {
    let q = q0 * p.query_stride;
    let r = r0 * p.row_stride;
    var a0 = Sum();
    var b0 = Sum();
    var a1 = Sum();
    var b1 = Sum();
    var a2 = Sum();
    var b2 = Sum();
    var a3 = Sum();
    var b3 = Sum();
    for (var k = 0u; k < p.row_stride; k += SIDE) {
        let first = coopLoad<Right>(&rows[(r + k) / 4u], p.row_stride / 4u);
        let second = coopLoad<Right>(&rows[(r + SIDE * p.row_stride + k) / 4u], p.row_stride / 4u);
        let left0 = coopLoadT<Left>(&queries[(q + k) / 4u], p.query_stride / 4u);
        a0 = coopMultiplyAdd(left0, first, a0);
        b0 = coopMultiplyAdd(left0, second, b0);
        let left1 = coopLoadT<Left>(&queries[(q + 8u * p.query_stride + k) / 4u], p.query_stride / 4u);
        a1 = coopMultiplyAdd(left1, first, a1);
        b1 = coopMultiplyAdd(left1, second, b1);
        let left2 = coopLoadT<Left>(&queries[(q + 16u * p.query_stride + k) / 4u], p.query_stride / 4u);
        a2 = coopMultiplyAdd(left2, first, a2);
        b2 = coopMultiplyAdd(left2, second, b2);
        let left3 = coopLoadT<Left>(&queries[(q + 24u * p.query_stride + k) / 4u], p.query_stride / 4u);
        a3 = coopMultiplyAdd(left3, first, a3);
        b3 = coopMultiplyAdd(left3, second, b3);
    }
    coopStoreT(a0, &products[at], 128u);
    coopStoreT(b0, &products[at + SIDE], 128u);
    coopStoreT(a1, &products[at + 1024u], 128u);
    coopStoreT(b1, &products[at + 1024u + SIDE], 128u);
    coopStoreT(a2, &products[at + 2048u], 128u);
    coopStoreT(b2, &products[at + 2048u + SIDE], 128u);
    coopStoreT(a3, &products[at + 3072u], 128u);
    coopStoreT(b3, &products[at + 3072u + SIDE], 128u);
}

// The products of four rows with query `lane` of the tile, as lower bounds.
fn bounds_of(q: u32, lane: u32, at: u32, of_rows: RowTerms) -> vec4<f32> {
    let four = vec4<f32>(products[at], products[at + 1u], products[at + 2u], products[at + 3u]);
    return lower_bounds(four, query_terms[min(q + lane, p.q_end - 1u)], 0.0, of_rows);
}

@compute @workgroup_size(256)
fn search_matrix_8(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
    @builtin(subgroup_id) team: u32,
    @builtin(num_subgroups) teams: u32,
) {
    let q0 = p.q_begin + (group.x + group.z * groups.x) * 32u;
    if (q0 >= p.q_end) {
        return;
    }
    let tiles = tiles_of(group.y, groups.y);
    for (var tile = tiles.x; tile < tiles.y; tile++) {
        let r0 = first_row(tile, 128u);
        if (r0 >= p.row_end) {
            continue;
        }
        workgroupBarrier();
        for (var i = team; i < 8u; i += teams) {
            strip(q0, r0 + i * 2u * SIDE, i * 2u * SIDE);
        }
        workgroupBarrier();
        let r = r0 + thread % 32u * 4u;
        let of_rows = row_terms_of(r);
        for (var i = 0u; i < 4u; i++) {
            let lane = thread / 32u * 4u + i;
            let keys = bounds_of(q0, lane, lane * 128u + thread % 32u * 4u, of_rows);
            if (some_beat(keys, limit_of(q0 + lane)) != 0u) {
                offer4(q0 + lane, r, keys);
            }
        }
    }
}
