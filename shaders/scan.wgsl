
// ---- scan: the smallest keys of parts of lists for up to four queries each -------------------------------------------
// Buffers: words (rows in blocks of 16: code, the row's terms, position), mask, queries (terms, then the weights of the
// form), work (items), limits (complements of the largest keys that are wanted)
//   -> out_keys, out_positions: `places` from where the item says, in no order.
// One thread: two rows of an item with all of its queries, so that neighbours read neighbouring words, a word is unpacked
// once, and each part of a query serves two rows. One workgroup: one item at a time, at most SCAN_ROWS rows of a list
// with QUERIES queries or fewer.
// Barriers: about ten per item, and four for each round of the selection, which most items do not need once the limits of
// their queries have come down. Bytes and operations: src/kernels/scan.rs.
// Each form has a file in shaders/scan/ with `keys_of_item`, and the entry point.

const THREADS = 256u;
const BLOCK = 16u;
const BINS = 256u;
const NO_KEY = 0xffffffffu; // of a row that may not be returned

// [query of the item, row of the item], in an order that integers have. Tables lie there before.
var<workgroup> keys: array<u32, 4u * SCAN_ROWS>;
// A histogram for each query, its sums over sixteen bins, and the range still to be searched: values `low .. high`, `fewer`
// lie below them. Values are keys, or rows when the keys are all `tied`.
var<workgroup> bins: array<atomic<u32>, 4u * BINS>;
var<workgroup> sixteens: array<u32, 64>;
var<workgroup> low: array<u32, 4>;
var<workgroup> high: array<u32, 4>;
var<workgroup> fewer: array<u32, 4>;
var<workgroup> tied: array<u32, 4>; // NO_KEY: keys are not tied
var<workgroup> undecided: array<u32, 4>;
var<workgroup> counted: array<atomic<u32>, 4>;
var<workgroup> least: array<atomic<u32>, 4>;
var<workgroup> most: array<atomic<u32>, 4>;
var<workgroup> open: atomic<u32>;
var<workgroup> open_now: u32;

// Rows of a list, and the queries that want them.
struct Item {
    slot: u32, // of its first row in the bound words
    first: u32, // the same in all lists
    rows: u32,
    queries: vec4<u32>,
    offsets: vec4<f32>,
    places: vec4<u32>, // where its results go
    wanted: vec4<u32>, // 0: the query only fills up the four
}

fn item_at(i: u32) -> Item {
    let at = i * (1u + QUERIES);
    let head = work[at];
    let a = work[at + 1u];
    if (QUERIES == 1u) {
        let offsets = vec4<f32>(bitcast<f32>(a.y));
        return Item(head.x, head.y, head.z, a.xxxx, offsets, a.zzzz, vec4<u32>(a.w, 0u, 0u, 0u));
    }
    let b = work[at + 2u];
    let c = work[at + 3u];
    let d = work[at + 4u];
    let offsets = bitcast<vec4<f32>>(vec4<u32>(a.y, b.y, c.y, d.y));
    let queries = vec4<u32>(a.x, b.x, c.x, d.x);
    let places = vec4<u32>(a.z, b.z, c.z, d.z);
    return Item(head.x, head.y, head.z, queries, offsets, places, vec4<u32>(a.w, b.w, c.w, d.w));
}

// Where the words of a row begin; they lie BLOCK apart.
fn row_at(slot: u32) -> u32 {
    return slot / BLOCK * p.row_words * BLOCK + slot % BLOCK;
}

fn word(row: u32, w: u32) -> u32 {
    return words[row + w * BLOCK];
}

// The first four words of the item's queries, as columns.
fn terms_of(item: Item) -> mat4x4<f32> {
    let at = item.queries * p.query_stride;
    return transpose(mat4x4<f32>(
        bitcast<vec4<f32>>(queries[at.x]),
        bitcast<vec4<f32>>(queries[at.y]),
        bitcast<vec4<f32>>(queries[at.z]),
        bitcast<vec4<f32>>(queries[at.w]),
    ));
}

