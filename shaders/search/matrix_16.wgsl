
// ---- search_matrix_16: lower bounds from f16 on matrix units of 16 x 16 x 16; what beats its query's limit goes to its list
// Buffers: rows and queries (f16, whole tiles of them), row_terms, query_terms, mask
//   -> out_keys, out_positions [q, room], limits [q].
// One workgroup: 128 queries, its share of the tiles of 128 rows, in eight subgroups of 32 threads. One subgroup: 64 queries x
// 32 rows of a tile, in eight matrices of sums.
// Barriers: two for each STEP components of a tile, two of a subgroup for each strip of 16 queries.

alias Left = coop_mat16x16<f16, A>;
alias Right = coop_mat16x16<f16, B>;
alias Sum = coop_mat16x16<f32, C>;

// Components that workgroup memory holds at a time.
const STEP = 32u;
// Vectors of workgroup memory from vector to vector of the tile; two more than are used, so that loads meet different banks.
const PITCH = 10u;
// The same for a strip of sums: 32 rows in 8 vectors.
const SUMS_PITCH = 9u;

var<workgroup> query_tile: array<vec4<f16>, 1280>;
var<workgroup> row_tile: array<vec4<f16>, 1280>;
var<workgroup> sums: array<vec4<f32>, 1152>;
var<workgroup> terms: array<vec4<f32>, 128>;
var<workgroup> most: array<f32, 128>;
var<private> next_queries: array<vec4<f16>, 4>;
var<private> next_rows: array<vec4<f16>, 4>;

// f16 rows have no part that grows with the longest of a group.
fn longest_of(first: u32, last: u32) -> f32 {
    return 0.0;
}

// Components k .. k + STEP - 1 of the tile's queries and rows, eight neighbours per thread and turn.
fn fetch(q0: u32, r0: u32, k: u32, thread: u32) {
    for (var n = 0u; n < 2u; n++) {
        let i = thread + n * 256u;
        let unit = k / 4u + i % 4u * 2u;
        let q = (q0 + i / 4u) * (p.query_stride / 4u) + unit;
        let r = (r0 + i / 4u) * (p.row_stride / 4u) + unit;
        next_queries[n * 2u] = queries[q];
        next_queries[n * 2u + 1u] = queries[q + 1u];
        next_rows[n * 2u] = rows[r];
        next_rows[n * 2u + 1u] = rows[r + 1u];
    }
}

fn store(thread: u32) {
    for (var n = 0u; n < 2u; n++) {
        let i = thread + n * 256u;
        let at = i / 4u * PITCH + i % 4u * 2u;
        query_tile[at] = next_queries[n * 2u];
        query_tile[at + 1u] = next_queries[n * 2u + 1u];
        row_tile[at] = next_rows[n * 2u];
        row_tile[at + 1u] = next_rows[n * 2u + 1u];
    }
}

// The strip of sums of a subgroup, 16 queries from place `at` of the tile with 32 rows, of which a thread has four.
fn test_strip(begin: u32, lane: u32, at: u32, q0: u32, r: u32, of_rows: RowTerms) {
    for (var i = lane / 8u; i < 16u; i += 4u) {
        let keys = lower_bounds(sums[begin + i * SUMS_PITCH + lane % 8u], terms[at + i], 0.0, of_rows);
        if (some_beat(keys, most[at + i]) != 0u) {
            offer4(q0 + at + i, r, keys);
        }
    }
}

@compute @workgroup_size(256)
fn search_matrix_16(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
    @builtin(subgroup_id) team: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let q0 = p.q_begin + (group.x + group.z * groups.x) * 128u;
    if (q0 >= p.q_end) {
        return;
    }
    if (thread < 128u) {
        terms[thread] = query_terms[min(q0 + thread, p.q_end - 1u)];
        most[thread] = limit_of(q0 + thread);
    }
    // Where the subgroup's part of the tile begins.
    let q = team % 2u * 64u;
    let r = team / 2u * 32u;
    let begin = team * 16u * SUMS_PITCH;
    let tiles = tiles_of(group.y, groups.y);
    for (var tile = tiles.x; tile < tiles.y; tile++) {
        let r0 = first_row(tile, 128u);
        if (r0 >= p.row_end) {
            continue;
        }
        var c00 = Sum();
        var c01 = Sum();
        var c10 = Sum();
        var c11 = Sum();
        var c20 = Sum();
        var c21 = Sum();
        var c30 = Sum();
        var c31 = Sum();
        fetch(q0, r0, 0u, thread);
        for (var k = 0u; k < p.row_stride; k += STEP) {
            workgroupBarrier();
            store(thread);
            workgroupBarrier();
            if (k + STEP < p.row_stride) {
                fetch(q0, r0, k + STEP, thread);
            }
            for (var half = 0u; half < 2u; half++) {
                let at = half * 4u;
                let right0 = coopLoad<Right>(&row_tile[r * PITCH + at], PITCH);
                let right1 = coopLoad<Right>(&row_tile[(r + 16u) * PITCH + at], PITCH);
                let left0 = coopLoadT<Left>(&query_tile[q * PITCH + at], PITCH);
                c00 = coopMultiplyAdd(left0, right0, c00);
                c01 = coopMultiplyAdd(left0, right1, c01);
                let left1 = coopLoadT<Left>(&query_tile[(q + 16u) * PITCH + at], PITCH);
                c10 = coopMultiplyAdd(left1, right0, c10);
                c11 = coopMultiplyAdd(left1, right1, c11);
                let left2 = coopLoadT<Left>(&query_tile[(q + 32u) * PITCH + at], PITCH);
                c20 = coopMultiplyAdd(left2, right0, c20);
                c21 = coopMultiplyAdd(left2, right1, c21);
                let left3 = coopLoadT<Left>(&query_tile[(q + 48u) * PITCH + at], PITCH);
                c30 = coopMultiplyAdd(left3, right0, c30);
                c31 = coopMultiplyAdd(left3, right1, c31);
            }
        }
        let row = r0 + r + lane % 8u * 4u;
        let of_rows = row_terms_of(row);
        coopStoreT(c00, &sums[begin], SUMS_PITCH);
        coopStoreT(c01, &sums[begin + 4u], SUMS_PITCH);
        subgroupBarrier();
        test_strip(begin, lane, q, q0, row, of_rows);
        subgroupBarrier();
        coopStoreT(c10, &sums[begin], SUMS_PITCH);
        coopStoreT(c11, &sums[begin + 4u], SUMS_PITCH);
        subgroupBarrier();
        test_strip(begin, lane, q + 16u, q0, row, of_rows);
        subgroupBarrier();
        coopStoreT(c20, &sums[begin], SUMS_PITCH);
        coopStoreT(c21, &sums[begin + 4u], SUMS_PITCH);
        subgroupBarrier();
        test_strip(begin, lane, q + 32u, q0, row, of_rows);
        subgroupBarrier();
        coopStoreT(c30, &sums[begin], SUMS_PITCH);
        coopStoreT(c31, &sums[begin + 4u], SUMS_PITCH);
        subgroupBarrier();
        test_strip(begin, lane, q + 48u, q0, row, of_rows);
        subgroupBarrier();
    }
}
