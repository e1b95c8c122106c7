
// ---- lib/load: the queries and rows of a tile into workgroup memory -------------------------------------------------
// TD words of each at a time, turned so that one vector holds a word of each of four rows. A unit is four words: the tile
// says how many a vector has (tile_units) and what they are of a row (row_unit).

var<workgroup> query_tile: array<vec4<u32>, TY * TD>;
var<workgroup> row_tile: array<vec4<u32>, TX * TD>;

// Words 4 j .. 4 j + TD - 1 of the tile's queries and rows; neighbours in memory go to neighbouring threads. Places behind
// the last query or row repeat it.
fn load_tiles(q0: u32, r0: u32, j: u32, thread: u32) {
    let units = tile_units();
    for (var i = thread; i < TX * TD / 4u; i += TX * TY) {
        let quad = i / (TD / 4u);
        let piece = i % (TD / 4u);
        let r = min(vec4<u32>(r0 + quad * 4u) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(p.row_end - 1u));
        var a = vec4<u32>(0u);
        var b = vec4<u32>(0u);
        var c = vec4<u32>(0u);
        var d = vec4<u32>(0u);
        if (j + piece < units) {
            a = row_unit(r.x, j + piece);
            b = row_unit(r.y, j + piece);
            c = row_unit(r.z, j + piece);
            d = row_unit(r.w, j + piece);
        }
        let at = piece * 4u * TX + quad;
        row_tile[at] = vec4<u32>(a.x, b.x, c.x, d.x);
        row_tile[at + TX] = vec4<u32>(a.y, b.y, c.y, d.y);
        row_tile[at + 2u * TX] = vec4<u32>(a.z, b.z, c.z, d.z);
        row_tile[at + 3u * TX] = vec4<u32>(a.w, b.w, c.w, d.w);
    }
    for (var i = thread; i < TY * TD / 4u; i += TX * TY) {
        let quad = i / (TD / 4u);
        let piece = i % (TD / 4u);
        let q = min(vec4<u32>(q0 + quad * 4u) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(p.q_end - 1u));
        var a = vec4<u32>(0u);
        var b = vec4<u32>(0u);
        var c = vec4<u32>(0u);
        var d = vec4<u32>(0u);
        if (j + piece < units) {
            a = queries[q.x * p.query_stride + j + piece];
            b = queries[q.y * p.query_stride + j + piece];
            c = queries[q.z * p.query_stride + j + piece];
            d = queries[q.w * p.query_stride + j + piece];
        }
        let at = piece * 4u * TY + quad;
        query_tile[at] = vec4<u32>(a.x, b.x, c.x, d.x);
        query_tile[at + TY] = vec4<u32>(a.y, b.y, c.y, d.y);
        query_tile[at + 2u * TY] = vec4<u32>(a.z, b.z, c.z, d.z);
        query_tile[at + 3u * TY] = vec4<u32>(a.w, b.w, c.w, d.w);
    }
}
