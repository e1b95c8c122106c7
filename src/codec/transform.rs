//! Transforms of vectors before they are split into lists and coded: projections, rotations, scaling.
//!
//! All but `L2norm` are a mean taken off and then orthogonal projections and rotations, so squared distances lose only
//! what projections drop, and that is known: for x = p + d, with d what was dropped of x, `|q - x|^2` is
//! `|q_p - p|^2 + |q_d - d|^2`, and `Projected::lost` is `|d|^2`.

use super::bytes::{Reader, Writer};
use super::error::{CodecError, finite};
use super::learn::Learner;
use super::linear::{Linear, LinearStep};
use super::rotation::Hadamard;
use super::spec::TransformSpec;
// Vectors in a file have at most as many components as a code can have.
use crate::linalg::{DenseMatrix, transposed};
pub(crate) use crate::ops::codes::MOST_DIM;
use crate::threads;
use crate::types::{MatrixView, Metric, RowsView};

/// Most rows that a decomposition reads.
const SAMPLE_ROWS: usize = 16_384;

/// Bytes of rows that one thread takes at a time.
const BYTES_PER_THREAD: usize = 256 << 10;

/// Most linear steps in a file; factory strings have few.
const MOST_STEPS: usize = 256;

/// A trained transform, or several in one.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum TransformStage {
    Linear(Linear),
    /// A matrix `[input, output]` and what is added afterwards, which need keep no distances.
    Affine(DenseMatrix, Vec<f32>),
    /// To length 1; zero stays zero.
    Normalize(usize),
}

impl TransformStage {
    fn output(&self) -> usize {
        match self {
            TransformStage::Linear(linear) => linear.output(),
            TransformStage::Affine(matrix, _) => matrix.output,
            TransformStage::Normalize(dim) => *dim,
        }
    }
}

/// A transform that somebody else has learnt.
#[derive(Clone, Debug)]
pub(crate) enum Given {
    /// `A x + b` with A `[to, from]`.
    Affine { matrix: Vec<f32>, bias: Vec<f32> },
    /// To length 1.
    Normalize,
    /// Less this vector.
    Centre(Vec<f32>),
    /// Cut off, or filled up with zeros, to so many components.
    Resize(usize),
}

/// Trained transforms, one after the other.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Transform {
    input: usize,
    stages: Vec<TransformStage>,
}

/// Transformed vectors.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Projected {
    /// `[n, output_dim]`.
    pub rows: Vec<f32>,
    /// The squared length of what projections dropped of each row (since it was last scaled to length 1), at least 0;
    /// empty where nothing is dropped.
    pub lost: Vec<f32>,
}

impl Transform {
    /// Learns the transforms from a sample `[n, input_dim]`. For l2 `PCA` takes the mean off, as Faiss does; for inner
    /// product and cosine, whose order that would change, it does not. What the caller should be told of a sample that
    /// is small is appended to `warnings`.
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn train(
        specs: &[TransformSpec],
        metric: Metric,
        sample: MatrixView<'_, f32>,
        seed: u64,
        warnings: &mut Vec<String>,
    ) -> Result<Transform, CodecError> {
        let mut transform = Transform { input: sample.dim(), stages: Vec::new() };
        let count = sample.rows().min(SAMPLE_ROWS.max(sample.dim()));
        let pick = |i: usize| (i as u64 * sample.rows() as u64 / count.max(1) as u64) as usize;
        let mut rows: Vec<f32> = (0..count).flat_map(|i| sample.row(pick(i))).copied().collect();
        let mut dim = sample.dim();
        if let Some(first) = specs.first() {
            finite(sample, || first.to_string())?;
        }
        for (i, spec) in specs.iter().enumerate() {
            let learner = Learner { spec, metric, rows: &rows, dim, seed: seed.wrapping_add(i as u64) };
            let stage = learner.stage(warnings)?;
            rows = over_rows(&rows, dim, |rows| apply(std::slice::from_ref(&stage), rows, &mut []));
            dim = stage.output();
            transform.push(stage);
        }
        transform.fold();
        Ok(transform)
    }

