
// ---- select_k: the k smallest by (key, position) of each part of each segment ----------------------------------------
// Buffers: keys [segments, in_stride] bits of f32, positions alike -> out_keys, out_positions [segments, parts, k];
// limits [segments], where they are wanted: the limit of the selection, and the number of places that a list has filled.
// One thread: every 256th key. One workgroup: one part of a segment at a time.
// Radix selection (Alabi et al. 2012): digit by digit, eight bits at a time, a histogram of those keys that share the
// digits found so far tells the next digit of the k-th; four digits of the key, then of the position among keys that
// are still equal. It ends when the digit's keys are all wanted. Then everything up to the k-th is written.
// Barriers: four for each digit, three per part and two per list, all in uniform control flow.

const THREADS = 256u;
// Of `lists`: segments are lists; segments are full, and their limits are wanted.
const LISTS = 1u;

var<workgroup> counts: array<u32, 256>;
var<workgroup> groups_of_16: array<u32, 16>;
var<workgroup> chosen: vec4<u32>; // digit, how many come before it, how many have it
var<workgroup> available: u32;

struct Element {
    key: u32, // sortable
    position: u32,
    exists: bool,
}

fn element(at: u32, i: u32) -> Element {
    let bits = keys[at];
    var position = p.position_base + i;
    if (p.has_positions != 0u) {
        position = positions[at];
    }
    let missing = position == NO_POSITION || (p.nan_is_missing != 0u && bits == MISSING_KEY);
    return Element(sortable(bits), position, !missing);
}

// From the histogram: all counted keys in `available`, and in `chosen` the digit of the wanted-th.
fn choose(wanted: u32, thread: u32) {
    let count = atomicLoad(&histogram[thread]);
    counts[thread] = count;
    workgroupBarrier();
    if (thread < 16u) {
        var sum = 0u;
        for (var i = 0u; i < 16u; i++) {
            sum += counts[thread * 16u + i];
        }
        groups_of_16[thread] = sum;
    }
    workgroupBarrier();
    var lower = 0u;
    for (var i = 0u; i < thread / 16u; i++) {
        lower += groups_of_16[i];
    }
    for (var i = thread & 0xf0u; i < thread; i++) {
        lower += counts[i];
    }
    if (lower < wanted && wanted <= lower + count) {
        chosen = vec4<u32>(thread, lower, count, 0u);
    }
    if (thread == THREADS - 1u) {
        available = lower + count;
    }
}

// The largest (key, position) that is wanted of `width` elements from `at` on.
fn limit(at: u32, first: u32, width: u32, thread: u32) -> vec2<u32> {
    var wanted = min(p.k, width);
    var found = vec2<u32>(0u); // the digits found, of key and position
    var known = vec2<u32>(0u); // the bits they fill
    for (var digit = 0u; digit < 8u; digit++) {
        let shift = 24u - 8u * (digit & 3u);
        atomicStore(&histogram[thread], 0u);
        workgroupBarrier();
        for (var start = 0u; start < width; start += THREADS) {
            let i = start + thread;
            var e = Element(0u, 0u, false);
            if (i < width) {
                e = element(at + i, first + i);
            }
            let alike = (e.key & known.x) == found.x && (e.position & known.y) == found.y;
            tally((select(e.position, e.key, digit < 4u) >> shift) & 255u, e.exists && alike);
        }
        workgroupBarrier();
        choose(wanted, thread);
        if (workgroupUniformLoad(&available) <= wanted) {
            // Fewer than k, or the keys that share all digits so far are just as many as wanted.
            break;
        }
        let choice = workgroupUniformLoad(&chosen);
        wanted -= choice.y;
        if (digit < 4u) {
            found.x |= choice.x << shift;
            known.x |= 255u << shift;
        } else {
            found.y |= choice.x << shift;
            known.y |= 255u << shift;
        }
        if (choice.z == wanted) {
            break;
        }
    }
    return found | ~known;
}

// The number of keys of a part: where segments are lists, as many as were put into them.
fn filled(segment: u32, first: u32, thread: u32) -> u32 {
    let width = min(p.part_width, p.width - first);
    if (p.lists != LISTS) {
        return width;
    }
    if (thread == 0u) {
        available = atomicLoad(&limits[segment].count);
    }
    return min(width, workgroupUniformLoad(&available) & ~OVERFLOWED);
}

// Begins a list anew with the selection, and notes its limit. A list that had no room for all it was offered lets
// nothing more in, and says so to the end.
fn limit_list(segment: u32, most: vec2<u32>, thread: u32) {
    if (thread == 0u) {
        let count = select(0u, atomicLoad(&limits[segment].count), p.lists == LISTS);
        let selected = min(atomicLoad(&claimed), p.k);
        if (count > p.width) {
            limits[segment].key = 0u;
            limits[segment].position = 0u;
            atomicStore(&limits[segment].count, selected | OVERFLOWED);
        } else {
            limits[segment].key = most.x;
            limits[segment].position = most.y;
            atomicStore(&limits[segment].count, selected);
        }
    }
    workgroupBarrier();
}

// Writes the keys that are not above the limit, and fills the rest of the part's places.
fn write(at: u32, first: u32, width: u32, limit: vec2<u32>, to: u32, thread: u32) {
    if (thread == 0u) {
        atomicStore(&claimed, 0u);
    }
    workgroupBarrier();
    for (var start = 0u; start < width; start += THREADS) {
        let i = start + thread;
        var e = Element(0u, 0u, false);
        if (i < width) {
            e = element(at + i, first + i);
        }
        let wanted = e.exists && !before(limit.x, limit.y, e.key, e.position);
        let place = claim(u32(wanted));
        if (wanted && place < p.k) {
            out_keys[to + place] = keys[at + i];
            out_positions[to + place] = e.position;
        }
    }
    workgroupBarrier();
    for (var place = atomicLoad(&claimed) + thread; place < p.k; place += THREADS) {
        out_keys[to + place] = INFINITY;
        out_positions[to + place] = NO_POSITION;
    }
    workgroupBarrier();
}

@compute @workgroup_size(256)
fn select_k(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    for (var segment = group.y; segment < p.segments; segment += groups.y) {
        for (var part = group.x; part < p.parts; part += groups.x) {
            let first = part * p.part_width;
            let width = filled(segment, first, thread);
            let at = segment * p.in_stride + first;
            let most = limit(at, first, width, thread);
            write(at, first, width, most, segment * p.out_stride + part * p.k, thread);
            if (p.lists != 0u) {
                limit_list(segment, most, thread);
            }
        }
    }
}
