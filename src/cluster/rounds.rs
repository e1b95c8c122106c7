//! Rounds of assigning, each of which profits from the one before: every point begins with its last centroid, and what is
//! known of its distance to each block of centroids is lowered by how far the block has moved since.

use super::points::{Points, assigner, view};
use super::update::Sums;
use crate::codec::int8::Coder;
use crate::compute::{Candidates, EngineError, Input, Kind, Known, Output, Tag, Vectors};
use crate::engine::Device;
use crate::linalg::length;
use crate::ops::assign::{BLOCK, POINTS};
use crate::ops::codes::{Codes, QueryCodes};
use crate::ops::{self, Assign, Batch, Coded, Program, SegmentSum};
use crate::stats::SearchStats;
use crate::threads;
use crate::types::{Metric, RowsView};

/// Bytes that known bounds may take in all.
const BOUNDS: usize = 512 << 20;

/// Points, their centroids and what is known of both.
pub(super) struct Rounds<'a> {
    device: &'a Device,
    points: &'a Points<'a>,
    pub labels: Vec<u32>,
    clusters: usize,
    coding: Option<(&'a Coder, Vec<QueryCodes>)>,
    /// Of each chunk, as engines take them; none where none are kept.
    bounds: Vec<Vec<f32>>,
    /// Whether all points are summed where they are assigned, in each round; else those that moved, in host memory.
    sums_there: bool,
    /// The centroids that the bounds are about.
    last: Vec<f32>,
    /// Names of the chunks, so that a device keeps the points from round to round.
    tags: Vec<Tag>,
    /// What all rounds did, and who.
    pub stats: SearchStats,
}

/// What a round found.
pub(super) struct Round {
    pub inertia: f64,
    pub changed: usize,
}

