
// ---- search_matrix_16: lower bounds from f16 on matrix units of 16 x 16 x 16, and the `keep` smallest in one pass -----------
// Buffers: rows and queries (f16, whole tiles of them), row_terms, query_terms, mask
//   -> out_keys, out_positions [q, parts_total, keep], each part a heap; out_bounds [q, parts_total].
// One subgroup: strips of 32 queries x 32 rows. One workgroup: 32 queries, every `parts_total`-th tile of rows.
// Barriers: one a tile, in lib/matrix; four for each round of the queue, in lib/heap.

alias Left = coop_mat16x16<f16, A>;
alias Right = coop_mat16x16<f16, B>;
alias Sum = coop_mat16x16<f32, C>;

const SIDE = 16u;
const HALVES = 2u;

// 32 queries from q0 with the rows from r0, products from place `at` on.
fn strip(q0: u32, r0: u32, at: u32) {
    let q = q0 * p.query_stride;
    let r = r0 * p.row_stride;
    var a0 = Sum();
    var b0 = Sum();
    var a1 = Sum();
    var b1 = Sum();
    for (var k = 0u; k < p.row_stride; k += SIDE) {
        let first = coopLoad<Right>(&rows[r + k], p.row_stride);
        let second = coopLoad<Right>(&rows[r + SIDE * p.row_stride + k], p.row_stride);
        let left0 = coopLoadT<Left>(&queries[q + k], p.query_stride);
        a0 = coopMultiplyAdd(left0, first, a0);
        b0 = coopMultiplyAdd(left0, second, b0);
        let left1 = coopLoadT<Left>(&queries[q + 16u * p.query_stride + k], p.query_stride);
        a1 = coopMultiplyAdd(left1, first, a1);
        b1 = coopMultiplyAdd(left1, second, b1);
    }
    coopStoreT(a0, &products[at], 4u * TX);
    coopStoreT(b0, &products[at + SIDE], 4u * TX);
    coopStoreT(a1, &products[at + 64u * TX], 4u * TX);
    coopStoreT(b1, &products[at + 64u * TX + SIDE], 4u * TX);
}

@compute @workgroup_size(TX * TY)
fn search_matrix_16(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
    @builtin(subgroup_id) team: u32,
    @builtin(num_subgroups) teams: u32,
) {
    search_tiles(group, groups, thread, team, teams);
}
