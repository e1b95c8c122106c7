
// ---- lib/tile: the keys of 4 TY queries with 4 TX rows --------------------------------------------------------------
// Thread (x, y) of TX x TY holds 4 x 4 keys: queries 4 y .. 4 y + 3 of the tile, rows 4 x .. 4 x + 3. Queries and rows
// pass through workgroup memory TD components at a time, turned so that one vector holds a component of four rows.
// Each block of 8 components is summed on its own and then added, in every shape: at most 8 + dim / 8 additions in a row.

const BLOCK = 8u;

// What lib/load brings: quads of components.
fn tile_units() -> u32 {
    return p.query_stride;
}

fn row_unit(row: u32, j: u32) -> vec4<u32> {
    return row4(row, j);
}

// The keys of this thread in the tile of queries from q0 and rows from r0. All threads of the workgroup call it together
// (two barriers for each TD components).
fn tile_keys(q0: u32, r0: u32, local: vec2<u32>) -> Keys {
    let thread = local.y * TX + local.x;
    var a = vec4<f32>(0.0);
    var b = vec4<f32>(0.0);
    var c = vec4<f32>(0.0);
    var d = vec4<f32>(0.0);
    var a2 = vec4<f32>(0.0);
    var b2 = vec4<f32>(0.0);
    var c2 = vec4<f32>(0.0);
    var d2 = vec4<f32>(0.0);
    for (var j = 0u; j < p.query_stride; j += TD / 4u) {
        workgroupBarrier();
        load_tiles(q0, r0, j, thread);
        workgroupBarrier();
        for (var block = 0u; block < TD; block += BLOCK) {
            var at = vec4<f32>(0.0);
            var bt = vec4<f32>(0.0);
            var ct = vec4<f32>(0.0);
            var dt = vec4<f32>(0.0);
            var at2 = vec4<f32>(0.0);
            var bt2 = vec4<f32>(0.0);
            var ct2 = vec4<f32>(0.0);
            var dt2 = vec4<f32>(0.0);
            // From 0 to a constant, which every compiler unrolls.
            for (var n = 0u; n < BLOCK; n++) {
                let q = query_tile[(block + n) * TY + local.y];
                let r = row_tile[(block + n) * TX + local.x];
                at = add_first(at, q.xxxx, r);
                bt = add_first(bt, q.yyyy, r);
                ct = add_first(ct, q.zzzz, r);
                dt = add_first(dt, q.wwww, r);
                if (two_sums()) {
                    at2 = add_second(at2, q.xxxx, r);
                    bt2 = add_second(bt2, q.yyyy, r);
                    ct2 = add_second(ct2, q.zzzz, r);
                    dt2 = add_second(dt2, q.wwww, r);
                }
            }
            a = join(a, at);
            b = join(b, bt);
            c = join(c, ct);
            d = join(d, dt);
            if (two_sums()) {
                a2 += at2;
                b2 += bt2;
                c2 += ct2;
                d2 += dt2;
            }
        }
    }
    var query_norm = vec4<f32>(0.0);
    var row_norm = vec4<f32>(0.0);
    if (METRIC == COSINE) {
        let q = min(vec4<u32>(q0 + local.y * 4u) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(p.q_end - 1u));
        let r = min(vec4<u32>(r0 + local.x * 4u) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(p.row_end - 1u));
        query_norm = vec4<f32>(query_norms[q.x], query_norms[q.y], query_norms[q.z], query_norms[q.w]);
        row_norm = vec4<f32>(row_norms[r.x], row_norms[r.y], row_norms[r.z], row_norms[r.w]);
    }
    return Keys(
        keys_of(a, a2, query_norm.x, row_norm),
        keys_of(b, b2, query_norm.y, row_norm),
        keys_of(c, c2, query_norm.z, row_norm),
        keys_of(d, d2, query_norm.w, row_norm),
    );
}
