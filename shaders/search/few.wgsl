
// ---- search_few: the direct keys of up to four queries with all rows, and the smallest of each workgroup ---------------
// Buffers: rows, queries, row_norms and query_norms (cosine), mask
//   -> out_keys [q, out_stride] bits of f32, least_keys and least_positions [q, workgroups].
// One team of `lanes` threads: TURNS rows at a time, each thread every lanes-th vector of a row, straight into registers.
// One workgroup of 256: its share of the rows, taken from everywhere, so that near rows that lie together come to different
// workgroups: then the k-th of the workgroups' smallest pairs is hardly above the k-th smallest pair of all.
// Barriers: two more than `lanes` has bits for each round, twice as many for metrics of two sums; some at the end.

const THREADS = 256u;

var<workgroup> team_sums: array<vec4<f32>, 256>;
var<workgroup> least: array<vec2<u32>, 256>; // sortable key, position

// The sums of all threads of a team, in each of them. All threads of the workgroup call it together.
fn gather_first(sums: vec4<f32>, thread: u32, lane: u32) -> vec4<f32> {
    team_sums[thread] = sums;
    workgroupBarrier();
    for (var half = p.lanes / 2u; half > 0u; half = half / 2u) {
        if (lane < half) {
            team_sums[thread] = join(team_sums[thread], team_sums[thread + half]);
        }
        workgroupBarrier();
    }
    let all = team_sums[thread - lane];
    workgroupBarrier();
    return all;
}

fn gather_second(sums: vec4<f32>, thread: u32, lane: u32) -> vec4<f32> {
    team_sums[thread] = sums;
    workgroupBarrier();
    for (var half = p.lanes / 2u; half > 0u; half = half / 2u) {
        if (lane < half) {
            team_sums[thread] += team_sums[thread + half];
        }
        workgroupBarrier();
    }
    let all = team_sums[thread - lane];
    workgroupBarrier();
    return all;
}

// The place of the i-th row of a workgroup among all rows: of every NEIGHBOURS x workgroups rows it has NEIGHBOURS.
fn row_of(i: u32, group: u32, groups: u32) -> u32 {
    return (i / p.neighbours * groups + group) * p.neighbours + i % p.neighbours;
}

// Where the vectors of that row begin; of the last row, where there is none.
fn vectors_of(i: u32, group: u32, groups: u32, rows_here: u32) -> u32 {
    return (p.row_begin + min(row_of(i, group, groups), rows_here - 1u)) * p.row_stride;
}

// Where the components of a query begin.
fn component_of(q: u32) -> u32 {
    return min(p.q_begin + q, p.q_end - 1u) * p.query_stride;
}

// Writes the key of query q and the row at a place; gives the smaller of it and the pair so far.
fn put(q: u32, place: u32, key: u32, best: vec2<u32>) -> vec2<u32> {
    let r = p.row_begin + place;
    if (q >= p.q_end || r >= p.row_end) {
        return best;
    }
    let out = (q - p.q_begin) * p.out_stride + place;
    if (!allowed(q, r)) {
        out_keys[out] = MISSING_KEY;
        return best;
    }
    out_keys[out] = key;
    let pair = vec2<u32>(sortable(key), p.position_base + r);
    return select(best, pair, before(pair.x, pair.y, best.x, best.y));
}

