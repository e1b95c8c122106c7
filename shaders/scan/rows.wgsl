
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

// Of one row with four queries: both sums, and the square of its length.
struct Sums {
    a: vec4<f32>,
    b: vec4<f32>,
    c: vec4<f32>,
    d: vec4<f32>,
    a2: vec4<f32>,
    b2: vec4<f32>,
    c2: vec4<f32>,
    d2: vec4<f32>,
    square: vec4<f32>,
}

// Units of four queries.
struct Four {
    a: vec4<u32>,
    b: vec4<u32>,
    c: vec4<u32>,
    d: vec4<u32>,
}

fn four_at(at: vec4<u32>, j: u32) -> Four {
    let a = queries[at.x + j];
    if (QUERIES == 1u) {
        return Four(a, a, a, a);
    }
    return Four(a, queries[at.y + j], queries[at.z + j], queries[at.w + j]);
}

fn added(sums: Sums, q: Four, x: vec4<u32>) -> Sums {
    var s = sums;
    s.a = add_first(s.a, q.a, x);
    if (QUERIES != 1u) {
        s.b = add_first(s.b, q.b, x);
        s.c = add_first(s.c, q.c, x);
        s.d = add_first(s.d, q.d, x);
    }
    if (two_sums()) {
        s.a2 = add_second(s.a2, q.a, x);
        if (QUERIES != 1u) {
            s.b2 = add_second(s.b2, q.b, x);
            s.c2 = add_second(s.c2, q.c, x);
            s.d2 = add_second(s.d2, q.d, x);
        }
    }
    if (METRIC == COSINE) {
        s.square += numbers(x) * numbers(x);
    }
    return s;
}

fn key(first: vec4<f32>, second: vec4<f32>, query_norm: f32, row_norm: f32) -> u32 {
    return keys_of(across_first(first), across_second(second), query_norm, vec4<f32>(row_norm)).x;
}

fn keys_of_sums(s: Sums, norms: vec4<f32>) -> vec4<u32> {
    let length = sqrt((s.square.x + s.square.y) + (s.square.z + s.square.w));
    var bits = vec4<u32>(key(s.a, s.a2, norms.x, length));
    if (QUERIES != 1u) {
        bits.y = key(s.b, s.b2, norms.y, length);
        bits.z = key(s.c, s.c2, norms.z, length);
        bits.w = key(s.d, s.d2, norms.w, length);
    }
    return bits;
}

fn keys_of_item(item: Item, thread: u32) {
    if (thread >= item.rows) {
        return;
    }
    let norms = terms_of(item)[0];
    let at = item.queries * p.query_stride + vec4<u32>(1u);
    // Two rows, so that each part of the queries is read once for both.
    let two = thread + THREADS < item.rows;
    let near = row_at(item.slot + thread);
    let far = row_at(item.slot + select(thread, thread + THREADS, two));
    var near_sums = Sums();
    var far_sums = Sums();
    for (var j = 0u; j < p.units; j++) {
        let four = four_at(at, j);
        near_sums = added(near_sums, four, components(near, j));
        if (two) {
            far_sums = added(far_sums, four, components(far, j));
        }
    }
    put(item, thread, near, keys_of_sums(near_sums, norms));
    if (two) {
        put(item, thread + THREADS, far, keys_of_sums(far_sums, norms));
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
