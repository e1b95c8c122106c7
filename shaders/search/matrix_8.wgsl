
// ---- search_matrix_8: lower bounds from f16 on matrix units of 8 x 8 x 8, and the `keep` smallest in one pass -----------
// Buffers: rows and queries (f16, whole tiles of them), row_terms, query_terms, mask
//   -> out_keys, out_positions [q, parts_total, keep], each part a heap; out_bounds [q, parts_total].
// One subgroup: strips of 32 queries x 16 rows. One workgroup: 32 queries, every `parts_total`-th tile of rows.
// Barriers: one a tile, in lib/matrix; four for each round of the queue, in lib/heap.

alias Left = coop_mat8x8<f16, A>;
alias Right = coop_mat8x8<f16, B>;
alias Sum = coop_mat8x8<f32, C>;

const SIDE = 8u;
const HALVES = 1u;

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
        let first = coopLoad<Right>(&rows[r + k], p.row_stride);
        let second = coopLoad<Right>(&rows[r + SIDE * p.row_stride + k], p.row_stride);
        let left0 = coopLoadT<Left>(&queries[q + k], p.query_stride);
        a0 = coopMultiplyAdd(left0, first, a0);
        b0 = coopMultiplyAdd(left0, second, b0);
        let left1 = coopLoadT<Left>(&queries[q + 8u * p.query_stride + k], p.query_stride);
        a1 = coopMultiplyAdd(left1, first, a1);
        b1 = coopMultiplyAdd(left1, second, b1);
        let left2 = coopLoadT<Left>(&queries[q + 16u * p.query_stride + k], p.query_stride);
        a2 = coopMultiplyAdd(left2, first, a2);
        b2 = coopMultiplyAdd(left2, second, b2);
        let left3 = coopLoadT<Left>(&queries[q + 24u * p.query_stride + k], p.query_stride);
        a3 = coopMultiplyAdd(left3, first, a3);
        b3 = coopMultiplyAdd(left3, second, b3);
    }
    coopStoreT(a0, &products[at], 4u * TX);
    coopStoreT(b0, &products[at + SIDE], 4u * TX);
    coopStoreT(a1, &products[at + 32u * TX], 4u * TX);
    coopStoreT(b1, &products[at + 32u * TX + SIDE], 4u * TX);
    coopStoreT(a2, &products[at + 64u * TX], 4u * TX);
    coopStoreT(b2, &products[at + 64u * TX + SIDE], 4u * TX);
    coopStoreT(a3, &products[at + 96u * TX], 4u * TX);
    coopStoreT(b3, &products[at + 96u * TX + SIDE], 4u * TX);
}

@compute @workgroup_size(TX * TY)
fn search_matrix_8(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
    @builtin(subgroup_id) team: u32,
    @builtin(num_subgroups) teams: u32,
) {
    search_tiles(group, groups, thread, team, teams);
}
