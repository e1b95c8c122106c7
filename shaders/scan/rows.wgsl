
// ---- scan_rows: direct keys of rows as f32, f16, bf16 or packed bits -------------------------------------------------
// A unit is four components, or four words of bits; each of its four places has a sum of its own.

fn word_or_none(row: u32, w: u32) -> u32 {
    return select(0u, word(row, w), w < p.code_words);
}

// Components 4 j .. 4 j + 3 of a row as the bits of f32; for packed bits, its words 4 j .. 4 j + 3. Zeros behind the last.
fn components(row: u32, j: u32) -> vec4<u32> {
    if (DTYPE == F32 || DTYPE == BITS) {
        let w = 4u * j;
        let a = word_or_none(row, w);
        let b = word_or_none(row, w + 1u);
        let c = word_or_none(row, w + 2u);
        return vec4<u32>(a, b, c, word_or_none(row, w + 3u));
    }
    let a = word_or_none(row, 2u * j);
    let b = word_or_none(row, 2u * j + 1u);
    if (DTYPE == BF16) {
        return vec4<u32>(a << 16u, a & 0xffff0000u, b << 16u, b & 0xffff0000u);
    }
    return vec4<u32>(halves(a), halves(b));
}

fn key(first: vec4<f32>, second: vec4<f32>, query_norm: f32, row_norm: f32) -> u32 {
    return keys_of(across_first(first), across_second(second), query_norm, vec4<f32>(row_norm), 0.0).x;
}

fn keys_of_item(item: Item, thread: u32) {
    let norms = terms_of(item)[0];
    let at = item.queries * p.query_stride + vec4<u32>(1u);
    for (var r = thread; r < item.rows; r += THREADS) {
        let row = row_at(item.slot + r);
        var a = vec4<f32>(0.0);
        var b = vec4<f32>(0.0);
        var c = vec4<f32>(0.0);
        var d = vec4<f32>(0.0);
        var a2 = vec4<f32>(0.0);
        var b2 = vec4<f32>(0.0);
        var c2 = vec4<f32>(0.0);
        var d2 = vec4<f32>(0.0);
        var square = vec4<f32>(0.0);
        for (var j = 0u; j < p.units; j++) {
            let x = components(row, j);
            let qa = queries[at.x + j];
            a = add_first(a, qa, x);
            if (two_sums()) {
                a2 = add_second(a2, qa, x);
            }
            if (METRIC == COSINE) {
                square += numbers(x) * numbers(x);
            }
            if (QUERIES != 1u) {
                let qb = queries[at.y + j];
                let qc = queries[at.z + j];
                let qd = queries[at.w + j];
                b = add_first(b, qb, x);
                c = add_first(c, qc, x);
                d = add_first(d, qd, x);
                if (two_sums()) {
                    b2 = add_second(b2, qb, x);
                    c2 = add_second(c2, qc, x);
                    d2 = add_second(d2, qd, x);
                }
            }
        }
        let length = sqrt((square.x + square.y) + (square.z + square.w));
        var bits = vec4<u32>(key(a, a2, norms.x, length));
        if (QUERIES != 1u) {
            bits.y = key(b, b2, norms.y, length);
            bits.z = key(c, c2, norms.z, length);
            bits.w = key(d, d2, norms.w, length);
        }
        put(item, r, row, bits);
    }
}

@compute @workgroup_size(256)
fn scan_rows(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    for (var i = p.item_begin + group.x; i < p.item_end; i += groups.x) {
        let item = item_at(i);
        keys_of_item(item, thread);
        workgroupBarrier();
        select_item(item, thread);
    }
}
