
// ---- search_few: the direct keys of up to four queries with all rows, and the smallest of each workgroup ---------------
// Buffers: rows, queries, row_norms and query_norms (cosine), mask
//   -> out_keys [q, out_stride] bits of f32, least_keys and least_positions [q, workgroups].
// One team of `lanes` threads: TURNS rows at a time, each thread every lanes-th vector of a row, straight into registers.
// One workgroup of 256: its share of the rows, taken from everywhere, so that near rows that lie together come to different
// workgroups: then the k-th of the workgroups' smallest pairs is hardly above the k-th smallest pair of all.
// Barriers: as many as `lanes` has bits and two, for each row (of four queries) or four rows (of one); some at the end.

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

fn norms_of_queries() -> vec4<f32> {
    let q = min(vec4<u32>(p.q_begin) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(p.q_end - 1u));
    return vec4<f32>(query_norms[q.x], query_norms[q.y], query_norms[q.z], query_norms[q.w]);
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
        // Of one query TURNS rows, or of QUERIES queries TURNS rows, one after another.
        var first: array<vec4<f32>, 8>;
        var second: array<vec4<f32>, 8>;
        var at: array<u32, 4>;
        for (var i = 0u; i < TURNS; i++) {
            let place = row_of(begin + i * teams + team, group.x, groups.x);
            at[i] = (p.row_begin + min(place, rows_here - 1u)) * p.row_stride;
        }
        for (var i = 0u; i < TURNS * QUERIES; i++) {
            first[i] = vec4<f32>(0.0);
            second[i] = vec4<f32>(0.0);
        }
        for (var j = lane; j < p.row_stride; j += p.lanes) {
            var units: array<vec4<u32>, 4>;
            for (var i = 0u; i < TURNS; i++) {
                units[i] = rows[at[i] + j];
            }
            for (var n = 0u; n < quads(); n++) {
                let component = j * quads() + n;
                if (component < p.query_stride) {
                    for (var i = 0u; i < TURNS; i++) {
                        let row = quad(units[i], n);
                        for (var q = 0u; q < QUERIES; q++) {
                            let query = queries[min(p.q_begin + q, p.q_end - 1u) * p.query_stride + component];
                            first[i * QUERIES + q] = add_first(first[i * QUERIES + q], query, row);
                            if (two_sums()) {
                                second[i * QUERIES + q] = add_second(second[i * QUERIES + q], query, row);
                            }
                        }
                    }
                }
            }
        }
        if (QUERIES == 1u) {
            let one = vec4<f32>(across_first(first[0]).x, across_first(first[1]).x, across_first(first[2]).x, across_first(first[3]).x);
            let sums = gather_first(one, thread, lane);
            var others = vec4<f32>(0.0);
            if (two_sums()) {
                let two = vec4<f32>(
                    across_second(second[0]).x,
                    across_second(second[1]).x,
                    across_second(second[2]).x,
                    across_second(second[3]).x,
                );
                others = gather_second(two, thread, lane);
            }
            if (lane < 4u) {
                let place = row_of(begin + lane * teams + team, group.x, groups.x);
                var row_norm = 0.0;
                var query_norm = 0.0;
                if (METRIC == COSINE) {
                    row_norm = row_norms[min(p.row_begin + place, p.row_end - 1u)];
                    query_norm = query_norms[p.q_begin];
                }
                let keys = keys_of(vec4<f32>(sums[lane]), vec4<f32>(others[lane]), query_norm, vec4<f32>(row_norm));
                best = put(p.q_begin, place, keys.x, best);
            }
        } else {
            for (var i = 0u; i < TURNS; i++) {
                let one = vec4<f32>(
                    across_first(first[i * QUERIES]).x,
                    across_first(first[i * QUERIES + 1u]).x,
                    across_first(first[i * QUERIES + 2u]).x,
                    across_first(first[i * QUERIES + 3u]).x,
                );
                let sums = gather_first(one, thread, lane);
                var others = vec4<f32>(0.0);
                if (two_sums()) {
                    let two = vec4<f32>(
                        across_second(second[i * QUERIES]).x,
                        across_second(second[i * QUERIES + 1u]).x,
                        across_second(second[i * QUERIES + 2u]).x,
                        across_second(second[i * QUERIES + 3u]).x,
                    );
                    others = gather_second(two, thread, lane);
                }
                if (lane < 4u) {
                    let place = row_of(begin + i * teams + team, group.x, groups.x);
                    var row_norm = 0.0;
                    var norms = vec4<f32>(0.0);
                    if (METRIC == COSINE) {
                        row_norm = row_norms[min(p.row_begin + place, p.row_end - 1u)];
                        norms = norms_of_queries();
                    }
                    let keys = keys_of(vec4<f32>(sums[lane]), vec4<f32>(others[lane]), row_norm, vec4<f32>(norms[lane]));
                    best = put(p.q_begin + lane, place, keys.x, best);
                }
            }
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
