//! `matmul` against its reference in f64; products that stay on the device and feed the next program.

use nearfield::compute::{Array, EngineError, Input, Output};
use nearfield::ops::matmul::{Sizes, reference, tolerance};
use nearfield::ops::{Matmul, Program, SelectK};

use crate::Subject;
use crate::data::Rng;

fn random(count: usize, seed: u64) -> Vec<f32> {
    let mut rng = Rng::new(seed);
    (0..count).map(|_| rng.normal() as f32).collect()
}

/// A matrix `[rows, columns]`, by rows or by columns.
struct Sides {
    sizes: Sizes,
    transposed: bool,
    a: Vec<f32>,
    b: Vec<f32>,
}

impl Sides {
    fn new((rows, inner, columns): (usize, usize, usize), transposed: bool) -> Sides {
        let sizes = Sizes { rows, inner, columns };
        Sides { sizes, transposed, a: random(rows * inner, 1), b: random(inner * columns, 2) }
    }

    fn inputs(&self) -> [Input<'_>; 2] {
        let Sizes { rows, inner, columns } = self.sizes;
        let of_b = if self.transposed { [columns, inner] } else { [inner, columns] };
        [Input::Matrix { values: &self.a, shape: [rows, inner] }, Input::Matrix { values: &self.b, shape: of_b }]
    }

    fn program(&self) -> Program {
        let inputs = self.inputs();
        let mut program = Program::new();
        let [a, b] = inputs.map(|input| program.input(input.ty().expect("a whole matrix")));
        let product = program.push(Matmul { a, b, transposed: self.transposed }).expect("sizes that fit");
        program.output(product);
        program
    }

    /// Lengths of the rows of a and of the columns of b.
    fn lengths(&self) -> (Vec<f64>, Vec<f64>) {
        let Sizes { rows, inner, columns } = self.sizes;
        let b = |d: usize, c: usize| if self.transposed { self.b[c * inner + d] } else { self.b[d * columns + c] };
        let length = |values: &mut dyn Iterator<Item = f32>| values.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        let of_a = (0..rows).map(|r| length(&mut self.a[r * inner..(r + 1) * inner].iter().copied()));
        let of_b = (0..columns).map(|c| length(&mut (0..inner).map(|d| b(d, c))));
        (of_a.collect(), of_b.collect())
    }

    #[track_caller]
    fn check(&self, what: &str, found: &[f32]) {
        let wanted = reference(self.sizes, &self.a, &self.b, self.transposed);
        let (of_a, of_b) = self.lengths();
        assert_eq!(found.len(), wanted.len(), "{what}");
        for (i, (&found, &wanted)) in found.iter().zip(&wanted).enumerate() {
            let (row, column) = (i / self.sizes.columns, i % self.sizes.columns);
            let bound = tolerance(self.sizes.inner, of_a[row], of_b[column]);
            let near = (f64::from(found) - wanted).abs() <= bound;
            assert!(near, "{what}: {found} at ({row}, {column}) should be {wanted} within {bound:e}");
        }
    }
}

fn run(s: &Subject, program: &Program, inputs: &[Input<'_>]) -> Result<Output, EngineError> {
    let mut answer = s.engine.run(program, inputs).wait()?;
    Ok(answer.outputs.pop().expect("one output"))
}

fn array(output: Result<Output, EngineError>) -> Array {
    match output {
        Ok(Output::Array(array)) => array,
        other => panic!("a product that stays was wanted, got {other:?}"),
    }
}

/// Sizes on, below and above the edges of tiles, both ways that b may lie.
pub fn row_f1_sizes_at_tile_edges(s: &Subject) {
    for size in [(1, 1, 1), (64, 16, 64), (65, 17, 63), (3, 300, 130), (130, 5, 1), (200, 64, 129)] {
        for transposed in [false, true] {
            let sides = Sides::new(size, transposed);
            match run(s, &sides.program(), &sides.inputs()) {
                Ok(Output::Matrix(found)) => {
                    sides.check(&format!("{}: {size:?}, transposed {transposed}", s.engine.name()), &found);
                }
                other => panic!("{}: {size:?}: {other:?}", s.engine.name()),
            }
        }
    }
}

/// Without rows, columns or components there is nothing, or zeros.
pub fn row_e7_empty(s: &Subject) {
    for (size, wanted) in [((0, 4, 3), 0), ((3, 4, 0), 0), ((2, 0, 3), 6)] {
        let sides = Sides::new(size, true);
        let found = run(s, &sides.program(), &sides.inputs());
        assert_eq!(found, Ok(Output::Matrix(vec![0.0; wanted])), "{}: {size:?}", s.engine.name());
    }
}

/// Two values on the device give a third that stays there, and that one feeds the next program.
pub fn row_f2_products_stay_on_the_device(s: &Subject) {
    let sides = Sides::new((70, 40, 90), true);
    let put = |input: Input<'_>| {
        let mut program = Program::new();
        let value = program.input(input.ty().expect("a whole matrix"));
        program.keep(value);
        array(run(s, &program, &[input]))
    };
    let [a, b] = sides.inputs().map(put);
    let mut program = Program::new();
    let operands = [Input::Array(&a), Input::Array(&b)];
    let [x, y] = operands.map(|input| program.input(input.ty().expect("an array")));
    let product = program.push(Matmul { a: x, b: y, transposed: true }).expect("sizes that fit");
    program.keep(product);
    let product = array(run(s, &program, &operands));
    assert_eq!(product.shape(), [70, 90]);
    // Read back as it is.
    let mut program = Program::new();
    let value = program.input(Input::Array(&product).ty().expect("an array"));
    program.output(value);
    let Ok(Output::Matrix(found)) = run(s, &program, &[Input::Array(&product)]) else { panic!("not read back") };
    sides.check(&s.engine.name(), &found);
    // The next program selects from it.
    let mut program = Program::new();
    let from = program.input(Input::Array(&product).ty().expect("an array"));
    let best = program.push(SelectK { from, k: 1 }).expect("a matrix");
    program.output(best);
    let Ok(Output::Candidates(best)) = run(s, &program, &[Input::Array(&product)]) else { panic!("nothing selected") };
    for (row, key) in found.chunks(90).zip(&best.keys) {
        assert_eq!(row.iter().copied().fold(f32::INFINITY, f32::min), *key, "{}", s.engine.name());
    }
}

/// Sizes that do not fit are an error before anything runs; an array of another engine is one when it does.
pub fn wrong_shapes_are_errors(s: &Subject) {
    let mut program = Program::new();
    let sides = Sides::new((3, 4, 5), false);
    let [a, b] = sides.inputs().map(|input| program.input(input.ty().expect("a whole matrix")));
    let wrong = program.push(Matmul { a, b, transposed: true });
    assert!(matches!(wrong, Err(EngineError::Mismatch(_))), "{wrong:?}");
    let shorter = [sides.inputs()[0], Input::Matrix { values: &sides.b[1..], shape: [4, 5] }];
    let outcome = s.engine.run(&sides.program(), &shorter).wait();
    assert!(matches!(outcome, Err(EngineError::Mismatch(_))), "{outcome:?}");
}
