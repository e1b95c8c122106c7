
// ---- scan_parts: sums of entries of a query's tables, chosen by parts of WIDTH bits -----------------------------------
// The tables of the item's queries pass through workgroup memory side by side: a word holds the same entry for each of
// four queries, so that one look-up serves all. Sums of at most 128 bytes are kept two per word.

override ENTRIES: u32 = 1u << WIDTH;
override PARTS: u32 = 4u * SCAN_ROWS / ENTRIES; // whose tables fit
override PARTS_A_WORD: u32 = 32u / WIDTH;

// Word i of the tables at `at`, four entries.
fn entries(at: u32, i: u32) -> u32 {
    return queries[at + i / 4u][i % 4u];
}

fn load_tables(at: vec4<u32>, parts: u32, thread: u32) {
    for (var i = thread; i < parts * ENTRIES / 4u; i += THREADS) {
        let a = entries(at.x, i);
        var four = vec4<u32>(a);
        if (QUERIES != 1u) {
            four = vec4<u32>(a, entries(at.y, i), entries(at.z, i), entries(at.w, i));
        }
        for (var e = 0u; e < 4u; e++) {
            let bytes = (four >> vec4<u32>(8u * e)) & vec4<u32>(255u);
            keys[4u * i + e] = bytes.x | (bytes.y << 8u) | (bytes.z << 16u) | (bytes.w << 24u);
        }
    }
}

// The entries that parts from `first` on of a row choose, added up for each query.
fn sums_of(row: u32, first: u32, parts: u32) -> vec4<u32> {
    var even = 0u;
    var odd = 0u;
    for (var part = 0u; part < parts; part += PARTS_A_WORD) {
        let code = word(row, (first + part) / PARTS_A_WORD);
        for (var i = 0u; i < PARTS_A_WORD; i++) {
            // Byte i % 4, shifted right by WIDTH times i / 4.
            let entry = (code >> (8u * (i % 4u) + WIDTH * (i / 4u))) & (ENTRIES - 1u);
            let four = keys[(part + i) * ENTRIES + entry];
            even += four & 0x00ff00ffu;
            odd += (four >> 8u) & 0x00ff00ffu;
        }
    }
    return vec4<u32>(even & 0xffffu, odd & 0xffffu, even >> 16u, odd >> 16u);
}

fn keys_of_item(item: Item, thread: u32) {
    let terms = terms_of(item);
    let at = item.queries * p.query_stride + vec4<u32>(1u);
    let near = row_at(item.slot + thread);
    let far = row_at(item.slot + THREADS + thread);
    var near_sums = vec4<u32>(0u);
    var far_sums = vec4<u32>(0u);
    let all = select(p.parts, 0u, item.rows == 0u);
    for (var first = 0u; first < all; first += PARTS) {
        let parts = min(PARTS, p.parts - first);
        workgroupBarrier();
        load_tables(at + vec4<u32>(first * ENTRIES / 16u), parts, thread);
        workgroupBarrier();
        if (thread < item.rows) {
            near_sums += sums_of(near, first, parts);
        }
        if (thread + THREADS < item.rows) {
            far_sums += sums_of(far, first, parts);
        }
    }
    workgroupBarrier();
    if (thread < item.rows) {
        put(item, thread, near, estimates(item, near, vec4<f32>(near_sums), terms[0], terms[1]));
    }
    if (thread + THREADS < item.rows) {
        put(item, thread + THREADS, far, estimates(item, far, vec4<f32>(far_sums), terms[0], terms[1]));
    }
}

@compute @workgroup_size(256)
fn scan_parts(
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
