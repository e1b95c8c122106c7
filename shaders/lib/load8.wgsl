
// ---- lib/load8: the queries and rows of a tile of 8 x 8 pairs per thread into workgroup memory ------------------------
// STEP words of each at a time, turned so that one vector holds a word of each of four rows. The next words are on their way
// while the present ones are multiplied: `fetch` brings them to registers, `store` from there to workgroup memory. A unit is
// four words: the tile says how many a vector has (tile_units) and what they are of a row (row_unit).

const STEP = 8u;

var<workgroup> query_tile: array<vec4<u32>, STEP * (2u * TY + 1u)>;
var<workgroup> row_tile: array<vec4<u32>, STEP * (2u * TX + 1u)>;
var<private> next_rows: array<vec4<u32>, 8>;
var<private> next_query: vec4<u32>;

// Vectors of workgroup memory from word to word; one more than are used, so that stores meet different banks.
fn row_pitch() -> u32 {
    return 2u * TX + 1u;
}

fn query_pitch() -> u32 {
    return 2u * TY + 1u;
}

// The words 4 j .. 4 j + 7 of the tile's queries and rows. Places behind the last query or row repeat it.
fn fetch(q0: u32, r0: u32, j: u32, thread: u32) {
    let units = tile_units();
    for (var n = 0u; n < 16u / TY; n++) {
        let i = thread + n * TX * TY;
        let unit = j + i % 2u;
        next_rows[n] = vec4<u32>(0u);
        if (unit < units) {
            next_rows[n] = row_unit(min(r0 + i / 2u, p.row_end - 1u), unit);
        }
    }
    let unit = j + thread % 2u;
    next_query = vec4<u32>(0u);
    if (thread < 16u * TY && unit < units) {
        next_query = queries[min(q0 + thread / 2u, p.q_end - 1u) * p.query_stride + unit];
    }
}

fn store(thread: u32) {
    for (var n = 0u; n < 16u / TY; n++) {
        let i = thread + n * TX * TY;
        let at = i % 2u * 4u * row_pitch() + i / 8u;
        let lane = i / 2u % 4u;
        row_tile[at][lane] = next_rows[n].x;
        row_tile[at + row_pitch()][lane] = next_rows[n].y;
        row_tile[at + 2u * row_pitch()][lane] = next_rows[n].z;
        row_tile[at + 3u * row_pitch()][lane] = next_rows[n].w;
    }
    if (thread < 16u * TY) {
        let at = thread % 2u * 4u * query_pitch() + thread / 8u;
        let lane = thread / 2u % 4u;
        query_tile[at][lane] = next_query.x;
        query_tile[at + query_pitch()][lane] = next_query.y;
        query_tile[at + 2u * query_pitch()][lane] = next_query.z;
        query_tile[at + 3u * query_pitch()][lane] = next_query.w;
    }
}
