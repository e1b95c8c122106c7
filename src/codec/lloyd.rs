//! k-means of the parts of vectors, all parts at once: what product quantisers learn.
//!
//! Vectors are taken 16 at a time, component by component, so that a vector register holds one component of as many
//! vectors; each centroid then costs as many operations as a part has components.
#![allow(clippy::needless_range_loop)]

use super::linear::load;
use super::rotation::LANES;
use crate::random::Uniform;
use crate::simd::{Simd, SimdKernel, Token};
use crate::threads;

/// Vectors that one thread takes at a time.
const ROWS_PER_THREAD: usize = 256;

/// Rows per centroid from which the first centroids are chosen.
const SAMPLE_PER_CENTROID: usize = 32;

/// Centroids of each part.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PartMeans {
    pub parts: usize,
    /// Components of a part.
    pub width: usize,
    /// Centroids of a part.
    pub entries: usize,
    /// `[parts, entries, width]`.
    pub centroids: Vec<f32>,
}

impl PartMeans {
    /// All centroids zero.
    pub fn new(parts: usize, width: usize, entries: usize) -> PartMeans {
        PartMeans { parts, width, entries, centroids: vec![0.0; parts * entries * width] }
    }

    fn dim(&self) -> usize {
        self.parts * self.width
    }

    /// Centroids of part `p`.
    pub fn part(&self, p: usize) -> &[f32] {
        &self.centroids[p * self.entries * self.width..][..self.entries * self.width]
    }

    /// Begins with rows chosen as k-means++ does (Arthur and Vassilvitskii 2007), from a sample, for each part by itself;
    /// there must be at least as many rows as entries.
    pub fn start(&mut self, rows: &[f32], seed: u64) {
        let (dim, width, entries) = (self.dim(), self.width, self.entries);
        let n = rows.len() / dim;
        let count = n.min(SAMPLE_PER_CENTROID * entries);
        let parts = self.centroids.chunks_exact_mut(entries * width).enumerate();
        threads::each(1, parts, |(p, centroids)| {
            let mut random = Uniform::new(seed.wrapping_add(p as u64));
            let offset = (random.next() * n as f64) as usize;
            let pick = |i: usize| (offset + i * (n / count)) % n;
            let points: Vec<f32> =
                (0..count).flat_map(|i| &rows[pick(i) * dim + p * width..][..width]).copied().collect();
            let mut distances = vec![f32::INFINITY; count];
            let mut next = 0;
            for centroid in centroids.chunks_exact_mut(width) {
                centroid.copy_from_slice(&points[next * width..(next + 1) * width]);
                let mut sum = 0.0f64;
                for (point, least) in points.chunks_exact(width).zip(&mut distances) {
                    let distance = point.iter().zip(&*centroid).map(|(a, b)| (a - b) * (a - b)).sum::<f32>();
                    *least = least.min(distance);
                    sum += f64::from(*least);
                }
                let mut left = random.next() * sum;
                let taken = |&d: &f32| {
                    left -= f64::from(d);
                    left < 0.0
                };
                next = distances.iter().position(taken).unwrap_or(count - 1);
            }
        });
    }

    /// Rounds of Lloyd's iteration; fewer when the work is called off, which the caller sees for itself.
    pub fn rounds(&mut self, rows: &[f32], rounds: usize) {
        let (dim, parts, width, entries) = (self.dim(), self.parts, self.width, self.entries);
        let n = rows.len() / dim;
        let mut codes = vec![0u8; n * parts];
        for round in 0..rounds {
            if threads::check().is_err() {
                return;
            }
            self.codes(rows, &mut codes);
            let each = self.centroids.chunks_exact_mut(entries * width).enumerate();
            threads::each(1, each, |(p, centroids)| {
                let (mut sums, mut counts) = (vec![0.0f64; entries * width], vec![0usize; entries]);
                for (row, code) in rows.chunks_exact(dim).zip(codes.chunks_exact(parts)) {
                    let entry = usize::from(code[p]);
                    counts[entry] += 1;
                    let sums = &mut sums[entry * width..(entry + 1) * width];
                    sums.iter_mut().zip(&row[p * width..]).for_each(|(s, &x)| *s += f64::from(x));
                }
                for ((centroid, sum), &count) in centroids.chunks_exact_mut(width).zip(sums.chunks(width)).zip(&counts)
                {
                    if count > 0 {
                        centroid.iter_mut().zip(sum).for_each(|(c, s)| *c = (s / count as f64) as f32);
                    }
                }
                split(centroids, width, &mut counts, round);
            });
        }
    }

