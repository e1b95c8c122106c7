
// ---- search_f32: lower bounds of direct keys from inner products in f32; what beats its query's limit goes to its list
// Buffers: rows, queries, row_norms, query_norms, mask -> out_keys, out_positions [q, room], limits [q].
// One thread: 8 queries x 8 rows of a tile. One workgroup: 8 TY queries, its share of the tiles of 8 TX rows.
// Barriers: two for each STEP words of a tile.
// Thread (x, y) of TX x TY has queries 4 y .. 4 y + 3 of the tile's first half and as many of its second, rows likewise.

fn tile_units() -> u32 {
    return p.query_stride;
}

fn row_unit(row: u32, j: u32) -> vec4<u32> {
    return row4(row, j);
}

fn norms_of_queries(q: u32) -> vec4<f32> {
    let at = min(vec4<u32>(q) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(p.q_end - 1u));
    return vec4<f32>(query_norms[at.x], query_norms[at.y], query_norms[at.z], query_norms[at.w]);
}

fn norms_of_rows(r: u32) -> vec4<f32> {
    let at = min(vec4<u32>(r) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(p.row_end - 1u));
    return vec4<f32>(row_norms[at.x], row_norms[at.y], row_norms[at.z], row_norms[at.w]);
}

// `kernels::search::lower_bound`: below the direct key, from an inner product and both lengths.
fn lower_bound(dot: vec4<f32>, query_norm: f32, row_norm: vec4<f32>, slack: f32) -> vec4<f32> {
    if (METRIC == L2) {
        return (query_norm * query_norm + row_norm * row_norm) * (1.0 - slack) - 2.0 * dot;
    }
    let norms = query_norm * row_norm;
    if (METRIC == INNER_PRODUCT) {
        return -dot - slack * norms;
    }
    return select(-dot / norms - slack, vec4<f32>(0.0), norms == vec4<f32>(0.0));
}

