
// ---- lib/tally: a histogram of 256 digits; the first thread's digit is counted for the whole subgroup at once --------
// Leading digits of keys are nearly all the same, and threads that add to one place wait for each other.

var<workgroup> histogram: array<atomic<u32>, 256>;

// Counts the digit if it is to be counted. All threads of the workgroup call it together.
fn tally(digit: u32, counts: bool) {
    let shared_digit = subgroupBroadcastFirst(digit);
    let together = counts && digit == shared_digit;
    let n = subgroupAdd(u32(together));
    let leads = subgroupExclusiveAdd(1u) == 0u;
    if (leads && n != 0u) {
        atomicAdd(&histogram[shared_digit], n);
    }
    if (counts && !together) {
        atomicAdd(&histogram[digit], 1u);
    }
}