    /// The number of the nearest centroid for each part: `[n, parts]`.
    pub fn codes(&self, rows: &[f32], codes: &mut [u8]) {
        let dim = self.dim();
        let chunks = codes.chunks_mut(ROWS_PER_THREAD * self.parts).zip(rows.chunks(ROWS_PER_THREAD * dim));
        threads::each(1, chunks, |(codes, rows)| {
            self.some_codes(rows, codes);
        });
    }

    /// As `codes`, on the calling thread.
    pub fn some_codes(&self, rows: &[f32], codes: &mut [u8]) {
        Token::best().run(Nearest { lloyd: self, rows, codes });
    }

    /// The vectors that the codes of rows stand for.
    pub fn nearest(&self, rows: &[f32]) -> Vec<f32> {
        let mut codes = vec![0u8; rows.len() / self.dim() * self.parts];
        self.codes(rows, &mut codes);
        let mut out = vec![0.0; rows.len()];
        let each = out.chunks_mut(self.dim()).zip(codes.chunks(self.parts));
        threads::each(64, each, |(out, code)| self.decode(code, out));
        out
    }

    /// The vector that a code stands for.
    #[inline(always)]
    pub fn decode(&self, code: &[u8], vector: &mut [f32]) {
        let tables = self.centroids.chunks_exact(self.entries * self.width);
        for ((x, table), &c) in vector.chunks_exact_mut(self.width).zip(tables).zip(code) {
            // A code that is out of range is another centroid, not a panic.
            let c = usize::from(c) % self.entries;
            x.copy_from_slice(&table[c * self.width..(c + 1) * self.width]);
        }
    }
}

/// Centroids without rows take the half of one with many: both move apart by a little, and the next round parts its rows.
fn split(centroids: &mut [f32], width: usize, counts: &mut [usize], round: usize) {
    const EPSILON: f32 = 1.0 / 1024.0;
    for empty in 0..counts.len() {
        if counts[empty] > 0 {
            continue;
        }
        let Some(largest) = (0..counts.len()).max_by_key(|&e| counts[e]) else { return };
        if counts[largest] < 2 {
            return;
        }
        for j in 0..width {
            let x = centroids[largest * width + j];
            let by = if (j + round).is_multiple_of(2) { EPSILON } else { -EPSILON };
            centroids[empty * width + j] = x * (1.0 + by);
            centroids[largest * width + j] = x * (1.0 - by);
        }
        counts[empty] = counts[largest] / 2;
        counts[largest] -= counts[empty];
    }
}

struct Nearest<'a> {
    lloyd: &'a PartMeans,
    rows: &'a [f32],
    codes: &'a mut [u8],
}

/// Blocks that share each load of a centroid.
const BLOCKS_TOGETHER: usize = 2;