    /// Transforms as they are given, of vectors of `input` components. Nothing is known of what they drop.
    pub fn given(input: usize, given: Vec<Given>) -> Transform {
        let mut transform = Transform { input, stages: Vec::new() };
        for step in given {
            let dim = transform.output_dim();
            transform.stages.push(match step {
                Given::Affine { matrix, bias } => {
                    TransformStage::Affine(DenseMatrix::new(dim, bias.len(), transposed(&matrix, dim)), bias)
                }
                Given::Normalize => TransformStage::Normalize(dim),
                Given::Centre(mean) => TransformStage::Linear(Linear { input: dim, mean, steps: Vec::new() }),
                Given::Resize(to) if to < dim => {
                    let unit = |i: usize| if i / to == i % to { 1.0 } else { 0.0 };
                    TransformStage::Affine(DenseMatrix::new(dim, to, (0..dim * to).map(unit).collect()), vec![0.0; to])
                }
                Given::Resize(to) => {
                    TransformStage::Linear(Linear { input: dim, mean: Vec::new(), steps: vec![LinearStep::Resize(to)] })
                }
            });
        }
        transform
    }

    /// Appends a stage, as a part of the last one where both are one matrix.
    fn push(&mut self, stage: TransformStage) {
        let last = self.stages.pop();
        match (last, stage) {
            (Some(TransformStage::Linear(last)), TransformStage::Linear(next)) if last.takes(&next) => {
                self.stages.push(TransformStage::Linear(last.then(next)));
            }
            (last, stage) => self.stages.extend(last.into_iter().chain([stage])),
        }
    }

    fn fold(&mut self) {
        for stage in &mut self.stages {
            if let TransformStage::Linear(linear) = stage {
                let empty = Linear { input: 0, mean: Vec::new(), steps: Vec::new() };
                *linear = std::mem::replace(linear, empty).folded();
            }
        }
    }

    /// Components of the vectors given.
    pub fn input_dim(&self) -> usize {
        self.input
    }

    /// Components of the vectors afterwards.
    pub fn output_dim(&self) -> usize {
        self.stages.last().map_or(self.input, TransformStage::output)
    }

    /// Whether something of vectors is dropped, whose length [`Projected::lost`] knows.
    pub fn drops(&self) -> bool {
        self.stages.iter().any(|stage| matches!(stage, TransformStage::Linear(linear) if linear.drops()))
    }

    /// The rows, of `input_dim` components each, transformed on all threads of the CPU. (A transform is bound by reading
    /// rows more than by arithmetic, so that no other device would be faster for what lies in host memory.)
    pub fn apply(&self, rows: &RowsView<'_>) -> Projected {
        let (n, input, output) = (rows.rows(), self.input, self.output_dim());
        debug_assert_eq!(rows.dim(), input);
        let chunk = (BYTES_PER_THREAD / (4 * input.max(output))).clamp(16, 1024).next_multiple_of(48);
        let mut out = Projected { rows: vec![0.0; n * output], lost: vec![0.0; if self.drops() { n } else { 0 }] };
        let losts: Vec<&mut [f32]> = out.lost.chunks_mut(chunk).collect();
        let losts = losts.into_iter().map(Some).chain(std::iter::repeat_with(|| None));
        let parts: Vec<_> = out.rows.chunks_mut(chunk * output).zip(losts).enumerate().collect();
        threads::each(1, parts.into_iter(), |(c, (out, lost))| {
            let count = out.len() / output;
            let mut vectors = vec![0.0f32; count * input];
            for (i, vector) in vectors.chunks_exact_mut(input).enumerate() {
                rows.row_f32(c * chunk + i, vector);
            }
            out.copy_from_slice(&apply(&self.stages, vectors, lost.unwrap_or(&mut [])));
        });
        out
    }

    /// What was learnt, to be read again.
    pub fn write(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u32(self.input);
        out.u32(self.stages.len());
        for stage in &self.stages {
            match stage {
                TransformStage::Normalize(_) => out.u8(0),
                TransformStage::Affine(matrix, added) => {
                    out.u8(3);
                    out.u32(matrix.output);
                    out.floats(&matrix.rows);
                    out.floats(added);
                }
                TransformStage::Linear(linear) => {
                    out.u8(1 + u8::from(!linear.mean.is_empty()));
                    out.floats(&linear.mean);
                    out.u32(linear.steps.len());
                    linear.steps.iter().for_each(|step| write_step(step, &mut out));
                }
            }
        }
        out.0
    }

