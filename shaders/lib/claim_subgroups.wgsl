
// ---- lib/claim: places in a list, handed out to threads; one atomic operation a subgroup ----------------------------

var<workgroup> claimed: atomic<u32>;

// The first of n places for this thread. All threads of the workgroup call it together.
fn claim(n: u32) -> u32 {
    if (!subgroupAny(n != 0u)) {
        return 0u;
    }
    let lower = subgroupExclusiveAdd(n);
    let all = subgroupAdd(n);
    var first = 0u;
    if (subgroupExclusiveAdd(1u) == 0u) {
        first = atomicAdd(&claimed, all);
    }
    return subgroupBroadcastFirst(first) + lower;
}
