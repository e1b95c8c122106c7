
// ---- search_below: keys that are not above a limit, as pairs of a list -----------------------------------------------
// Buffers: keys [q, width] bits of f32, bars [q] (what select_k says of the workgroups' smallest pairs)
//   -> out_keys, out_positions [q, room], limits [q].
// One thread: every THREADS x workgroups-th key of one query.

@compute @workgroup_size(256)
fn search_below(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let q = group.y;
    let bar = vec2<u32>(bars[q * 4u], bars[q * 4u + 1u]);
    for (var i = group.x * 256u + thread; i < p.width; i += groups.x * 256u) {
        let bits = keys[q * p.width + i];
        let key = sortable(bits);
        let position = p.position_base + i;
        if (bits != MISSING_KEY && !before(bar.x, bar.y, key, position)) {
            if (!before(limits[q].key, limits[q].position, key, position)) {
                let place = atomicAdd(&limits[q].count, 1u);
                if (place < p.room) {
                    out_keys[q * p.room + place] = bits;
                    out_positions[q * p.room + place] = position;
                }
            }
        }
    }
}