// `kernels::lists::estimate`, as bits: from the sums of a row with four queries, their scales and shifts.
fn estimates(item: Item, row: u32, sums: vec4<f32>, scales: vec4<f32>, shifts: vec4<f32>) -> vec4<u32> {
    var add = 0.0;
    var scale = 1.0;
    if (p.add_at != 0u) {
        add = bitcast<f32>(word(row, p.add_at));
    }
    if (p.scale_at != 0u) {
        scale = bitcast<f32>(word(row, p.scale_at));
    }
    return bitcast<vec4<u32>>(item.offsets + add + scale * (scales * sums + shifts));
}

fn allowed(query: u32, position: u32) -> bool {
    return ((mask[query * p.mask_stride + (position >> 5u)] >> (position & 31u)) & 1u) != 0u;
}

fn put1(query: u32, lane: u32, r: u32, bits: u32, position: u32) {
    var key = min(sortable(bits), NO_KEY - 1u);
    if (p.has_mask != 0u) {
        key = select(NO_KEY, key, allowed(query, position));
    }
    keys[lane * SCAN_ROWS + r] = key;
}

// Notes the keys of row r of the item, which lies at `row`.
fn put(item: Item, r: u32, row: u32, bits: vec4<u32>) {
    var position = 0u;
    if (p.has_mask != 0u) {
        position = word(row, p.row_words - 1u);
    }
    put1(item.queries.x, 0u, r, bits.x, position);
    if (QUERIES != 1u) {
        put1(item.queries.y, 1u, r, bits.y, position);
        put1(item.queries.z, 2u, r, bits.z, position);
        put1(item.queries.w, 3u, r, bits.w, position);
    }
}

// Bits that a bin's number leaves out.
fn shift_of(team: u32) -> u32 {
    return max(32u - countLeadingZeros(high[team] - low[team]), 8u) - 8u;
}

// Counts the values between low and high. All threads of the workgroup call it together (three barriers).
fn tally(rows: u32, team: u32, member: u32, thread: u32) {
    for (var i = thread; i < 4u * BINS; i += THREADS) {
        atomicStore(&bins[i], 0u);
    }
    workgroupBarrier();
    if (undecided[team] != 0u) {
        let shift = shift_of(team);
        for (var i = member; i < rows; i += THREADS / QUERIES) {
            let key = keys[team * SCAN_ROWS + i];
            let value = select(i, key, tied[team] == NO_KEY);
            let alike = tied[team] == NO_KEY || key == tied[team];
            if (alike && value >= low[team] && value <= high[team]) {
                atomicAdd(&bins[team * BINS + ((value - low[team]) >> shift)], 1u);
            }
        }
    }
    workgroupBarrier();
    if (thread < 64u) {
        var sum = 0u;
        for (var i = 0u; i < 16u; i++) {
            sum += atomicLoad(&bins[thread * 16u + i]);
        }
        sixteens[thread] = sum;
    }
    workgroupBarrier();
}

// Finds the bin of the keep-th value: it is the cut if there is room for all of it, else there is another round for it.
fn choose(item: Item, team: u32) {
    let shift = shift_of(team);
    var sum = fewer[team];
    var sixteen = team * 16u;
    while (sixteen < team * 16u + 15u && sum + sixteens[sixteen] < p.keep) {
        sum += sixteens[sixteen];
        sixteen++;
    }
    var bin = sixteen * 16u;
    while (bin < sixteen * 16u + 15u && sum + atomicLoad(&bins[bin]) < p.keep) {
        sum += atomicLoad(&bins[bin]);
        bin++;
    }
    let begin = (bin - team * BINS) << shift;
    let end = min(high[team] - low[team], begin + ((1u << shift) - 1u));
    let first = low[team] + begin;
    let last = low[team] + end;
    if (sum + atomicLoad(&bins[bin]) <= p.places) {
        high[team] = last;
        undecided[team] = 0u;
        atomicSub(&open, 1u);
        // Of this query there are `keep` rows up to here.
        atomicMax(&limits[item.queries[team]], ~select(tied[team], last, tied[team] == NO_KEY));
        return;
    }
    fewer[team] = sum;
    if (shift == 0u && tied[team] == NO_KEY) {
        tied[team] = first;
        low[team] = 0u;
        high[team] = item.rows - 1u;
    } else {
        low[team] = first;
        high[team] = last;
    }
}