impl SimdKernel for Nearest<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let PartMeans { parts, width, entries, ref centroids } = *self.lloyd;
        let dim = parts * width;
        // The product less half the squared length is largest where the distance is least.
        let half = |c: &[f32]| 0.5 * c.iter().map(|x| x * x).sum::<f32>();
        let halves: Vec<f32> = centroids.chunks_exact(width).map(half).collect();
        let mut blocks = [vec![[0.0f32; LANES]; dim], vec![[0.0f32; LANES]; dim]];
        let each =
            self.rows.chunks(BLOCKS_TOGETHER * LANES * dim).zip(self.codes.chunks_mut(BLOCKS_TOGETHER * LANES * parts));
        for (rows, codes) in each {
            for (block, rows) in blocks.iter_mut().zip(rows.chunks(LANES * dim)) {
                load(rows, dim, block);
            }
            for p in 0..parts {
                let x: [&[[f32; LANES]]; BLOCKS_TOGETHER] =
                    std::array::from_fn(|b| &blocks[b][p * width..(p + 1) * width]);
                let (table, halves) = (self.lloyd.part(p), &halves[p * entries..(p + 1) * entries]);
                let best = match S::LANES {
                    16 => nearest::<S, 1>(s, x, table, halves, width),
                    8 => nearest::<S, 2>(s, x, table, halves, width),
                    _ => nearest::<S, 4>(s, x, table, halves, width),
                };
                for (i, code) in codes.chunks_exact_mut(parts).enumerate() {
                    code[p] = best[i / LANES][i % LANES] as u8;
                }
            }
        }
    }
}

/// The numbers of the nearest centroids of all lanes; `V` vectors are a row of a block.
#[inline(always)]
fn nearest<S: Simd, const V: usize>(
    s: S,
    x: [&[[f32; LANES]]; BLOCKS_TOGETHER],
    centroids: &[f32],
    halves: &[f32],
    width: usize,
) -> [[f32; LANES]; BLOCKS_TOGETHER] {
    let mut best = Best::<S, V>::new(s);
    match width {
        1 => in_registers::<S, V, 1>(s, x, centroids, halves, &mut best),
        2 => in_registers::<S, V, 2>(s, x, centroids, halves, &mut best),
        4 => in_registers::<S, V, 4>(s, x, centroids, halves, &mut best),
        8 => in_registers::<S, V, 8>(s, x, centroids, halves, &mut best),
        _ => in_memory::<S, V>(s, x, centroids, halves, &mut best),
    }
    let mut out = [[0.0; LANES]; BLOCKS_TOGETHER];
    for b in 0..BLOCKS_TOGETHER {
        for v in 0..V {
            s.put(&mut out[b][v * S::LANES..], best.number[b][v]);
        }
    }
    out
}

/// The largest product of each lane less half the squared length of the centroid, and the number of that.
struct Best<S: Simd, const V: usize> {
    most: [[S::F; V]; BLOCKS_TOGETHER],
    number: [[S::F; V]; BLOCKS_TOGETHER],
}

impl<S: Simd, const V: usize> Best<S, V> {
    #[inline(always)]
    fn new(s: S) -> Self {
        Best { most: [[s.splat(f32::NEG_INFINITY); V]; BLOCKS_TOGETHER], number: [[s.splat(0.0); V]; BLOCKS_TOGETHER] }
    }

    #[inline(always)]
    fn offer(&mut self, s: S, product: &[[S::F; V]; BLOCKS_TOGETHER], entry: usize) {
        let number = s.splat(entry as f32);
        for b in 0..BLOCKS_TOGETHER {
            for v in 0..V {
                self.number[b][v] = s.if_above(product[b][v], self.most[b][v], number, self.number[b][v]);
                self.most[b][v] = s.max(product[b][v], self.most[b][v]);
            }
        }
    }
}

/// Parts of few components stay in registers while all centroids pass.
#[inline(always)]
fn in_registers<S: Simd, const V: usize, const W: usize>(
    s: S,
    x: [&[[f32; LANES]]; BLOCKS_TOGETHER],
    centroids: &[f32],
    halves: &[f32],
    best: &mut Best<S, V>,
) {
    let x: [[[S::F; V]; W]; BLOCKS_TOGETHER] =
        std::array::from_fn(|b| std::array::from_fn(|j| std::array::from_fn(|v| s.get(&x[b][j][v * S::LANES..]))));
    for (e, (centroid, &half)) in centroids.as_chunks::<W>().0.iter().zip(halves).enumerate() {
        let mut product = [[s.splat(-half); V]; BLOCKS_TOGETHER];
        for j in 0..W {
            let c = s.splat(centroid[j]);
            for b in 0..BLOCKS_TOGETHER {
                for v in 0..V {
                    product[b][v] = s.fma(c, x[b][j][v], product[b][v]);
                }
            }
        }
        best.offer(s, &product, e);
    }
}

