
// ---- search_matrix_8: lower bounds from f16 on matrix units of 8 x 8 x 8, and the `keep` smallest in one pass -----------
// Buffers: rows and queries (f16, whole tiles of them), row_terms, query_terms, mask
//   -> out_keys, out_positions [q, parts_total, keep], each part a heap; out_bounds [q, parts_total].
// One subgroup: strips of 32 queries x 8 rows. One workgroup: 4 TY queries, every `parts_total`-th tile of 4 TX rows.
// Barriers: one a tile, in lib/matrix; four for each round of the queue, in lib/heap.

alias Left = coop_mat8x8<f16, A>;
alias Right = coop_mat8x8<f16, B>;
alias Sum = coop_mat8x8<f32, C>;

const SIDE = 8u;

// 32 queries from q0 with the rows from r0, products from place `at` on.
fn strip(q0: u32, r0: u32, at: u32) {
    let q = q0 * p.query_stride;
    let r = r0 * p.row_stride;
    var acc0 = Sum();
    var acc1 = Sum();
    var acc2 = Sum();
    var acc3 = Sum();
    for (var k = 0u; k < p.row_stride; k += SIDE) {
        let of_rows = coopLoad<Right>(&rows[r + k], p.row_stride);
        acc0 = coopMultiplyAdd(coopLoadT<Left>(&queries[q + k], p.query_stride), of_rows, acc0);
        acc1 = coopMultiplyAdd(coopLoadT<Left>(&queries[q + 8u * p.query_stride + k], p.query_stride), of_rows, acc1);
        acc2 = coopMultiplyAdd(coopLoadT<Left>(&queries[q + 16u * p.query_stride + k], p.query_stride), of_rows, acc2);
        acc3 = coopMultiplyAdd(coopLoadT<Left>(&queries[q + 24u * p.query_stride + k], p.query_stride), of_rows, acc3);
    }
    coopStoreT(acc0, &products[at], 4u * TX);
    coopStoreT(acc1, &products[at + 32u * TX], 4u * TX);
    coopStoreT(acc2, &products[at + 64u * TX], 4u * TX);
    coopStoreT(acc3, &products[at + 96u * TX], 4u * TX);
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
