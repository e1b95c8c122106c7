//! The rotation that suits a product quantiser (Ge et al. 2013).
//!
//! It begins with the parametric solution: principal directions, dealt out so that the parts have equal products of
//! variances. Then it alternates, as the non-parametric one does, between codes of the rotated sample and the rotation
//! that brings the sample nearest to what the codes stand for (orthogonal Procrustes: a singular value decomposition).

use super::lloyd::PartMeans;
use crate::linalg::{DenseMatrix, Principal, mean, moments, procrustes, products};

/// Rows without which there is nothing to learn.
pub(super) const LEAST_ROWS: usize = ENTRIES;

/// Centroids of a part while the rotation is learnt; the rotation hardly depends on their number.
const ENTRIES: usize = 16;

/// Rounds of codes and rotation.
const TURN_ROUNDS: usize = 6;

/// Most components of a rotation that is learnt beyond the first: a decomposition of more takes seconds.
const MOST_LEARNT: usize = 512;

/// A matrix `[dim, kept]` with orthonormal columns, from rows `[n, dim]`; none when a decomposition does not converge.
pub(super) fn train(rows: &[f32], dim: usize, parts: usize, kept: usize, seed: u64) -> Option<Vec<f32>> {
    let mut centred = rows.to_vec();
    let mean = mean(rows, dim);
    centred.chunks_exact_mut(dim).for_each(|row| row.iter_mut().zip(&mean).for_each(|(x, m)| *x -= m));
    let principal = Principal::new(&moments(&centred, dim), dim)?;
    let order = dealt(&principal.values()[..kept], parts);
    let all = principal.rows();
    let mut matrix: Vec<f32> = (0..dim * kept).map(|i| all[order[i % kept] * dim + i / kept]).collect();
    if kept > MOST_LEARNT {
        return Some(matrix);
    }
    // What is left to be found turns the kept components among themselves.
    let inside = DenseMatrix::new(dim, kept, matrix.clone()).times_all(&centred);
    let mut turn = vec![0.0f32; kept * kept];
    turn.iter_mut().step_by(kept + 1).for_each(|x| *x = 1.0);
    let mut lloyd = PartMeans::new(parts, kept / parts, ENTRIES);
    for round in 0..TURN_ROUNDS {
        let turned = DenseMatrix::new(kept, kept, turn.clone()).times_all(&inside);
        if round == 0 {
            lloyd.start(&turned, seed);
        }
        lloyd.rounds(&turned, if round == 0 { 6 } else { 2 });
        let coded = lloyd.nearest(&turned);
        turn = procrustes(&products(&inside, kept, &coded, kept), kept)?;
    }
    matrix = DenseMatrix::new(kept, kept, turn.clone()).times_all(&matrix);
    Some(matrix)
}

/// Principal directions in an order whose equal parts have equal products of variances: the largest left goes to the part
/// with the least product that has room.
fn dealt(values: &[f64], parts: usize) -> Vec<usize> {
    let room = values.len() / parts;
    let floor = values.iter().fold(0.0f64, |a, &x| a.max(x)) * 1e-12 + f64::MIN_POSITIVE;
    let mut dealt: Vec<(f64, Vec<usize>)> = vec![(0.0, Vec::new()); parts];
    // Scaled to a mean of 1 in logarithms, so that every direction makes a product smaller or larger alike.
    let logs: Vec<f64> = values.iter().map(|v| v.max(floor).ln()).collect();
    let least = logs.iter().fold(f64::INFINITY, |a, &x| a.min(x));
    for (i, log) in logs.iter().enumerate() {
        let open = dealt.iter_mut().filter(|(_, d)| d.len() < room);
        if let Some(part) = open.min_by(|a, b| a.0.total_cmp(&b.0)) {
            part.0 += log - least;
            part.1.push(i);
        }
    }
    dealt.into_iter().flat_map(|(_, d)| d).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::random;
    use super::*;

    #[test]
    fn row_b7_opq_makes_codes_better_where_components_depend_on_each_other() {
        let (n, dim, parts) = (2000, 32, 8);
        let mut next = random(3);
        // Few directions hold most variance, and the components mix them.
        let mixing: Vec<f32> = (0..dim * dim).map(|_| next()).collect();
        let mut rows = vec![0.0; n * dim];
        for row in rows.chunks_mut(dim) {
            for (j, direction) in mixing.chunks(dim).enumerate() {
                let x = 3.0 * next() / (1.0 + j as f32);
                row.iter_mut().zip(direction).for_each(|(r, d)| *r += x * d);
            }
        }
        let distortion = |rows: &[f32]| {
            let mut lloyd = PartMeans::new(parts, dim / parts, 16);
            lloyd.start(rows, 1);
            lloyd.rounds(rows, 10);
            let coded = lloyd.nearest(rows);
            rows.iter().zip(&coded).map(|(a, b)| (a - b) * (a - b)).sum::<f32>()
        };
        let matrix = train(&rows, dim, parts, dim, 1).expect("converges");
        let turned = DenseMatrix::new(dim, dim, matrix).times_all(&rows);
        let (plain, turned) = (distortion(&rows), distortion(&turned));
        assert!(turned < 0.7 * plain, "{turned} of {plain}");
    }

    #[test]
    fn directions_are_dealt_out_evenly() {
        assert_eq!(dealt(&[8.0, 4.0, 2.0, 1.0], 2), [0, 3, 1, 2]);
        assert_eq!(dealt(&[1.0; 6], 3).len(), 6);
    }
}
