//! One linear stage of a transform: a mean is taken off, then come projections and rotations.

use super::matrix::Matrix;
use super::query::dot;
use super::rotation::{Hadamard, LANES};
use crate::simd::{Kernel, Simd, Token};

/// What happens to vectors without their mean.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// Components are cut off, or zeros appended, up to so many.
    Resize(usize),
    /// A fast rotation.
    Turn(Hadamard),
    /// A matrix with orthonormal columns or rows.
    Times(Matrix),
}

impl Step {
    /// Components afterwards.
    pub fn output(&self) -> usize {
        match self {
            Step::Resize(dim) => *dim,
            Step::Turn(turn) => turn.dim,
            Step::Times(matrix) => matrix.output,
        }
    }
}

/// A mean, and steps that keep lengths or drop components: all lengths lost are lost by projections.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Linear {
    pub input: usize,
    /// Taken off first; empty when there is none.
    pub mean: Vec<f32>,
    pub steps: Vec<Step>,
}

impl Linear {
    /// Components afterwards.
    pub fn output(&self) -> usize {
        self.steps.last().map_or(self.input, Step::output)
    }

    /// Whether vectors may get shorter.
    pub fn drops(&self) -> bool {
        let mut dim = self.input;
        self.steps.iter().any(|step| std::mem::replace(&mut dim, step.output()) > step.output())
    }

    /// Whether another stage may be folded into this one: its mean must come before what drops or turns.
    pub fn takes(&self, other: &Linear) -> bool {
        other.mean.is_empty() || self.steps.is_empty()
    }

    /// This stage and then the other.
    pub fn then(mut self, other: Linear) -> Linear {
        if self.mean.is_empty() {
            self.mean = other.mean;
        } else {
            self.mean.iter_mut().zip(&other.mean).for_each(|(a, b)| *a += b);
        }
        self.steps.extend(other.steps);
        self
    }

    /// The same with one matrix in the place of all steps, where there is a matrix among them.
    pub fn folded(self) -> Linear {
        if self.steps.len() < 2 || !self.steps.iter().any(|step| matches!(step, Step::Times(_))) {
            return self;
        }
        let input = self.input;
        let mut unit = vec![0.0; input * input];
        unit.iter_mut().step_by(input + 1).for_each(|x| *x = 1.0);
        let rows = self.run(unit, input);
        let steps = vec![Step::Times(Matrix::new(input, self.output(), rows))];
        Linear { steps, ..self }
    }

    /// The vectors `[n, input]` after the stage; adds what was dropped of each to `lost`, where that is not empty.
    pub fn apply(&self, mut vectors: Vec<f32>, lost: &mut [f32]) -> Vec<f32> {
        for row in vectors.chunks_exact_mut(self.input) {
            row.iter_mut().zip(&self.mean).for_each(|(x, m)| *x -= m);
        }
        let before: Vec<f32> = vectors.chunks_exact(self.input).take(lost.len()).map(|x| dot(x, x)).collect();
        let count = vectors.len() / self.input;
        let out = self.run(vectors, count);
        for ((lost, before), y) in lost.iter_mut().zip(&before).zip(out.chunks_exact(self.output())) {
            *lost += (before - dot(y, y)).max(0.0);
        }
        out
    }

    fn run(&self, mut vectors: Vec<f32>, count: usize) -> Vec<f32> {
        let mut dim = self.input;
        let mut steps = &self.steps[..];
        while let Some(step) = steps.first() {
            let mut passed = 1;
            let mut out = vec![0.0; count * step.output()];
            if let Step::Times(matrix) = step {
                matrix.times(&vectors, &mut out);
            } else {
                // Steps of one block are taken together.
                passed = steps.iter().take_while(|step| !matches!(step, Step::Times(_))).count();
                let output = steps[passed - 1].output();
                out.resize(count * output, 0.0);
                Token::best().run(Blocks {
                    steps: &steps[..passed],
                    input: dim,
                    output,
                    vectors: &vectors,
                    out: &mut out,
                });
            }
            dim = steps[passed - 1].output();
            vectors = out;
            steps = &steps[passed..];
        }
        vectors
    }
}

/// Steps that work on as many vectors at a time as a block has lanes.
struct Blocks<'a> {
    steps: &'a [Step],
    input: usize,
    output: usize,
    vectors: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for Blocks<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut block = vec![[0.0f32; LANES]; self.input];
        let parts = self.vectors.chunks(LANES * self.input).zip(self.out.chunks_mut(LANES * self.output));
        for (vectors, out) in parts {
            block.resize(self.input, [0.0; LANES]);
            load(vectors, self.input, &mut block);
            for step in self.steps {
                match step {
                    Step::Turn(turn) => turn.turn(s, &mut block),
                    step => block.resize(step.output(), [0.0; LANES]),
                }
            }
            for (lane, row) in out.chunks_exact_mut(self.output).enumerate() {
                row.iter_mut().zip(&block).for_each(|(x, b)| *x = b[lane]);
            }
        }
    }
}

/// Up to 16 vectors, component by component.
#[inline(always)]
pub(super) fn load(vectors: &[f32], dim: usize, block: &mut [[f32; LANES]]) {
    for (lane, row) in vectors.chunks_exact(dim).enumerate() {
        block.iter_mut().zip(row).for_each(|(b, x)| b[lane] = *x);
    }
}