/// Of longer parts each component that is loaded is multiplied by several centroids.
#[inline(always)]
fn in_memory<S: Simd, const V: usize>(
    s: S,
    [x, y]: [&[[f32; LANES]]; BLOCKS_TOGETHER],
    centroids: &[f32],
    halves: &[f32],
    best: &mut Best<S, V>,
) {
    const TOGETHER: usize = 4;
    let (width, entries) = (x.len(), halves.len());
    for first in (0..entries).step_by(TOGETHER) {
        // Behind the last centroid it is taken again, which changes nothing.
        let numbers: [usize; TOGETHER] = std::array::from_fn(|i| (first + i).min(entries - 1));
        let rows = numbers.map(|e| &centroids[e * width..(e + 1) * width]);
        let mut product = numbers.map(|e| [[s.splat(-halves[e]); V]; BLOCKS_TOGETHER]);
        let columns = rows[0].iter().zip(rows[1]).zip(rows[2].iter().zip(rows[3]));
        for ((x, y), ((c0, c1), (c2, c3))) in x.iter().zip(y).zip(columns) {
            for v in 0..V {
                let x = [s.get(&x[v * S::LANES..]), s.get(&y[v * S::LANES..])];
                for (product, c) in product.iter_mut().zip([*c0, *c1, *c2, *c3]) {
                    let c = s.splat(c);
                    for b in 0..BLOCKS_TOGETHER {
                        product[b][v] = s.fma(c, x[b], product[b][v]);
                    }
                }
            }
        }
        for (product, e) in product.iter().zip(numbers) {
            best.offer(s, product, e);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::clustered;
    use super::*;

    #[test]
    fn codes_are_the_nearest_centroids_and_rounds_make_them_nearer() {
        for (parts, width, entries) in [(3, 1, 16), (4, 2, 16), (5, 3, 7), (2, 8, 256), (3, 5, 40)] {
            let (n, dim) = (611, parts * width);
            let rows = clustered(5, n, dim);
            let mut lloyd = PartMeans::new(parts, width, entries);
            lloyd.start(&rows, 9);
            let distortion = |lloyd: &PartMeans| {
                rows.iter().zip(lloyd.nearest(&rows)).map(|(a, b)| f64::from((a - b) * (a - b))).sum::<f64>()
            };
            let first = distortion(&lloyd);
            let mut before = first;
            for _ in 0..5 {
                lloyd.rounds(&rows, 1);
                let now = distortion(&lloyd);
                assert!(now <= before * 1.0001, "{now} after {before}");
                before = now;
            }
            assert!(before < 0.97 * first, "{before} of {first}");
            let coded = lloyd.nearest(&rows);
            for (row, found) in rows.chunks(dim).zip(coded.chunks(dim)).take(100) {
                for p in 0..parts {
                    let square =
                        |c: &[f32]| c.iter().zip(&row[p * width..]).map(|(a, b)| (a - b) * (a - b)).sum::<f32>();
                    let best = lloyd.part(p).chunks(width).map(square).fold(f32::INFINITY, f32::min);
                    let found = square(&found[p * width..(p + 1) * width]);
                    assert!(found <= best + 1e-4 * (1.0 + best), "{found} where {best} was there");
                }
            }
        }
    }

    #[test]
    fn centroids_without_rows_are_given_some() {
        // Two distinct rows and a third near one of them, 4 entries that all begin alike.
        let rows: Vec<f32> = (0..40).map(|i| if i % 2 == 0 { 1.0 + (i / 8) as f32 } else { 50.0 + i as f32 }).collect();
        let mut lloyd = PartMeans::new(1, 1, 4);
        lloyd.rounds(&rows, 20);
        let mut codes = vec![0; 40];
        lloyd.codes(&rows, &mut codes);
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), 4);
    }
}
