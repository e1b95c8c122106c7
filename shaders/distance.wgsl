
// ---- distance: keys of a block of queries with a block of rows ------------------------------------------------------
// Buffers: rows, queries, row_norms and query_norms (cosine), mask -> out [q, out_stride] bits of f32.
// One thread: 4 queries x 4 rows. One workgroup: 4 TY queries, every `groups.y`-th tile of 4 TX rows.
// Barriers: two for each TD components of a tile, in lib/tile.

fn put4(q: u32, r: u32, keys: vec4<u32>) {
    if (q < p.q_end) {
        put(q, r, keys.x);
        put(q, r + 1u, keys.y);
        put(q, r + 2u, keys.z);
        put(q, r + 3u, keys.w);
    }
}

fn put(q: u32, r: u32, key: u32) {
    if (r < p.row_end) {
        out[(q - p.q_begin) * p.out_stride + p.out_offset + (r - p.row_begin)] = select(MISSING_KEY, key, allowed(q, r));
    }
}

@compute @workgroup_size(TX, TY)
fn distance(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
) {
    let q0 = p.q_begin + (group.x + group.z * groups.x) * 4u * TY;
    if (q0 >= p.q_end) {
        return;
    }
    for (var r0 = p.row_begin + group.y * 4u * TX; r0 < p.row_end; r0 += groups.y * 4u * TX) {
        let keys = tile_keys(q0, r0, local.xy);
        let q = q0 + local.y * 4u;
        let r = r0 + local.x * 4u;
        put4(q, r, keys.a);
        put4(q + 1u, r, keys.b);
        put4(q + 2u, r, keys.c);
        put4(q + 3u, r, keys.d);
    }
}