    /// Reads what [`Transform::write`] wrote; never trusts its bytes.
    ///
    /// # Errors
    /// What was found and what was wanted.
    pub fn read(bytes: &[u8]) -> Result<Transform, String> {
        let mut reader = Reader(bytes);
        let input = dimension(reader.u32()?)?;
        let count = reader.u32()?;
        let (mut stages, mut dim, mut steps) = (Vec::new(), input, 0);
        for _ in 0..count {
            let stage = match reader.u8()? {
                0 => TransformStage::Normalize(dim),
                kind @ (1 | 2) => {
                    let mean = reader.floats(if kind == 2 { dim } else { 0 })?;
                    let mut linear = Linear { input: dim, mean, steps: Vec::new() };
                    for _ in 0..reader.u32()? {
                        steps += 1;
                        if steps > MOST_STEPS {
                            return Err(format!("more than {MOST_STEPS} steps"));
                        }
                        linear.steps.push(read_step(linear.output(), &mut reader)?);
                    }
                    TransformStage::Linear(linear)
                }
                3 => {
                    let output = dimension(reader.u32()?)?;
                    let matrix = DenseMatrix::new(dim, output, reader.floats(dim * output)?);
                    TransformStage::Affine(matrix, reader.floats(output)?)
                }
                other => return Err(format!("a stage of the unknown kind {other}")),
            };
            dim = stage.output();
            stages.push(stage);
        }
        reader.end()?;
        Ok(Transform { input, stages })
    }
}

fn dimension(dim: usize) -> Result<usize, String> {
    if (1..=MOST_DIM).contains(&dim) { Ok(dim) } else { Err(format!("vectors of {dim} components")) }
}

fn write_step(step: &LinearStep, out: &mut Writer) {
    match step {
        LinearStep::Resize(dim) => {
            out.u8(0);
            out.u32(*dim);
        }
        LinearStep::Turn(turn) => {
            out.u8(1);
            out.u64(turn.seed);
        }
        LinearStep::Times(matrix) => {
            out.u8(2);
            out.u32(matrix.output);
            out.floats(&matrix.rows);
        }
    }
}

fn read_step(dim: usize, reader: &mut Reader<'_>) -> Result<LinearStep, String> {
    Ok(match reader.u8()? {
        0 => LinearStep::Resize(dimension(reader.u32()?)?),
        1 if dim.is_multiple_of(2) => LinearStep::Turn(Hadamard::new(dim, reader.u64()?)),
        1 => return Err(format!("a fast rotation of {dim} components, which is odd")),
        2 => {
            let output = dimension(reader.u32()?)?;
            LinearStep::Times(DenseMatrix::new(dim, output, reader.floats(dim * output)?))
        }
        other => return Err(format!("a step of the unknown kind {other}")),
    })
}

/// Runs all stages on vectors; what is dropped is added to `lost`, where that is not empty.
fn apply(stages: &[TransformStage], mut vectors: Vec<f32>, lost: &mut [f32]) -> Vec<f32> {
    for stage in stages {
        match stage {
            TransformStage::Linear(linear) => {
                vectors = linear.apply(vectors, if linear.drops() { &mut *lost } else { &mut [] })
            }
            TransformStage::Affine(matrix, added) => {
                let mut out = vec![0.0; vectors.len() / matrix.input * matrix.output];
                matrix.times(&vectors, &mut out);
                for row in out.chunks_exact_mut(matrix.output) {
                    row.iter_mut().zip(added).for_each(|(x, a)| *x += a);
                }
                vectors = out;
            }
            TransformStage::Normalize(dim) => {
                vectors.chunks_exact_mut(*dim).for_each(normalize);
                lost.fill(0.0);
            }
        }
    }
    vectors
}

fn normalize(row: &mut [f32]) {
    let square: f64 = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    if square > 0.0 {
        let by = square.sqrt().recip();
        row.iter_mut().for_each(|x| *x = (f64::from(*x) * by) as f32);
    }
}

