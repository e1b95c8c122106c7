
// ---- refine: direct keys of given candidates ------------------------------------------------------------------------
// Buffers: rows, queries, row_norms and query_norms (cosine), positions [q, width] -> out_keys [q, width].
// One thread: every eighth group of four components of one candidate. One workgroup: 8 candidates of one query at a time.
// Barriers: two for each 8 candidates.

var<workgroup> firsts: array<vec4<f32>, 64>;
var<workgroup> seconds: array<vec4<f32>, 64>;

const TEAM = 8u; // threads of a candidate
const CANDIDATES = 8u; // of a workgroup

@compute @workgroup_size(64)
fn refine(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let member = thread % TEAM;
    for (var q = p.q_begin + group.y; q < p.q_end; q += groups.y) {
        for (var c0 = group.x * CANDIDATES; c0 < p.width; c0 += groups.x * CANDIDATES) {
            let candidate = c0 + thread / TEAM;
            let exists = candidate < p.width;
            let at = q * p.width + min(candidate, p.width - 1u);
            let position = positions[at];
            let row = position - p.position_base;
            // A position below the base wraps to a large row.
            let here = exists && position != NO_POSITION && row < p.row_count;
            var first = vec4<f32>(0.0);
            var second = vec4<f32>(0.0);
            if (here) {
                for (var j = member; j < p.query_stride; j += TEAM) {
                    let a = queries[q * p.query_stride + j];
                    let b = row4(row, j);
                    first = add_first(first, a, b);
                    if (two_sums()) {
                        second = add_second(second, a, b);
                    }
                }
            }
            firsts[thread] = first;
            seconds[thread] = second;
            workgroupBarrier();
            if (member == 0u && exists) {
                if (here) {
                    out_keys[at] = key_of_team(thread, q, row);
                } else if (p.first != 0u) {
                    out_keys[at] = INFINITY;
                }
            }
            workgroupBarrier();
        }
    }
}

// The key from the sums of a candidate's threads, the first of which is `thread`.
fn key_of_team(thread: u32, q: u32, row: u32) -> u32 {
    var first = firsts[thread];
    var second = seconds[thread];
    for (var i = 1u; i < TEAM; i++) {
        first = join(first, firsts[thread + i]);
        second += seconds[thread + i];
    }
    var query_norm = 0.0;
    var row_norm = 0.0;
    if (METRIC == COSINE) {
        query_norm = query_norms[q];
        row_norm = row_norms[row];
    }
    return keys_of(across_first(first), across_second(second), query_norm, vec4<f32>(row_norm)).x;
}
