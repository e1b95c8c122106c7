
// ---- lib/claim: places in a list, handed out to threads -------------------------------------------------------------

var<workgroup> claimed: atomic<u32>;

// The first of n places for this thread. All threads of the workgroup call it together.
fn claim(n: u32) -> u32 {
    if (n == 0u) {
        return 0u;
    }
    return atomicAdd(&claimed, n);
}
