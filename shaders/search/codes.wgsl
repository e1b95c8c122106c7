
// ---- search_codes: lower bounds from 8-bit codes and the `keep` smallest of them in one pass -------------------------
// Buffers: rows (codes), queries (codes and terms), row_terms, longest, mask
//   -> out_keys, out_positions [q, parts_total, keep], each part a heap; out_bounds [q, parts_total].
// One thread: 4 queries x 4 rows of a tile. One workgroup: 4 TY queries, every `parts_total`-th tile of 4 TX rows.
// Barriers: two for each TD words of a tile, in lib/tile_codes; four for each round of the queue, in lib/heap.

@compute @workgroup_size(TX, TY)
fn search_codes(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
) {
    let q0 = p.q_begin + (group.x + group.z * groups.x) * 4u * TY;
    if (q0 >= p.q_end) {
        return;
    }
    let thread = local.y * TX + local.x;
    empty_heaps(thread);
    if (p.resume != 0u) {
        read_heaps(q0, group.y, thread);
    }
    for (var r0 = first_row(group.y); r0 < p.row_end; r0 += groups.y * tile_rows()) {
        let keys = tile_bounds(q0, r0, local.xy);
        select_tile(keys, q0, r0, local.xy);
    }
    write_heaps(q0, group.y, thread);
    write_bounds(q0, group.y, thread);
}
