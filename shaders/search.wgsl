
// ---- search: keys and the `keep` smallest of them in one pass -------------------------------------------------------
// Buffers: rows, queries, row_norms and query_norms (cosine and the f32 screen), mask
//   -> out_keys, out_positions [q, parts_total, keep], each part in no order.
// One thread: 4 queries x 4 rows of a tile. One workgroup: 4 TY queries, every `groups.y`-th tile of 4 TX rows.
// Barriers: two for each TD components of a tile, in lib/tile; four for each round of the queue, in lib/heap.

@compute @workgroup_size(TX, TY)
fn search(
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
    for (var r0 = p.row_begin + group.y * 4u * TX; r0 < p.row_end; r0 += groups.y * 4u * TX) {
        let keys = tile_keys(q0, r0, local.xy);
        select_tile(keys, q0, r0, local.xy);
    }
    write_heaps(q0, p.part_base + group.y, thread);
}
