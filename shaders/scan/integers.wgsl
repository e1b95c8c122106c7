
// ---- scan_integers: sums of products of unsigned integers of WIDTH bits with a query's signed bytes -------------------
// A unit is 16 parts: four words of a query's bytes, and as many of a row's once they are unpacked. Integers of 3, 5, 6 and
// 7 bits lie in fields of 4, 2 and 1 bits, which are joined in their bytes: products are taken once.

fn field4(row: u32, first: u32, j: u32) -> vec4<u32> {
    let a = word(row, first + 2u * j);
    let b = word(row, first + 2u * j + 1u);
    return vec4<u32>(a, a >> 4u, b, b >> 4u) & vec4<u32>(0x0f0f0f0fu);
}

fn field2(row: u32, first: u32, j: u32) -> vec4<u32> {
    return (vec4<u32>(word(row, first + j)) >> vec4<u32>(0u, 2u, 4u, 6u)) & vec4<u32>(0x03030303u);
}

fn field1(row: u32, first: u32, j: u32) -> vec4<u32> {
    let half = word(row, first + j / 2u) >> (4u * (j & 1u));
    return (vec4<u32>(half) >> vec4<u32>(0u, 1u, 2u, 3u)) & vec4<u32>(0x01010101u);
}

// Parts 16 j .. 16 j + 15 of a row, a byte each; those of 8 bits less 128. What lies behind the last part is multiplied by
// zero.
fn codes(row: u32, j: u32) -> vec4<u32> {
    let units = p.units;
    if (WIDTH == 1u) {
        return field1(row, 0u, j);
    }
    if (WIDTH == 2u) {
        return field2(row, 0u, j);
    }
    if (WIDTH == 3u) {
        return (field2(row, 0u, j) << vec4<u32>(1u)) | field1(row, units, j);
    }
    if (WIDTH == 4u) {
        return field4(row, 0u, j);
    }
    if (WIDTH == 5u) {
        return (field4(row, 0u, j) << vec4<u32>(1u)) | field1(row, 2u * units, j);
    }
    if (WIDTH == 6u) {
        return (field4(row, 0u, j) << vec4<u32>(2u)) | field2(row, 2u * units, j);
    }
    if (WIDTH == 7u) {
        let upper = (field4(row, 0u, j) << vec4<u32>(3u)) | (field2(row, 2u * units, j) << vec4<u32>(1u));
        return upper | field1(row, 3u * units, j);
    }
    let at = 4u * j;
    let four = vec4<u32>(word(row, at), word(row, at + 1u), word(row, at + 2u), word(row, at + 3u));
    return four ^ vec4<u32>(0x80808080u);
}

fn product(c: vec4<u32>, q: vec4<u32>) -> i32 {
    return (dot4I8Packed(c.x, q.x) + dot4I8Packed(c.y, q.y)) + (dot4I8Packed(c.z, q.z) + dot4I8Packed(c.w, q.w));
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

fn products(c: vec4<u32>, q: Four) -> vec4<i32> {
    if (QUERIES == 1u) {
        return vec4<i32>(product(c, q.a));
    }
    return vec4<i32>(product(c, q.a), product(c, q.b), product(c, q.c), product(c, q.d));
}

fn keys_of_item(item: Item, thread: u32) {
    if (thread >= item.rows) {
        return;
    }
    let terms = terms_of(item);
    let at = item.queries * p.query_stride + vec4<u32>(1u);
    // Integers of 8 bits are stored less 128: this makes up for it.
    let before = at - vec4<u32>(1u);
    let missing = bitcast<vec4<i32>>(
        vec4<u32>(queries[before.x].z, queries[before.y].z, queries[before.z].z, queries[before.w].z),
    );
    // Two rows, so that each part of the queries is read once for both.
    let two = thread + THREADS < item.rows;
    let near = row_at(item.slot + thread);
    let far = row_at(item.slot + select(thread, thread + THREADS, two));
    var near_sums = missing;
    var far_sums = missing;
    for (var j = 0u; j < p.units; j += 2u) {
        let first = four_at(at, j);
        let second = four_at(at, j + 1u);
        near_sums += products(codes(near, j), first) + products(codes(near, j + 1u), second);
        if (two) {
            far_sums += products(codes(far, j), first) + products(codes(far, j + 1u), second);
        }
    }
    put(item, thread, near, estimates(item, near, vec4<f32>(near_sums), terms[0], terms[1]));
    if (two) {
        put(item, thread + THREADS, far, estimates(item, far, vec4<f32>(far_sums), terms[0], terms[1]));
    }
}

@compute @workgroup_size(256)
fn scan_integers(
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
