// ---- segment_sum: sums of rows that lie scattered ---------------------------------------------------------------------
// Buffers: rows, order (row numbers, segment by segment), pieces (first and last place in order) -> out [pieces, row_stride].
// One workgroup: one piece at a time, at most 256 rows of one segment. One thread: every ACROSSth group of four components
// of every TEAMSth row. Barriers: two for each 64 groups of components of a piece.
// Reading the rows is all there is: each is read once, in whole groups side by side, and a piece's sum is 1/256 of that.

var<workgroup> sums: array<vec4<f32>, 64>;

@compute @workgroup_size(64)
fn segment_sum(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    // As many threads side by side as a row has groups, a power of two of them; the rest takes other rows.
    var across = 64u;
    while (across > p.row_stride && across > 1u) {
        across /= 2u;
    }
    // A row of 33 groups takes two turns of 32 threads.
    let teams = 64u / across;
    let lane = thread % across;
    let team = thread / across;
    for (var piece = p.piece_begin + group.x; piece < p.piece_end; piece += groups.x) {
        let span = pieces[piece];
        for (var unit = 0u; unit < p.row_stride; unit += across) {
            let at = unit + lane;
            var sum = vec4<f32>(0.0);
            if (at < p.row_stride) {
                for (var i = span.x + team; i < span.y; i += teams) {
                    sum += bitcast<vec4<f32>>(rows[order[i] * p.row_stride + at]);
                }
            }
            sums[thread] = sum;
            workgroupBarrier();
            if (team == 0u && at < p.row_stride) {
                for (var other = 1u; other < teams; other++) {
                    sum += sums[other * across + lane];
                }
                out[piece * p.row_stride + at] = sum;
            }
            workgroupBarrier();
        }
    }
}
