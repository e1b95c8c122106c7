
// ---- assign: the nearest row of each query ---------------------------------------------------------------------------
// Buffers: rows, queries, row_norms and query_norms (cosine), mask -> out_keys, out_positions [q].
// One thread: 4 queries x 4 rows of a tile. One workgroup: 4 TY queries, all tiles of 4 TX rows one after another; no key
// leaves the registers, and at the end the TX threads of a query compare their results.
// Barriers: two for each TD components of a tile, in lib/tile; one at the end.

var<workgroup> near_keys: array<u32, 4u * TY * TX>;
var<workgroup> near_positions: array<u32, 4u * TY * TX>;

// The better of the best so far (key, position) of query q and the four rows from r on.
fn nearer(best: vec2<u32>, bits: vec4<u32>, q: u32, r: u32) -> vec2<u32> {
    let keys = sortable4(bits);
    var near = best;
    for (var i = 0u; i < 4u; i++) {
        let position = p.position_base + r + i;
        if (r + i < p.row_end && before(keys[i], position, near.x, near.y) && allowed(q, r + i)) {
            near = vec2<u32>(keys[i], position);
        }
    }
    return near;
}

fn put_near(at: u32, near: vec2<u32>) {
    near_keys[at] = near.x;
    near_positions[at] = near.y;
}

@compute @workgroup_size(TX, TY)
fn assign(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_id) local: vec3<u32>,
) {
    let q0 = p.q_begin + (group.x + group.z * groups.x) * 4u * TY;
    if (q0 >= p.q_end) {
        return;
    }
    let nothing = vec2<u32>(0xffffffffu, NO_POSITION);
    var a = nothing;
    var b = nothing;
    var c = nothing;
    var d = nothing;
    for (var r0 = p.row_begin; r0 < p.row_end; r0 += 4u * TX) {
        let keys = tile_keys(q0, r0, local.xy);
        let q = q0 + local.y * 4u;
        let r = r0 + local.x * 4u;
        a = nearer(a, keys.a, min(q, p.q_end - 1u), r);
        b = nearer(b, keys.b, min(q + 1u, p.q_end - 1u), r);
        c = nearer(c, keys.c, min(q + 2u, p.q_end - 1u), r);
        d = nearer(d, keys.d, min(q + 3u, p.q_end - 1u), r);
    }
    let lane = local.y * 4u;
    put_near(lane * TX + local.x, a);
    put_near((lane + 1u) * TX + local.x, b);
    put_near((lane + 2u) * TX + local.x, c);
    put_near((lane + 3u) * TX + local.x, d);
    workgroupBarrier();
    for (var i = local.y * TX + local.x; i < 4u * TY; i += TX * TY) {
        let q = q0 + i;
        if (q < p.q_end) {
            var near = nothing;
            if (p.first == 0u && out_positions[q] != NO_POSITION) {
                near = vec2<u32>(sortable(out_keys[q]), out_positions[q]);
            }
            for (var x = 0u; x < TX; x++) {
                let at = i * TX + x;
                if (before(near_keys[at], near_positions[at], near.x, near.y)) {
                    near = vec2<u32>(near_keys[at], near_positions[at]);
                }
            }
            out_keys[q] = select(unsortable(near.x), INFINITY, near.y == NO_POSITION);
            out_positions[q] = near.y;
        }
    }
}
