//! `segment_sum` against its reference in f64.

use nearfield::compute::{EngineError, Input, Output, Tag, Vectors};
use nearfield::ops::segment_sum::{Sizes, reference, tolerance};
use nearfield::ops::{Assign, Pairs, Program, SegmentSum};
use nearfield::{MatrixView, Metric};

use crate::Subject;
use crate::data::Rng;

struct Case {
    sizes: Sizes,
    rows: Vec<f32>,
    labels: Vec<u32>,
}

impl Case {
    /// Rows of which the first segment has half, some have none, and some are of none.
    fn new((rows, dim, segments): (usize, usize, usize)) -> Case {
        let mut rng = Rng::new((rows + dim) as u64);
        let values = (0..rows * dim).map(|_| rng.normal() as f32).collect();
        let label = |rng: &mut Rng| match rng.below(8) {
            0..4 => 0,
            4 => u32::MAX,
            _ => rng.below(segments) as u32,
        };
        let labels = (0..rows).map(|_| label(&mut rng)).collect();
        Case { sizes: Sizes { rows, dim, segments }, rows: values, labels }
    }

    fn run(&self, s: &Subject, tag: Option<&Tag>) -> Vec<f32> {
        let view = MatrixView::new(&self.rows, self.sizes.dim).expect("whole rows");
        let inputs = [
            Input::Vectors(Vectors { rows: view.into(), norms: None, tag }),
            Input::Positions { positions: &self.labels, width: 1 },
        ];
        let mut program = Program::new();
        let [rows, labels] = [0, 1].map(|i| program.input(inputs[i].ty().expect("whole inputs")));
        let sums = program.push(SegmentSum { rows, labels, segments: self.sizes.segments }).expect("shapes that fit");
        program.output(sums);
        match s.engine.run(&program, &inputs).wait().expect("sums").outputs.pop() {
            Some(Output::Matrix(found)) => found,
            other => panic!("{}: {other:?}", s.engine.name()),
        }
    }

    #[track_caller]
    fn check(&self, s: &Subject, found: &[f32]) {
        let (wanted, magnitudes) = reference(self.sizes, &self.rows, &self.labels);
        assert_eq!(found.len(), wanted.len());
        for (i, ((&found, &wanted), &magnitude)) in found.iter().zip(&wanted).zip(&magnitudes).enumerate() {
            let near = (f64::from(found) - wanted).abs() <= tolerance(magnitude);
            let (name, sizes) = (s.engine.name(), self.sizes);
            assert!(near, "{name}: {sizes:?}: number {i} is {found}, wanted {wanted}");
        }
    }
}

/// Rows narrower and wider than a workgroup, segments of one row and of several pieces.
pub fn row_b7_sizes(s: &Subject) {
    for size in [(1, 1, 1), (300, 3, 5), (2000, 16, 40), (999, 129, 3), (500, 300, 700), (70_000, 4, 2)] {
        let case = Case::new(size);
        let found = case.run(s, None);
        case.check(s, &found);
    }
}

/// The same bits from rows that stay on the device, again and again.
pub fn row_e6_same_bits_twice(s: &Subject) {
    let (case, tag) = (Case::new((3000, 48, 9)), Tag::new());
    let found = case.run(s, Some(&tag));
    case.check(s, &found);
    assert_eq!(case.run(s, Some(&tag)), found, "{}", s.engine.name());
    assert_eq!(case.run(s, None), found, "{}", s.engine.name());
}

/// Points are assigned and summed in one program, as k-means does.
pub fn row_b7_after_an_assignment(s: &Subject) {
    let case = Case::new((900, 20, 11));
    let view = MatrixView::new(&case.rows, 20).expect("whole rows");
    let centroids = MatrixView::new(&case.rows[..11 * 20], 20).expect("whole rows");
    let norms = |m: MatrixView<'_, f32>| -> Vec<f32> {
        (0..m.rows()).map(|r| m.row(r).iter().map(|x| x * x).sum::<f32>().sqrt()).collect()
    };
    let (of_points, of_centroids) = (norms(view), norms(centroids));
    let inputs = [
        Input::Vectors(Vectors { rows: centroids.into(), norms: Some(&of_centroids), tag: None }),
        Input::Vectors(Vectors { rows: view.into(), norms: Some(&of_points), tag: None }),
    ];
    let mut program = Program::new();
    let [rows, queries] = [0, 1].map(|i| program.input(inputs[i].ty().expect("whole inputs")));
    let pairs = Pairs { metric: Metric::L2, rows, queries, mask: None };
    let labels = program.push(Assign { pairs, codes: None, known: None }).expect("shapes that fit");
    let sums = program.push(SegmentSum { rows: queries, labels, segments: 11 }).expect("shapes that fit");
    program.output(labels);
    program.output(sums);
    let outputs = s.engine.run(&program, &inputs).wait().expect("sums").outputs;
    let [Output::Candidates(labels), Output::Matrix(sums)] = &outputs[..] else { panic!("{outputs:?}") };
    Case { labels: labels.positions.clone(), ..case }.check(s, sums);
}

/// Nothing to sum is zeros.
pub fn row_e7_empty(s: &Subject) {
    let case = Case { sizes: Sizes { rows: 0, dim: 3, segments: 2 }, rows: Vec::new(), labels: Vec::new() };
    assert_eq!(case.run(s, None), [0.0; 6], "{}", s.engine.name());
}

/// Labels that are too few are an error before anything runs, one past the last segment when it does.
pub fn wrong_shapes_are_errors(s: &Subject) {
    let case = Case::new((5, 2, 3));
    let view = MatrixView::new(&case.rows, 2).expect("whole rows");
    let of_rows = Input::Vectors(Vectors { rows: view.into(), norms: None, tag: None });
    let mut program = Program::new();
    let rows = program.input(of_rows.ty().expect("rows"));
    let few = program.input(Input::Positions { positions: &[0; 4], width: 1 }.ty().expect("positions"));
    let wrong = program.push(SegmentSum { rows, labels: few, segments: 3 });
    assert!(matches!(wrong, Err(EngineError::Mismatch(_))), "{wrong:?}");
    let past = Input::Positions { positions: &[0, 1, 2, 3, 0], width: 1 };
    let mut program = Program::new();
    let rows = program.input(of_rows.ty().expect("rows"));
    let labels = program.input(past.ty().expect("positions"));
    let sums = program.push(SegmentSum { rows, labels, segments: 3 }).expect("shapes that fit");
    program.output(sums);
    let outcome = s.engine.run(&program, &[of_rows, past]).wait();
    assert!(matches!(outcome, Err(EngineError::Mismatch(_))), "{outcome:?}");
}