@compute @workgroup_size(256)
fn search_few(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let lane = thread % p.lanes;
    let team = thread / p.lanes;
    let teams = THREADS / p.lanes;
    let rows_here = p.row_end - p.row_begin;
    let round = groups.x * p.neighbours;
    let share = (rows_here + round - 1u) / round * p.neighbours;
    var best = vec2<u32>(0xffffffffu, NO_POSITION);
    for (var begin = 0u; begin < share; begin += teams * TURNS) {
        // Four sums: of four rows with one query, or of one row with four queries.
        var a = vec4<f32>(0.0);
        var b = vec4<f32>(0.0);
        var c = vec4<f32>(0.0);
        var d = vec4<f32>(0.0);
        var a2 = vec4<f32>(0.0);
        var b2 = vec4<f32>(0.0);
        var c2 = vec4<f32>(0.0);
        var d2 = vec4<f32>(0.0);
        let at = vec4<u32>(
            vectors_of(begin + team, group.x, groups.x, rows_here),
            vectors_of(begin + teams + team, group.x, groups.x, rows_here),
            vectors_of(begin + 2u * teams + team, group.x, groups.x, rows_here),
            vectors_of(begin + 3u * teams + team, group.x, groups.x, rows_here),
        );
        for (var j = lane; j < p.row_stride; j += p.lanes) {
            let unit_a = rows[at.x + j];
            var unit_b = unit_a;
            var unit_c = unit_a;
            var unit_d = unit_a;
            if (QUERIES == 1u) {
                unit_b = rows[at.y + j];
                unit_c = rows[at.z + j];
                unit_d = rows[at.w + j];
            }
            for (var n = 0u; n < quads(); n++) {
                let component = j * quads() + n;
                if (component < p.query_stride) {
                    let query_a = queries[component_of(0u) + component];
                    var query_b = query_a;
                    var query_c = query_a;
                    var query_d = query_a;
                    if (QUERIES == 4u) {
                        query_b = queries[component_of(1u) + component];
                        query_c = queries[component_of(2u) + component];
                        query_d = queries[component_of(3u) + component];
                    }
                    let row_a = quad(unit_a, n);
                    var row_b = row_a;
                    var row_c = row_a;
                    var row_d = row_a;
                    if (QUERIES == 1u) {
                        row_b = quad(unit_b, n);
                        row_c = quad(unit_c, n);
                        row_d = quad(unit_d, n);
                    }
                    a = add_first(a, query_a, row_a);
                    b = add_first(b, query_b, row_b);
                    c = add_first(c, query_c, row_c);
                    d = add_first(d, query_d, row_d);
                    if (two_sums()) {
                        a2 = add_second(a2, query_a, row_a);
                        b2 = add_second(b2, query_b, row_b);
                        c2 = add_second(c2, query_c, row_c);
                        d2 = add_second(d2, query_d, row_d);
                    }
                }
            }
        }
        let ones = vec4<f32>(across_first(a).x, across_first(b).x, across_first(c).x, across_first(d).x);
        let firsts = gather_first(ones, thread, lane);
        var seconds = vec4<f32>(0.0);
        if (two_sums()) {
            let twos = vec4<f32>(across_second(a2).x, across_second(b2).x, across_second(c2).x, across_second(d2).x);
            seconds = gather_second(twos, thread, lane);
        }
        if (lane < 4u) {
            let turn = select(0u, lane, QUERIES == 1u);
            let q = p.q_begin + lane - turn;
            let place = row_of(begin + turn * teams + team, group.x, groups.x);
            var row_norm = 0.0;
            var query_norm = 0.0;
            if (METRIC == COSINE) {
                row_norm = row_norms[min(p.row_begin + place, p.row_end - 1u)];
                query_norm = query_norms[min(q, p.q_end - 1u)];
            }
            let keys = keys_of(vec4<f32>(firsts[lane]), vec4<f32>(seconds[lane]), query_norm, vec4<f32>(row_norm));
            best = put(q, place, keys.x, best);
        }
    }
    least[thread] = best;
    workgroupBarrier();
    for (var half = THREADS / 2u; half >= p.lanes; half = half / 2u) {
        if (thread < half) {
            least[thread] = smaller(least[thread], least[thread + half]);
        }
        workgroupBarrier();
    }
    if (thread < QUERIES && p.q_begin + thread < p.q_end) {
        var pair = least[thread];
        if (QUERIES == 1u) {
            pair = smaller(smaller(pair, least[1]), smaller(least[2], least[3]));
        }
        let to = thread * groups.x + group.x;
        least_keys[to] = select(unsortable(pair.x), MISSING_KEY, pair.y == NO_POSITION);
        least_positions[to] = pair.y;
    }
}

fn smaller(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    return select(a, b, before(b.x, b.y, a.x, a.y));
}
