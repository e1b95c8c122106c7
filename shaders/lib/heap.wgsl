
// ---- lib/heap: for each query of a workgroup the smallest pairs of (key, position) so far ----------------------------
// Workgroup memory: for each query a heap, the largest pair on top, which is the threshold that a key must beat; a queue
// for those that do. A queue that is full is emptied into the heaps and the threads that found no place look again, by
// then at lower thresholds.

const QUEUE = 256u;

var<workgroup> heap_keys: array<u32, 4u * TY * K>;
var<workgroup> heap_positions: array<u32, 4u * TY * K>;
var<workgroup> queue_keys: array<u32, QUEUE>;
var<workgroup> queue_places: array<u32, QUEUE>; // query of the tile << 16 | row of the tile
var<workgroup> waiting: u32;

// Which of the four keys from row r on beat the threshold of query `lane` of the tile: one bit per row.
fn better4(keys: vec4<u32>, lane: u32, r: u32) -> u32 {
    let top = heap_keys[lane];
    let place = heap_positions[lane];
    let at = vec4<u32>(p.position_base + r) + vec4<u32>(0u, 1u, 2u, 3u);
    let better = (keys < vec4<u32>(top)) | ((keys == vec4<u32>(top)) & (at < vec4<u32>(place)));
    let four = select(vec4<u32>(0u), vec4<u32>(1u, 2u, 4u, 8u), better);
    return (four.x | four.y) | (four.z | four.w);
}

// The same for the 16 keys of a thread: bit 4 i + j for query i and row j.
fn better16(keys: Keys, lane: u32, r: u32) -> u32 {
    return better4(keys.a, lane, r) | (better4(keys.b, lane + 1u, r) << 4u) | (better4(keys.c, lane + 2u, r) << 8u)
        | (better4(keys.d, lane + 3u, r) << 12u);
}

// Without those of `bits` that lie behind the last query or row, or that the mask forbids.
fn existing(bits: u32, q: u32, r: u32) -> u32 {
    var left = bits;
    var good = 0u;
    while (left != 0u) {
        let bit = firstTrailingBit(left);
        left &= left - 1u;
        let query = q + (bit >> 2u);
        let row = r + (bit & 3u);
        if (query < p.q_end && row < p.row_end) {
            good |= u32(allowed(query, row)) << bit;
        }
    }
    return good;
}

fn key_of(keys: Keys, bit: u32) -> u32 {
    let low = select(keys.a, keys.b, (bit & 4u) != 0u);
    let high = select(keys.c, keys.d, (bit & 4u) != 0u);
    let four = select(low, high, (bit & 8u) != 0u);
    let two = select(four.xy, four.zw, (bit & 2u) != 0u);
    return select(two.x, two.y, (bit & 1u) != 0u);
}

// In place of the largest pair of a query.
fn replace_top(lane: u32, key: u32, position: u32) {
    var i = 0u;
    for (var child = 1u; child < p.keep; child = 2u * i + 1u) {
        var child_key = heap_keys[child * 4u * TY + lane];
        var child_position = heap_positions[child * 4u * TY + lane];
        if (child + 1u < p.keep) {
            let other_key = heap_keys[(child + 1u) * 4u * TY + lane];
            let other_position = heap_positions[(child + 1u) * 4u * TY + lane];
            if (before(child_key, child_position, other_key, other_position)) {
                child++;
                child_key = other_key;
                child_position = other_position;
            }
        }
        if (!before(key, position, child_key, child_position)) {
            break;
        }
        heap_keys[i * 4u * TY + lane] = child_key;
        heap_positions[i * 4u * TY + lane] = child_position;
        i = child;
    }
    heap_keys[i * 4u * TY + lane] = key;
    heap_positions[i * 4u * TY + lane] = position;
}

// Takes the entries of query `lane` out of the queue.
fn take(lane: u32, entries: u32, r0: u32) {
    for (var i = 0u; i < entries; i++) {
        let place = queue_places[i];
        if ((place >> 16u) == lane) {
            let key = queue_keys[i];
            let position = p.position_base + r0 + (place & 0xffffu);
            if (before(key, position, heap_keys[lane], heap_positions[lane])) {
                replace_top(lane, key, position);
            }
        }
    }
}

// Puts the thread's pending keys into the queue, as far as it has room; gives those that are still pending.
fn offer(keys: Keys, pending: u32, local: vec2<u32>) -> u32 {
    var place = claim(countOneBits(pending));
    var left = pending;
    while (left != 0u && place < QUEUE) {
        let bit = firstTrailingBit(left);
        left &= left - 1u;
        queue_keys[place] = key_of(keys, bit);
        queue_places[place] = ((local.y * 4u + (bit >> 2u)) << 16u) | (local.x * 4u + (bit & 3u));
        place++;
    }
    return left;
}

// All heaps empty. All threads of the workgroup call it together (one barrier).
fn empty_heaps(thread: u32) {
    for (var i = thread; i < 4u * TY * K; i += TX * TY) {
        heap_keys[i] = 0xffffffffu;
        heap_positions[i] = NO_POSITION;
    }
    if (thread == 0u) {
        atomicStore(&claimed, 0u);
    }
    workgroupBarrier();
}

// Takes the keys of a tile, as bits, into the heaps. All threads of the workgroup call it together (four barriers for
// each round of the queue).
fn select_tile(bits: Keys, q0: u32, r0: u32, local: vec2<u32>) {
    let thread = local.y * TX + local.x;
    let lane = local.y * 4u;
    let keys = Keys(sortable4(bits.a), sortable4(bits.b), sortable4(bits.c), sortable4(bits.d));
    let r = r0 + local.x * 4u;
    var pending = existing(better16(keys, lane, r), q0 + lane, r);
    loop {
        pending = offer(keys, pending, local);
        workgroupBarrier();
        if (thread == 0u) {
            waiting = atomicLoad(&claimed);
        }
        let entries = workgroupUniformLoad(&waiting);
        if (entries == 0u) {
            break;
        }
        if (thread < 4u * TY) {
            take(thread, min(entries, QUEUE), r0);
        }
        if (thread == 0u) {
            atomicStore(&claimed, 0u);
        }
        workgroupBarrier();
        if (entries <= QUEUE) {
            break;
        }
        pending &= better16(keys, lane, r);
    }
}

// Writes the heaps as lists of `keep` places, the largest pair first and the others in no order.
fn write_heaps(q0: u32, part: u32, thread: u32) {
    for (var i = thread; i < 4u * TY * p.keep; i += TX * TY) {
        let q = q0 + i % (4u * TY);
        if (q < p.q_end) {
            let at = (q * p.parts_total + part) * p.keep + i / (4u * TY);
            let position = heap_positions[i];
            out_keys[at] = select(unsortable(heap_keys[i]), INFINITY, position == NO_POSITION);
            out_positions[at] = position;
        }
    }
}
