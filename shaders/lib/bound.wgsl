
// ---- lib/bound: lower bounds of direct keys, and lists that a later launch goes on with ------------------------------

// Of four rows.
struct RowTerms {
    square: vec4<f32>,
    scale: vec4<f32>,
    residual: vec4<f32>,
    tail: vec4<f32>,
    longest: f32,
}

// `kernels::codes::lower_bound`, as keys: one NaN, no -0. The query's terms: offset, scale, length, tail.
fn lower_bounds(products: vec4<f32>, query: vec4<f32>, error: f32, of_rows: RowTerms) -> vec4<u32> {
    let estimate = query.x + of_rows.square - of_rows.scale * query.y * products;
    let width = of_rows.residual * query.z + of_rows.tail * query.w + of_rows.longest * error;
    let bits = bitcast<vec4<u32>>(estimate - width);
    let numbers = select(bits, vec4<u32>(NAN), (bits & vec4<u32>(0x7fffffffu)) > vec4<u32>(INFINITY));
    return select(numbers, vec4<u32>(0u), numbers == vec4<u32>(0x80000000u));
}

// Where a part begins: tile t of a shard belongs to part t % parts_total whichever launch it falls into, so that short
// launches fill all parts alike. `row_begin` is the front of a tile.
fn first_row(part: u32) -> u32 {
    let tile = p.row_begin / tile_rows();
    return p.row_begin + (part + p.parts_total - tile % p.parts_total) % p.parts_total * tile_rows();
}

// The lists that an earlier launch wrote as heaps, which they are. All threads of the workgroup call it together (one
// barrier).
fn read_heaps(q0: u32, part: u32, thread: u32) {
    for (var i = thread; i < 4u * TY * p.keep; i += TX * TY) {
        let q = q0 + i % (4u * TY);
        if (q < p.q_end) {
            let at = (q * p.parts_total + part) * p.keep + i / (4u * TY);
            let position = out_positions[at];
            heap_keys[i] = select(sortable(out_keys[at]), 0xffffffffu, position == NO_POSITION);
            heap_positions[i] = position;
        }
    }
    workgroupBarrier();
}

// Notes what the heaps without free places left out: nothing below their largest key. Complements, so that 0 says that
// nothing was left out. No atomic operations, which naga 30 gives a scope that matrix units do not allow.
fn write_bounds(q0: u32, part: u32, thread: u32) {
    for (var lane = thread; lane < 4u * TY; lane += TX * TY) {
        if (q0 + lane < p.q_end) {
            let full = heap_positions[lane] != NO_POSITION;
            out_bounds[(q0 + lane) * p.parts_total + part] = select(0u, ~heap_keys[lane], full);
        }
    }
}