impl<'a> Rounds<'a> {
    /// Nothing is known yet. A centroid must keep its place from round to round.
    pub fn new(
        device: &'a Device,
        points: &'a Points<'a>,
        clusters: usize,
        coder: Option<&'a Coder>,
    ) -> Result<Rounds<'a>, EngineError> {
        let coding = coder.map(|coder| Ok::<_, EngineError>((coder, points.encode(device, coder)?))).transpose()?;
        let labels = vec![u32::MAX; points.len()];
        let tags = (0..points.len().div_ceil(points.chunk())).map(|_| Tag::new()).collect();
        let (n, chunk, blocks) = (points.len(), points.chunk(), clusters.div_ceil(BLOCK));
        let mut bounds = Vec::new();
        if coding.is_some() && n.saturating_mul(blocks).saturating_mul(4) <= BOUNDS {
            let unknown = |start: usize| vec![f32::NEG_INFINITY; chunk.min(n - start) * blocks];
            bounds = (0..n).step_by(chunk).map(unknown).collect();
        }
        // A GPU reads its own memory sooner than the host finds out who moved.
        let sums_there = assigner(device, clusters, n, points.dim()).kind != Kind::Cpu;
        Ok(Rounds {
            sums_there,
            device,
            points,
            labels,
            clusters,
            coding,
            bounds,
            last: Vec::new(),
            tags,
            stats: SearchStats::default(),
        })
    }

    /// Assigns all points to the centroids and moves their rows to the sums of their new clusters.
    pub fn assign(&mut self, centroids: &[f32], sums: &mut Sums) -> Result<Round, EngineError> {
        let (dim, chunk) = (self.points.dim(), self.points.chunk());
        let norms: Vec<f32> = centroids.chunks_exact(dim).map(|c| length(c) as f32).collect();
        let mut codes = Codes::default();
        if let Some((coder, _)) = &self.coding {
            coder.encode(&*self.device.host, &RowsView::F32(view(centroids, dim)?), &norms, &mut codes)?;
        }
        self.lower_bounds(centroids);
        let (tag, code_tag) = (Tag::new(), Tag::new());
        let mut round = Round { inertia: 0.0, changed: 0 };
        let mut stats = std::mem::take(&mut self.stats);
        if self.sums_there {
            sums.clear();
        }
        for i in 0..self.points.len().div_ceil(chunk) {
            let (start, end) = (i * chunk, self.points.len().min((i + 1) * chunk));
            let rows = self.points.floats(start, end);
            let coded = self.coding.as_ref().map(|(_, q)| Coded { codes: &codes, tag: &code_tag, queries: &q[i] });
            let base = Vectors { rows: view(centroids, dim)?.into(), norms: Some(&norms), tag: Some(&tag) };
            let bounds = self.bounds.get(i).map_or(&[][..], |b| b);
            let known = Known { positions: &self.labels[start..end], bounds };
            let (found, of_clusters) = self.run(base, coded, &rows, (start, end), known, &mut stats)?;
            let labels = &mut self.labels[start..end];
            match of_clusters {
                Some(of_clusters) => sums.add(&of_clusters, &found.positions),
                None => sums.change(&rows, labels, &found.positions),
            }
            round.changed += labels.iter().zip(&found.positions).filter(|(old, new)| old != new).count();
            round.inertia += found.keys.iter().map(|&key| f64::from(key)).sum::<f64>();
            labels.copy_from_slice(&found.positions);
            if let Some(bounds) = self.bounds.get_mut(i) {
                *bounds = found.bound;
            }
        }
        self.stats = stats;
        Ok(round)
    }

    /// The nearest centroid of each point, and the sums of the points of each.
    fn run(
        &self,
        base: Vectors<'_>,
        codes: Option<Coded<'_>>,
        rows: &[f32],
        (start, end): (usize, usize),
        known: Known<'_>,
        stats: &mut SearchStats,
    ) -> Result<(Candidates, Option<Vec<f32>>), EngineError> {
        let (dim, clusters) = (self.points.dim(), self.clusters);
        let norms = Some(&self.points.norms[start..end]);
        let tag = self.tags.get(start / self.points.chunk());
        let queries = Vectors { rows: view(rows, dim)?.into(), norms, tag };
        let batch = Batch { metric: Metric::L2, rows: base, queries, mask: None, codes };
        let mut program = Program::new();
        let (pairs, codes) = batch.declare(&mut program)?;
        let mut inputs = batch.inputs();
        inputs.push(Input::Known(known));
        let known = Some(program.input(Input::Known(known).ty()?));
        let found = program.push(Assign { pairs, codes, known })?;
        program.output(found);
        if self.sums_there {
            let sums = program.push(SegmentSum { rows: pairs.queries, labels: found, segments: clusters })?;
            program.output(sums);
        }
        let mut outputs = ops::run_all(&*self.device.engine, &program, &inputs, stats)?.into_iter();
        match (outputs.next(), outputs.next()) {
            (Some(Output::Candidates(found)), sums)
                if found.positions.len() == end - start && found.positions.iter().all(|&p| (p as usize) < clusters) =>
            {
                match sums {
                    Some(Output::Matrix(sums)) if sums.len() == clusters * dim => Ok((found, Some(sums))),
                    None => Ok((found, None)),
                    Some(_) => Err(EngineError::Mismatch("points were not summed".to_owned())),
                }
            }
            _ => Err(EngineError::Mismatch("points were not assigned".to_owned())),
        }
    }

    /// Lowers the bounds by how far each block of centroids has moved since they were made.
    fn lower_bounds(&mut self, centroids: &[f32]) {
        if self.bounds.is_empty() {
            return;
        }
        let dim = self.points.dim();
        let moved = |(a, b): (&[f32], &[f32])| {
            let squares = a.iter().zip(b).map(|(x, y)| (f64::from(*x) - f64::from(*y)).powi(2));
            squares.sum::<f64>().sqrt()
        };
        let drift: Vec<f64> = self.last.chunks_exact(dim).zip(centroids.chunks_exact(dim)).map(moved).collect();
        let drift: Vec<f32> = drift
            .chunks(BLOCK)
            .map(|block| (block.iter().fold(0.0f64, |a, &b| a.max(b)) * (1.0 + 1e-6)) as f32)
            .collect();
        if !drift.is_empty() {
            let slack = slack(dim);
            threads::each(1, self.bounds.iter_mut(), |bounds| {
                for group in bounds.chunks_mut(POINTS * drift.len()) {
                    let points = group.len() / drift.len();
                    for (bounds, &drift) in group.chunks_exact_mut(points).zip(&drift) {
                        bounds.iter_mut().for_each(|bound| *bound = lowered(*bound, drift, slack));
                    }
                }
            });
        }
        self.last = centroids.to_vec();
    }
}

/// What a direct l2 key and the arithmetic of [`lowered`] may err, relative to the key (`docs/numerics.md`).
fn slack(dim: usize) -> f32 {
    (dim as f32 + 64.0) * f32::powi(2.0, -24)
}

/// What direct keys are at least when their rows have moved by at most `drift`, if they were at least `bound` before.
#[inline(always)]
fn lowered(bound: f32, drift: f32, slack: f32) -> f32 {
    // The square root of a bound below 0 is no number, and max takes the other then.
    let distance = (bound.sqrt() * (1.0 - slack) - drift * (1.0 + slack)).max(0.0);
    distance * distance * (1.0 - slack)
}
