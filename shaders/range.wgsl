
// ---- range: every pair whose key is at most the limit, counted (range_count) or written (range_fill) -----------------
// Buffers: rows, queries, row_norms and query_norms (cosine), mask -> counters [q]; range_fill: out_keys, out_positions.
// One thread: 4 queries x 4 rows of a tile. One workgroup: 4 TY queries, every `groups.y`-th tile of 4 TX rows.
// Barriers: two for each TD components of a tile, in lib/tile. Both passes run the same arithmetic and so agree.

// Which of the four rows from r are hits of query q: one bit per row.
fn hits(q: u32, r: u32, keys: vec4<u32>) -> u32 {
    if (q >= p.q_end) {
        return 0u;
    }
    return hit(q, r, keys.x) | (hit(q, r + 1u, keys.y) << 1u) | (hit(q, r + 2u, keys.z) << 2u)
        | (hit(q, r + 3u, keys.w) << 3u);
}

fn hit(q: u32, r: u32, key: u32) -> u32 {
    if (r < p.row_end && key != NAN && sortable(key) <= sortable(p.limit)) {
        return u32(allowed(q, r));
    }
    return 0u;
}

fn fill(q: u32, r: u32, keys: vec4<u32>) {
    let bits = hits(q, r, keys);
    if (bits != 0u) {
        var at = atomicAdd(&counters[q], countOneBits(bits)) - p.out_base;
        at = put(at, r, keys.x, bits & 1u);
        at = put(at, r + 1u, keys.y, bits & 2u);
        at = put(at, r + 2u, keys.z, bits & 4u);
        at = put(at, r + 3u, keys.w, bits & 8u);
    }
}

fn put(at: u32, r: u32, key: u32, bit: u32) -> u32 {
    if (bit == 0u) {
        return at;
    }
    // The host gives exactly as many places as were counted; should the passes disagree, it finds out by the counters.
    if (at < arrayLength(&out_keys)) {
        out_keys[at] = key;
        out_positions[at] = p.position_base + r;
    }
    return at + 1u;
}

fn add(q: u32, count: u32) {
    if (count != 0u) {
        atomicAdd(&counters[q], count);
    }
}

@compute @workgroup_size(TX, TY)
fn range_count(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
) {
    let q0 = p.q_begin + (group.x + group.z * groups.x) * 4u * TY;
    if (q0 >= p.q_end) {
        return;
    }
    let q = q0 + local.y * 4u;
    var counts = vec4<u32>(0u);
    for (var r0 = p.row_begin + group.y * 4u * TX; r0 < p.row_end; r0 += groups.y * 4u * TX) {
        let keys = tile_keys(q0, r0, local.xy);
        let r = r0 + local.x * 4u;
        counts += countOneBits(vec4<u32>(
            hits(q, r, keys.a),
            hits(q + 1u, r, keys.b),
            hits(q + 2u, r, keys.c),
            hits(q + 3u, r, keys.d),
        ));
    }
    add(q, counts.x);
    add(q + 1u, counts.y);
    add(q + 2u, counts.z);
    add(q + 3u, counts.w);
}

@compute @workgroup_size(TX, TY)
fn range_fill(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
) {
    let q0 = p.q_begin + (group.x + group.z * groups.x) * 4u * TY;
    if (q0 >= p.q_end) {
        return;
    }
    let q = q0 + local.y * 4u;
    for (var r0 = p.row_begin + group.y * 4u * TX; r0 < p.row_end; r0 += groups.y * 4u * TX) {
        let keys = tile_keys(q0, r0, local.xy);
        let r = r0 + local.x * 4u;
        fill(q, r, keys.a);
        fill(q + 1u, r, keys.b);
        fill(q + 2u, r, keys.c);
        fill(q + 3u, r, keys.d);
    }
}
