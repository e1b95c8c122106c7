
// ---- search_codes: lower bounds of direct keys from 8-bit codes; what beats its query's limit goes to its list --------
// Buffers: rows (codes), queries (codes and terms), row_terms, longest, mask -> out_keys, out_positions [q, room], limits [q].
// One thread: 8 queries x 8 rows of a tile. One workgroup: 8 TY queries, its share of the tiles of 8 TX rows.
// Barriers: two for each STEP words of a tile.
// Thread (x, y) of TX x TY has queries 4 y .. 4 y + 3 of the tile's first half and as many of its second, rows likewise.

// Sixteen components, which are stored plus 128 in rows.
fn tile_units() -> u32 {
    return p.row_stride;
}

fn row_unit(row: u32, j: u32) -> vec4<u32> {
    return rows[row * p.row_stride + j] ^ vec4<u32>(0x80808080u);
}

// The sums with the products of four more components.
fn multiply(sum: vec4<i32>, q: u32, r: vec4<u32>) -> vec4<i32> {
    return sum + vec4<i32>(dot4I8Packed(q, r.x), dot4I8Packed(q, r.y), dot4I8Packed(q, r.z), dot4I8Packed(q, r.w));
}

// Lower bounds of query q with four rows: the query's terms lie behind its code.
fn bounds_of(products: vec4<i32>, q: u32, of_rows: RowTerms) -> vec4<f32> {
    let at = min(q, p.q_end - 1u) * p.query_stride + p.row_stride;
    return lower_bounds(vec4<f32>(products), bitcast<vec4<f32>>(queries[at]), bitcast<f32>(queries[at + 1u].x), of_rows);
}

// Four neighbours lie in two groups at most.
fn longest_of(first: u32, last: u32) -> f32 {
    return max(longest[first / GROUP], longest[last / GROUP]);
}

@compute @workgroup_size(TX, TY)
fn search_codes(
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
    let tiles = tiles_of(group.y, groups.y);
    for (var tile = tiles.x; tile < tiles.y; tile++) {
        let r0 = first_row(tile, 8u * TX);
        if (r0 >= p.row_end) {
            continue;
        }
        var a0 = vec4<i32>(0);
        var b0 = vec4<i32>(0);
        var a1 = vec4<i32>(0);
        var b1 = vec4<i32>(0);
        var a2 = vec4<i32>(0);
        var b2 = vec4<i32>(0);
        var a3 = vec4<i32>(0);
        var b3 = vec4<i32>(0);
        var a4 = vec4<i32>(0);
        var b4 = vec4<i32>(0);
        var a5 = vec4<i32>(0);
        var b5 = vec4<i32>(0);
        var a6 = vec4<i32>(0);
        var b6 = vec4<i32>(0);
        var a7 = vec4<i32>(0);
        var b7 = vec4<i32>(0);
        fetch(q0, r0, 0u, thread);
        for (var j = 0u; j < tile_units(); j += STEP / 4u) {
            workgroupBarrier();
            store(thread);
            workgroupBarrier();
            if (j + STEP / 4u < tile_units()) {
                fetch(q0, r0, j + STEP / 4u, thread);
            }
            for (var i = 0u; i < STEP; i++) {
                let near = query_tile[i * query_pitch() + local.y];
                let away = query_tile[i * query_pitch() + TY + local.y];
                let left = row_tile[i * row_pitch() + local.x];
                let right = row_tile[i * row_pitch() + TX + local.x];
                a0 = multiply(a0, near.x, left);
                b0 = multiply(b0, near.x, right);
                a1 = multiply(a1, near.y, left);
                b1 = multiply(b1, near.y, right);
                a2 = multiply(a2, near.z, left);
                b2 = multiply(b2, near.z, right);
                a3 = multiply(a3, near.w, left);
                b3 = multiply(b3, near.w, right);
                a4 = multiply(a4, away.x, left);
                b4 = multiply(b4, away.x, right);
                a5 = multiply(a5, away.y, left);
                b5 = multiply(b5, away.y, right);
                a6 = multiply(a6, away.z, left);
                b6 = multiply(b6, away.z, right);
                a7 = multiply(a7, away.w, left);
                b7 = multiply(b7, away.w, right);
            }
        }
        let r = r0 + local.x * 4u;
        let left = row_terms_of(r);
        let right = row_terms_of(r + 4u * TX);
        a0 = bitcast<vec4<i32>>(bounds_of(a0, q, left));
        b0 = bitcast<vec4<i32>>(bounds_of(b0, q, right));
        a1 = bitcast<vec4<i32>>(bounds_of(a1, q + 1u, left));
        b1 = bitcast<vec4<i32>>(bounds_of(b1, q + 1u, right));
        a2 = bitcast<vec4<i32>>(bounds_of(a2, q + 2u, left));
        b2 = bitcast<vec4<i32>>(bounds_of(b2, q + 2u, right));
        a3 = bitcast<vec4<i32>>(bounds_of(a3, q + 3u, left));
        b3 = bitcast<vec4<i32>>(bounds_of(b3, q + 3u, right));
        a4 = bitcast<vec4<i32>>(bounds_of(a4, far, left));
        b4 = bitcast<vec4<i32>>(bounds_of(b4, far, right));
        a5 = bitcast<vec4<i32>>(bounds_of(a5, far + 1u, left));
        b5 = bitcast<vec4<i32>>(bounds_of(b5, far + 1u, right));
        a6 = bitcast<vec4<i32>>(bounds_of(a6, far + 2u, left));
        b6 = bitcast<vec4<i32>>(bounds_of(b6, far + 2u, right));
        a7 = bitcast<vec4<i32>>(bounds_of(a7, far + 3u, left));
        b7 = bitcast<vec4<i32>>(bounds_of(b7, far + 3u, right));
        var some = 0u;
        some |= some_beat(bitcast<vec4<f32>>(a0), near_limits.x);
        some |= some_beat(bitcast<vec4<f32>>(a1), near_limits.y) << 1u;
        some |= some_beat(bitcast<vec4<f32>>(a2), near_limits.z) << 2u;
        some |= some_beat(bitcast<vec4<f32>>(a3), near_limits.w) << 3u;
        some |= some_beat(bitcast<vec4<f32>>(a4), far_limits.x) << 4u;
        some |= some_beat(bitcast<vec4<f32>>(a5), far_limits.y) << 5u;
        some |= some_beat(bitcast<vec4<f32>>(a6), far_limits.z) << 6u;
        some |= some_beat(bitcast<vec4<f32>>(a7), far_limits.w) << 7u;
        some |= some_beat(bitcast<vec4<f32>>(b0), near_limits.x) << 8u;
        some |= some_beat(bitcast<vec4<f32>>(b1), near_limits.y) << 9u;
        some |= some_beat(bitcast<vec4<f32>>(b2), near_limits.z) << 10u;
        some |= some_beat(bitcast<vec4<f32>>(b3), near_limits.w) << 11u;
        some |= some_beat(bitcast<vec4<f32>>(b4), far_limits.x) << 12u;
        some |= some_beat(bitcast<vec4<f32>>(b5), far_limits.y) << 13u;
        some |= some_beat(bitcast<vec4<f32>>(b6), far_limits.z) << 14u;
        some |= some_beat(bitcast<vec4<f32>>(b7), far_limits.w) << 15u;
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
            offer4(query, select(r, r + 4u * TX, which >= 8u), bitcast<vec4<f32>>(keys));
        }
    }
}
