
// ---- normalize: rows divided by their norm --------------------------------------------------------------------------
// Buffers: rows -> out [rows, dim] f32, norms [rows].
// One thread: every 16th group of four components of one row. One workgroup: 4 rows at a time.
// Barriers: five for each of two reductions, so ten for each 4 rows.
// Components are first multiplied by a power of two that brings the largest near 1. That is done on exponents as
// integers, so nothing overflows, and denormal components count as what they are.

const TEAM = 16u; // threads of a row
const ROWS_AT_ONCE = 4u;

var<workgroup> largest: array<u32, 64>;
var<workgroup> sums: array<f32, 64>;

// x times 2^shift, x given as bits; 0 where the result would be denormal.
fn scaled(bits: u32, shift: i32) -> f32 {
    var magnitude = bits & 0x7fffffffu;
    var exponent = shift;
    if (magnitude < 0x00800000u) {
        magnitude = bitcast<u32>(f32(magnitude));
        exponent -= 149;
    }
    exponent += i32(magnitude >> 23u);
    if (exponent <= 0 || magnitude == 0u) {
        return 0.0;
    }
    return bitcast<f32>((bits & 0x80000000u) | (u32(min(exponent, 254)) << 23u) | (magnitude & 0x007fffffu));
}

fn scaled4(bits: vec4<u32>, shift: i32) -> vec4<f32> {
    return vec4<f32>(scaled(bits.x, shift), scaled(bits.y, shift), scaled(bits.z, shift), scaled(bits.w, shift));
}

// The largest of each team's numbers, in all its threads.
fn reduce_max(value: u32, thread: u32) -> u32 {
    largest[thread] = value;
    workgroupBarrier();
    for (var reach = TEAM / 2u; reach > 0u; reach /= 2u) {
        if (thread % TEAM < reach) {
            largest[thread] = max(largest[thread], largest[thread + reach]);
        }
        workgroupBarrier();
    }
    return largest[thread - thread % TEAM];
}

// The sum of each team's numbers, in all its threads.
fn reduce_sum(value: f32, thread: u32) -> f32 {
    sums[thread] = value;
    workgroupBarrier();
    for (var reach = TEAM / 2u; reach > 0u; reach /= 2u) {
        if (thread % TEAM < reach) {
            sums[thread] += sums[thread + reach];
        }
        workgroupBarrier();
    }
    return sums[thread - thread % TEAM];
}

@compute @workgroup_size(64)
fn normalize(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) thread: u32,
) {
    let member = thread % TEAM;
    let fours = (p.dim + 3u) / 4u;
    for (var r0 = p.row_begin + group.x * ROWS_AT_ONCE; r0 < p.row_end; r0 += groups.x * ROWS_AT_ONCE) {
        let wanted = r0 + thread / TEAM;
        let row = min(wanted, p.row_end - 1u);
        var top4 = vec4<u32>(0u);
        for (var j = member; j < fours; j += TEAM) {
            top4 = max(top4, row4(row, j) & vec4<u32>(0x7fffffffu));
        }
        let top = reduce_max(max(max(top4.x, top4.y), max(top4.z, top4.w)), thread);
        // The exponent that brings the largest component to between 1/2 and 1.
        var shift = 126 - i32(top >> 23u);
        if (top < 0x00800000u) {
            shift = 126 + 149 - i32(bitcast<u32>(f32(top)) >> 23u);
        }
        var sum4 = vec4<f32>(0.0);
        for (var j = member; j < fours; j += TEAM) {
            let v = scaled4(row4(row, j), shift);
            if (NORM == NORM_L2) {
                sum4 += v * v;
            } else {
                sum4 += abs(v);
            }
        }
        let sum = reduce_sum((sum4.x + sum4.y) + (sum4.z + sum4.w), thread);
        var length = sum;
        if (NORM == NORM_L2) {
            length = sqrt(sum);
        } else if (NORM == NORM_MAX) {
            length = scaled(top, shift);
        }
        if (wanted < p.row_end) {
            put(row, member, fours, shift, length, top == 0u);
        }
    }
}

fn put(row: u32, member: u32, fours: u32, shift: i32, length: f32, zero: bool) {
    let at = (row - p.row_begin) * p.dim;
    for (var j = member; j < fours; j += TEAM) {
        let v = select(scaled4(row4(row, j), shift) / length, vec4<f32>(0.0), zero);
        put1(at, j * 4u, v.x);
        put1(at, j * 4u + 1u, v.y);
        put1(at, j * 4u + 2u, v.z);
        put1(at, j * 4u + 3u, v.w);
    }
    if (member == 0u) {
        norms[row - p.row_begin] = select(unscaled(length, -shift), 0.0, zero);
    }
}

fn put1(at: u32, i: u32, value: f32) {
    if (i < p.dim) {
        out[at + i] = value;
    }
}

// A normal x times 2^shift; +inf or a denormal where it must be.
fn unscaled(x: f32, shift: i32) -> f32 {
    let exponent = i32(bitcast<u32>(x) >> 23u) + shift;
    let mantissa = (bitcast<u32>(x) & 0x007fffffu) | 0x00800000u;
    if (exponent >= 255) {
        return bitcast<f32>(INFINITY | (bitcast<u32>(x) & 0x80000000u));
    }
    if (exponent <= 0) {
        let lost = u32(clamp(1 - exponent, 0, 31));
        return bitcast<f32>((mantissa + ((1u << lost) >> 1u)) >> lost);
    }
    return bitcast<f32>((u32(exponent) << 23u) | (mantissa & 0x007fffffu));
}
