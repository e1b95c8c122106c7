
// ---- lib/tally: a histogram of 256 digits ---------------------------------------------------------------------------

var<workgroup> histogram: array<atomic<u32>, 256>;

// Counts the digit if it is to be counted. All threads of the workgroup call it together.
fn tally(digit: u32, counts: bool) {
    if (counts) {
        atomicAdd(&histogram[digit], 1u);
    }
}
