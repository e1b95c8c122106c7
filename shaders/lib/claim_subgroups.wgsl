
// ---- lib/claim: places in a list, handed out to threads; one atomic operation per subgroup ----------------------------

var<workgroup> claimed: atomic<u32>;

// The first of n places for this thread. All threads of the workgroup call it together.
fn claim(n: u32) -> u32 {
    let lower = subgroupExclusiveAdd(n);
    let all = subgroupAdd(n);
    let leads = subgroupExclusiveAdd(1u) == 0u;
    var first = 0u;
    if (leads && all != 0u) {
        first = atomicAdd(&claimed, all);
    }
    return subgroupBroadcastFirst(first) + lower;
}
