
// ---- lib/pairs: a thread's 4 x 4 pairs of a query and a row ----------------------------------------------------------

// Bits of the keys of a thread's four queries, each with its four rows.
struct Keys {
    a: vec4<u32>,
    b: vec4<u32>,
    c: vec4<u32>,
    d: vec4<u32>,
}