// Finds the limit up to which keys of the item are written: `high` and `tied`. All threads of the workgroup call it
// together.
fn cut(item: Item, team: u32, member: u32, thread: u32) {
    if (member == 0u) {
        high[team] = min(NO_KEY - 1u, ~atomicLoad(&limits[item.queries[team]]));
        tied[team] = NO_KEY;
        undecided[team] = 0u;
        fewer[team] = 0u;
        atomicStore(&counted[team], 0u);
        atomicStore(&least[team], NO_KEY);
        atomicStore(&most[team], 0u);
    }
    if (thread == 0u) {
        atomicStore(&open, 0u);
    }
    workgroupBarrier();
    var count = 0u;
    var smallest = NO_KEY;
    var largest = 0u;
    for (var i = member; i < item.rows; i += THREADS / QUERIES) {
        let key = keys[team * SCAN_ROWS + i];
        if (key <= high[team]) {
            count++;
            smallest = min(smallest, key);
            largest = max(largest, key);
        }
    }
    if (count != 0u) {
        atomicAdd(&counted[team], count);
        atomicMin(&least[team], smallest);
        atomicMax(&most[team], largest);
    }
    workgroupBarrier();
    if (member == 0u && item.wanted[team] != 0u && atomicLoad(&counted[team]) > p.places) {
        low[team] = atomicLoad(&least[team]);
        high[team] = atomicLoad(&most[team]);
        undecided[team] = 1u;
        atomicAdd(&open, 1u);
    }
    loop {
        workgroupBarrier();
        if (thread == 0u) {
            open_now = atomicLoad(&open);
        }
        if (workgroupUniformLoad(&open_now) == 0u) {
            break;
        }
        tally(item.rows, team, member, thread);
        if (member == 0u && undecided[team] != 0u) {
            choose(item, team);
        }
    }
}

fn is_kept(team: u32, i: u32) -> bool {
    let key = keys[team * SCAN_ROWS + i];
    if (tied[team] == NO_KEY) {
        return key <= high[team];
    }
    return key < tied[team] || (key == tied[team] && i <= high[team]);
}

// Writes the smallest keys of the item with their slots, and fills up its places. All threads of the workgroup call it
// together when its keys are there; another item may follow at once.
fn select_item(item: Item, thread: u32) {
    let team = thread / (THREADS / QUERIES);
    let member = thread % (THREADS / QUERIES);
    let to = item.places[team];
    cut(item, team, member, thread);
    if (member == 0u) {
        atomicStore(&counted[team], 0u);
    }
    workgroupBarrier();
    if (item.wanted[team] != 0u) {
        var count = 0u;
        for (var i = member; i < item.rows; i += THREADS / QUERIES) {
            count += u32(is_kept(team, i));
        }
        if (count != 0u) {
            var place = atomicAdd(&counted[team], count);
            for (var i = member; i < item.rows; i += THREADS / QUERIES) {
                if (is_kept(team, i) && place < p.places) {
                    out_keys[to + place] = unsortable(keys[team * SCAN_ROWS + i]);
                    out_positions[to + place] = item.first + i;
                    place++;
                }
            }
        }
    }
    workgroupBarrier();
    if (item.wanted[team] != 0u) {
        for (var place = atomicLoad(&counted[team]) + member; place < p.places; place += THREADS / QUERIES) {
            out_keys[to + place] = INFINITY;
            out_positions[to + place] = NO_POSITION;
        }
    }
    workgroupBarrier();
}