@compute @workgroup_size(TX, TY)
fn search_f32(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
) {
    let q0 = p.q_begin + (group.x + group.z * groups.x) * 8u * TY;
    if (q0 >= p.q_end) {
        return;
    }
    let thread = local.y * TX + local.x;
    let q = q0 + local.y * 4u;
    let far = q + 4u * TY;
    let near_limits = vec4<f32>(limit_of(q), limit_of(q + 1u), limit_of(q + 2u), limit_of(q + 3u));
    let far_limits = vec4<f32>(limit_of(far), limit_of(far + 1u), limit_of(far + 2u), limit_of(far + 3u));
    let near_norms = norms_of_queries(q);
    let far_norms = norms_of_queries(far);
    let tiles = tiles_of(group.y, groups.y);
    for (var tile = tiles.x; tile < tiles.y; tile++) {
        let r0 = first_row(tile, 8u * TX);
        if (r0 >= p.row_end) {
            continue;
        }
        var a0 = vec4<f32>(0.0);
        var b0 = vec4<f32>(0.0);
        var a1 = vec4<f32>(0.0);
        var b1 = vec4<f32>(0.0);
        var a2 = vec4<f32>(0.0);
        var b2 = vec4<f32>(0.0);
        var a3 = vec4<f32>(0.0);
        var b3 = vec4<f32>(0.0);
        var a4 = vec4<f32>(0.0);
        var b4 = vec4<f32>(0.0);
        var a5 = vec4<f32>(0.0);
        var b5 = vec4<f32>(0.0);
        var a6 = vec4<f32>(0.0);
        var b6 = vec4<f32>(0.0);
        var a7 = vec4<f32>(0.0);
        var b7 = vec4<f32>(0.0);
        fetch(q0, r0, 0u, thread);
        for (var j = 0u; j < tile_units(); j += STEP / 4u) {
            workgroupBarrier();
            store(thread);
            workgroupBarrier();
            if (j + STEP / 4u < tile_units()) {
                fetch(q0, r0, j + STEP / 4u, thread);
            }
            for (var i = 0u; i < STEP; i++) {
                let near = bitcast<vec4<f32>>(query_tile[i * query_pitch() + local.y]);
                let away = bitcast<vec4<f32>>(query_tile[i * query_pitch() + TY + local.y]);
                let left = bitcast<vec4<f32>>(row_tile[i * row_pitch() + local.x]);
                let right = bitcast<vec4<f32>>(row_tile[i * row_pitch() + TX + local.x]);
                a0 = fma(near.xxxx, left, a0);
                b0 = fma(near.xxxx, right, b0);
                a1 = fma(near.yyyy, left, a1);
                b1 = fma(near.yyyy, right, b1);
                a2 = fma(near.zzzz, left, a2);
                b2 = fma(near.zzzz, right, b2);
                a3 = fma(near.wwww, left, a3);
                b3 = fma(near.wwww, right, b3);
                a4 = fma(away.xxxx, left, a4);
                b4 = fma(away.xxxx, right, b4);
                a5 = fma(away.yyyy, left, a5);
                b5 = fma(away.yyyy, right, b5);
                a6 = fma(away.zzzz, left, a6);
                b6 = fma(away.zzzz, right, b6);
                a7 = fma(away.wwww, left, a7);
                b7 = fma(away.wwww, right, b7);
            }
        }
        let r = r0 + local.x * 4u;
        let left = norms_of_rows(r);
        let right = norms_of_rows(r + 4u * TX);
        a0 = lower_bound(a0, near_norms.x, left, p.slack);
        b0 = lower_bound(b0, near_norms.x, right, p.slack);
        a1 = lower_bound(a1, near_norms.y, left, p.slack);
        b1 = lower_bound(b1, near_norms.y, right, p.slack);
        a2 = lower_bound(a2, near_norms.z, left, p.slack);
        b2 = lower_bound(b2, near_norms.z, right, p.slack);
        a3 = lower_bound(a3, near_norms.w, left, p.slack);
        b3 = lower_bound(b3, near_norms.w, right, p.slack);
        a4 = lower_bound(a4, far_norms.x, left, p.slack);
        b4 = lower_bound(b4, far_norms.x, right, p.slack);
        a5 = lower_bound(a5, far_norms.y, left, p.slack);
        b5 = lower_bound(b5, far_norms.y, right, p.slack);
        a6 = lower_bound(a6, far_norms.z, left, p.slack);
        b6 = lower_bound(b6, far_norms.z, right, p.slack);
        a7 = lower_bound(a7, far_norms.w, left, p.slack);
        b7 = lower_bound(b7, far_norms.w, right, p.slack);
        var some = 0u;
        some |= some_beat(a0, near_limits.x);
        some |= some_beat(a1, near_limits.y) << 1u;
        some |= some_beat(a2, near_limits.z) << 2u;
        some |= some_beat(a3, near_limits.w) << 3u;
        some |= some_beat(a4, far_limits.x) << 4u;
        some |= some_beat(a5, far_limits.y) << 5u;
        some |= some_beat(a6, far_limits.z) << 6u;
        some |= some_beat(a7, far_limits.w) << 7u;
        some |= some_beat(b0, near_limits.x) << 8u;
        some |= some_beat(b1, near_limits.y) << 9u;
        some |= some_beat(b2, near_limits.z) << 10u;
        some |= some_beat(b3, near_limits.w) << 11u;
        some |= some_beat(b4, far_limits.x) << 12u;
        some |= some_beat(b5, far_limits.y) << 13u;
        some |= some_beat(b6, far_limits.z) << 14u;
        some |= some_beat(b7, far_limits.w) << 15u;
        while (some != 0u) {
            let which = firstTrailingBit(some);
            some &= some - 1u;
            var keys = a0;
            switch (which) {
                case 1u: { keys = a1; }
                case 2u: { keys = a2; }
                case 3u: { keys = a3; }
                case 4u: { keys = a4; }
                case 5u: { keys = a5; }
                case 6u: { keys = a6; }
                case 7u: { keys = a7; }
                case 8u: { keys = b0; }
                case 9u: { keys = b1; }
                case 10u: { keys = b2; }
                case 11u: { keys = b3; }
                case 12u: { keys = b4; }
                case 13u: { keys = b5; }
                case 14u: { keys = b6; }
                case 15u: { keys = b7; }
                default: {}
            }
            let query = select(q, far, (which & 4u) != 0u) + (which & 3u);
            offer4(query, select(r, r + 4u * TX, which >= 8u), keys);
        }
    }
}