/// Chunks of rows on all threads.
fn over_rows(rows: &[f32], dim: usize, work: impl Fn(Vec<f32>) -> Vec<f32> + Sync) -> Vec<f32> {
    threads::map(1, rows.chunks(96 * dim), |rows| work(rows.to_vec())).concat()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{clustered, view};
    use super::*;
    use crate::linalg::dot;

    fn train(specs: &[TransformSpec], dim: usize) -> Transform {
        let rows = clustered(21, 500, dim);
        Transform::train(specs, Metric::L2, view(&rows, dim), 5, &mut Vec::new()).expect("a transform that fits")
    }

    fn distance(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum()
    }

    #[test]
    fn row_b7_rotations_keep_distances_and_projections_say_what_they_drop() {
        use TransformSpec::{Centre, Opq, Pad, Pca, Rotation, Slice};
        let chains: [(&[TransformSpec], usize); 10] = [
            (&[Rotation { dim: None }], 40),
            (&[Rotation { dim: None }], 64),
            (&[Rotation { dim: None }], 192),
            (&[Rotation { dim: Some(50) }], 64),
            (&[Rotation { dim: Some(96) }], 64),
            (&[Centre, Pca { dim: 24, rotate: true }], 40),
            (&[Pca { dim: 64, rotate: true }], 64),
            (&[Pad { dim: 64 }, Rotation { dim: None }], 45),
            (&[Slice { dim: 30 }], 40),
            (&[Opq { parts: 8, dim: Some(32) }, Rotation { dim: None }], 48),
        ];
        for (specs, dim) in chains {
            let transform = train(specs, dim);
            let rows = clustered(22, 60, dim);
            let out = transform.apply(&RowsView::F32(view(&rows, dim)));
            let to = transform.output_dim();
            assert_eq!(out.rows.len(), 60 * to);
            assert_eq!(out.lost.is_empty(), to >= dim, "{specs:?}");
            assert!(out.lost.iter().all(|&l| l >= 0.0));
            let y = |i: usize| &out.rows[i * to..(i + 1) * to];
            for i in 1..60 {
                let exact = distance(&rows[..dim], &rows[i * dim..(i + 1) * dim]);
                let kept = distance(y(0), y(i));
                let slack = 1e-4 * exact.abs();
                let (a, b) =
                    (out.lost.first().map_or(0.0, |&l| f64::from(l)), out.lost.get(i).map_or(0.0, |&l| f64::from(l)));
                // |d - e|^2 lies between (|d| - |e|)^2 and (|d| + |e|)^2.
                assert!(kept + (a.sqrt() - b.sqrt()).powi(2) <= exact + slack, "{specs:?}: {kept} of {exact}");
                assert!(kept + (a.sqrt() + b.sqrt()).powi(2) >= exact - slack, "{specs:?}: {kept} of {exact}");
            }
        }
    }

    #[test]
    fn row_b7_folded_stages_are_the_stages_one_after_the_other() {
        use TransformSpec::{Centre, Normalize, Pca, Rotation, Slice};
        let dim = 80;
        let specs = [Centre, Pca { dim: 64, rotate: false }, Rotation { dim: None }, Slice { dim: 40 }, Normalize];
        let sample = clustered(21, 500, dim);
        let folded = train(&specs, dim);
        assert_eq!(folded.stages.len(), 2);
        let (mut rows, mut width) = (sample, dim);
        for (i, spec) in specs.iter().enumerate() {
            let one =
                Transform::train(std::slice::from_ref(spec), Metric::L2, view(&rows, width), 5 + i as u64, &mut vec![]);
            rows = one.as_ref().expect("fits").apply(&RowsView::F32(view(&rows, width))).rows;
            width = one.expect("fits").output_dim();
        }
        let found = folded.apply(&RowsView::F32(view(&clustered(21, 500, dim), dim)));
        assert!(found.rows.iter().zip(&rows).all(|(a, b)| (a - b).abs() < 1e-4));
        // Scaled to length 1, nothing of the original length is known any more.
        assert!(found.lost.iter().all(|&l| l == 0.0));
        // A mean behind a projection is a stage of its own.
        assert_eq!(train(&[Slice { dim: 40 }, Centre], dim).stages.len(), 2);
    }

    #[test]
    fn row_b7_pca_keeps_what_faiss_keeps_most_variance_first_without_a_mean() {
        let dim = 40;
        let transform = train(&[TransformSpec::Pca { dim: 10, rotate: false }], dim);
        let rows = clustered(21, 500, dim);
        let out = transform.apply(&RowsView::F32(view(&rows, dim)));
        let moment = |j: usize, power: i32| out.rows.chunks(10).map(|r| r[j].powi(power)).sum::<f32>() / 500.0;
        let variances: Vec<f32> = (0..10).map(|j| moment(j, 2)).collect();
        assert!(variances.windows(2).all(|w| w[0] > w[1] * 0.999), "{variances:?}");
        assert!((0..10).all(|j| moment(j, 1).abs() < 1e-3));
        let dropped: f32 = out.lost.iter().sum::<f32>() / 500.0;
        assert!(dropped < variances.iter().sum::<f32>() * 0.4, "{dropped} dropped of {variances:?}");
        // For inner product the mean stays, as its order would change.
        let ip = Transform::train(
            &[TransformSpec::Pca { dim: 40, rotate: false }],
            Metric::InnerProduct,
            view(&rows, dim),
            5,
            &mut Vec::new(),
        );
        let turned = ip.expect("fits").apply(&RowsView::F32(view(&rows, dim))).rows;
        let (before, after) = (dot(&rows[..dim], &rows[dim..2 * dim]), dot(&turned[..dim], &turned[dim..2 * dim]));
        assert!((before - after).abs() < 1e-3 * before.abs().max(1.0), "{before} {after}");
    }

    #[test]
    fn transforms_are_read_as_they_were_written_and_never_trusted() {
        use TransformSpec::{Centre, Normalize, Pad, Pca, Rotation};
        let dim = 20;
        let specs =
            [Normalize, Centre, Pca { dim: 8, rotate: false }, Pad { dim: 64 }, Normalize, Rotation { dim: None }];
        let transform = train(&specs, dim);
        let bytes = transform.write();
        assert_eq!(Transform::read(&bytes).expect("what was written"), transform);
        for cut in 0..bytes.len() {
            assert!(Transform::read(&bytes[..cut]).is_err());
        }
        for i in 0..bytes.len() {
            for change in [1, 0x7f, 0xff] {
                let mut other = bytes.clone();
                other[i] ^= change;
                if let Ok(other) = Transform::read(&other)
                    && other.input_dim() == dim
                {
                    let _ = other.apply(&RowsView::F32(view(&[1.0; 20], dim)));
                }
            }
        }
        let zeros = transform.apply(&RowsView::F32(view(&[0.0; 20], dim)));
        assert!(zeros.rows.iter().all(|x| x.is_finite()));
    }

    #[test]
    fn what_does_not_fit_names_the_token() {
        use TransformSpec::{Opq, Pad, Pca, Slice};
        let rows = clustered(1, 50, 24);
        for (spec, words) in [
            (Pca { dim: 25, rotate: false }, "`PCA25` on vectors of 24 components; it takes 1 to 24"),
            (Pad { dim: 8 }, "`Pad8` on vectors of 24 components; it takes 24 to 65536"),
            (Slice { dim: 0 }, "`Slice0` on vectors of 24 components; it takes 1 to 24"),
            (Opq { parts: 7, dim: None }, "`OPQ7`: 24 components can't be split into 7 equal parts; 6 or 8 would fit"),
        ] {
            let error = Transform::train(&[spec], Metric::L2, view(&rows, 24), 1, &mut Vec::new());
            assert_eq!(error.expect_err("does not fit").to_string(), words);
        }
        let nan = [1.0, f32::NAN];
        let error = Transform::train(&[Slice { dim: 1 }], Metric::L2, view(&nan, 2), 1, &mut Vec::new());
        assert!(error.expect_err("not a number").to_string().contains("row 0, component 1 is NaN"));
        let mut warnings = Vec::new();
        Transform::train(&[Pca { dim: 4, rotate: false }], Metric::L2, view(&rows[..240], 24), 1, &mut warnings)
            .expect("few rows are enough");
        assert!(warnings[0].starts_with("`PCA4`: 10 training rows"), "{warnings:?}");
    }

    #[test]
    #[ignore = "times"]
    fn timing() {
        for (n, dim, specs) in [
            (200_000, 128, vec![TransformSpec::Rotation { dim: None }]),
            (50_000, 384, vec![TransformSpec::Rotation { dim: None }]),
            (200_000, 128, vec![TransformSpec::Pca { dim: 64, rotate: false }]),
            (60_000, 784, vec![TransformSpec::Rotation { dim: None }]),
            (50_000, 384, vec![TransformSpec::Pca { dim: 384, rotate: false }]),
        ] {
            let rows = clustered(1, n, dim);
            let start = std::time::Instant::now();
            let t = Transform::train(&specs, Metric::L2, view(&rows, dim), 1, &mut vec![]).unwrap();
            let trained = start.elapsed();
            let start = std::time::Instant::now();
            t.apply(&RowsView::F32(view(&rows, dim)));
            println!("{n} x {dim} {specs:?}: trained {trained:?}, applied {:?}", start.elapsed());
        }
    }
}
