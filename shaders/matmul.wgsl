// Products of a tile of rows of `a` and a tile of columns of `b`: 64 x 64 numbers of the result per workgroup, 4 x 4 per
// thread. Components go by in tiles of TD, so every loaded number is used 64 times.

const TILE = 64u;
const TD = 16u;

// Components first, so that the four numbers that a thread needs lie side by side.
var<workgroup> of_a: array<array<vec4<f32>, 16>, TD>;
var<workgroup> of_b: array<array<vec4<f32>, 16>, TD>;

fn load_a(row: u32, d: u32) -> f32 {
    if row >= p.row_end || d >= p.inner {
        return 0.0;
    }
    return a[row * p.inner + d];
}

fn load_b(column: u32, d: u32) -> f32 {
    if column >= p.columns || d >= p.inner {
        return 0.0;
    }
    if TRANSPOSED == 1u {
        return b[column * p.inner + d];
    }
    return b[d * p.columns + column];
}

@compute @workgroup_size(16, 16)
fn matmul(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let first_row = p.row_begin + group.y * TILE;
    let first_column = group.x * TILE;
    let thread = local.y * 16u + local.x;
    var sums = array<vec4<f32>, 4>();
    for (var begin = 0u; begin < p.inner; begin += TD) {
        // A thread loads four numbers of each side.
        let d = thread % TD;
        let four = thread / TD;
        for (var i = 0u; i < 4u; i++) {
            of_a[d][four][i] = load_a(first_row + four * 4u + i, begin + d);
            of_b[d][four][i] = load_b(first_column + four * 4u + i, begin + d);
        }
        workgroupBarrier();
        for (var k = 0u; k < TD; k++) {
            let x = of_a[k][local.y];
            let y = of_b[k][local.x];
            sums[0] = fma(vec4(x[0]), y, sums[0]);
            sums[1] = fma(vec4(x[1]), y, sums[1]);
            sums[2] = fma(vec4(x[2]), y, sums[2]);
            sums[3] = fma(vec4(x[3]), y, sums[3]);
        }
        workgroupBarrier();
    }
    for (var i = 0u; i < 4u; i++) {
        let row = first_row + local.y * 4u + i;
        for (var j = 0u; j < 4u; j++) {
            let column = first_column + local.x * 4u + j;
            if row < p.row_end && column < p.columns {
                out[row * p.columns + column] = sums[i][j];
            }
        }
    }
}
