
// ---- lib/offer: pairs of a query and a row that beat the query's limit go to its list -------------------------------
// The limit is the largest pair kept of the rows before, so no pair above it is wanted. The number of pairs that beat it
// depends on the rows alone. Their order does not, and no answer depends on the order.

// The largest key that is wanted, as a number; inf when there is no limit yet.
fn limit_of(q: u32) -> f32 {
    return bitcast<f32>(unsortable(min(limits[min(q, p.q_end - 1u)].key, INFINITY | 0x80000000u)));
}

fn offer(q: u32, r: u32, number: f32) {
    if (q >= p.q_end || r >= p.row_end || !allowed(q, r)) {
        return;
    }
    var bits = bitcast<u32>(number);
    bits = select(bits, NAN, (bits & 0x7fffffffu) > INFINITY);
    bits = select(bits, 0u, bits == 0x80000000u);
    let position = p.position_base + r;
    if (before(limits[q].key, limits[q].position, sortable(bits), position)) {
        return;
    }
    let place = atomicAdd(&limits[q].count, 1u);
    if (place < p.room) {
        out_keys[q * p.room + place] = bits;
        out_positions[q * p.room + place] = position;
    }
}

fn offer4(q: u32, r: u32, keys: vec4<f32>) {
    offer(q, r, keys.x);
    offer(q, r + 1u, keys.y);
    offer(q, r + 2u, keys.z);
    offer(q, r + 3u, keys.w);
}

// 1 when one of four keys may beat the limit, as few do.
fn some_beat(keys: vec4<f32>, most: f32) -> u32 {
    return select(1u, 0u, all(keys > vec4<f32>(most)));
}

// The first row of the i-th tile of `rows` rows. Tiles are visited in the order of their reversed bits, so that any number
// of them from the first on lie spread over all rows: near rows that lie together don't come all at once.
fn first_row(i: u32, rows: u32) -> u32 {
    if (p.tile_bits == 0u) {
        return p.row_begin;
    }
    return p.row_begin + (reverseBits(i) >> (32u - p.tile_bits)) * rows;
}

// Which of the tiles tile_begin .. tile_end a workgroup visits.
fn tiles_of(group: u32, groups: u32) -> vec2<u32> {
    let each = (p.tile_end - p.tile_begin + groups - 1u) / groups;
    let begin = p.tile_begin + group * each;
    return vec2<u32>(begin, min(begin + each, p.tile_end));
}
