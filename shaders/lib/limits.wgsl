
// ---- lib/limits: the size of a query's list, and the limit that a pair must be below to enter it --------------------

struct Limit {
    key: u32, // sortable, as `position` of the largest pair that may still be among those wanted
    position: u32,
    count: atomic<u32>, // pairs that were offered room; more than there is room for when the list overflowed
    spare: u32,
}

// The bit of a count that says that pairs were lost.
const OVERFLOWED = 0x80000000u;
