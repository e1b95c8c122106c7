//! What a program will take on an engine.
//!
//! The model is a few measured curves, seconds over work, for passes with and without a screen and for few and many
//! queries; between them it interpolates. Work is operations plus a fixed number for each pair of query and row. No
//! curve covers metrics or element types. The model learns these: for each sort of search it keeps the ratio of measured
//! to predicted time, and multiplies later predictions by it.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use crate::ops::lists::Form;
use crate::ops::{Chain, Cost, Extent, Op, Pairs, Program, Screen};
use crate::types::{DType, Metric};

/// Numbers beyond these are no measurement.
const SECONDS: std::ops::RangeInclusive<f64> = 1e-9..=1e3;
const WORK: std::ops::RangeInclusive<f64> = 1.0..=1e18;
const RATE: std::ops::RangeInclusive<f64> = 1e5..=1e14;
const FACTOR: std::ops::RangeInclusive<f64> = 0.5..=1e4;
const OVERHEAD: std::ops::RangeInclusive<f64> = 0.0..=1e4;

/// Seconds over work for so many queries at a time, behind a screen or not.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curve {
    /// Whether the pass is the f32 screen with what follows it.
    pub screened: bool,
    /// Queries of the batch.
    pub queries: usize,
    /// Work and seconds, both rising.
    pub points: Vec<(f64, f64)>,
}

impl Curve {
    /// Seconds for so much work: a straight line between logarithms; below the first point its time, above the last in
    /// proportion to what the last two differ by.
    pub fn seconds(&self, work: f64) -> f64 {
        let (Some(&first), Some(&last)) = (self.points.first(), self.points.last()) else { return 0.0 };
        if work <= first.0 {
            return first.1;
        }
        if let Some(pair) = self.points.windows(2).find(|pair| work <= pair[1].0) {
            let t = (work / pair[0].0).ln() / (pair[1].0 / pair[0].0).ln();
            return (pair[0].1.ln() * (1.0 - t) + pair[1].1.ln() * t).exp();
        }
        let before = self.points.len().checked_sub(2).and_then(|i| self.points.get(i)).copied().unwrap_or((0.0, 0.0));
        let slope = (last.1 - before.1) / (last.0 - before.0);
        last.1 + (work - last.0) * slope.max(0.1 * last.1 / last.0)
    }
}

/// What was measured on an engine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Calibration {
    /// In the order of (screened, queries); at least one without a screen.
    pub curves: Vec<Curve>,
    /// Operations that a pair of query and row is worth beside those that its components cost: with and without a screen.
    pub overhead: [f64; 2],
    /// How many times longer a search takes with k = 100 and with k = 200 than with k = 10.
    pub wide: [f64; 2],
    /// Bytes per second from the memory that holds the rows.
    pub bytes_per_second: f64,
    /// Bytes per second between host and device; absent where there is nothing between them.
    pub transfer: Option<f64>,
}

impl Calibration {
    /// What a device with these figures would have: `fixed` seconds per call and so many operations and bytes per second. For
    /// tests and for devices that nobody measured.
    pub fn simple(fixed: f64, operations_per_second: f64, bytes_per_second: f64, transfer: Option<f64>) -> Calibration {
        let points: Vec<(f64, f64)> =
            (3..=12).map(|e| f64::powi(10.0, e)).map(|work| (work, fixed + work / operations_per_second)).collect();
        let curve = |screened| Curve { screened, queries: 1, points: points.clone() };
        Calibration {
            curves: vec![curve(false), curve(true)],
            overhead: [0.0; 2],
            wide: [1.0; 2],
            bytes_per_second,
            transfer,
        }
    }

    /// The least that a call takes.
    pub fn fixed(&self) -> f64 {
        let firsts = self.curves.iter().filter_map(|c| c.points.first()).map(|p| p.1);
        firsts.fold(f64::INFINITY, f64::min).min(1.0)
    }

    /// Seconds of a pass over the rows.
    fn pass(&self, screened: bool, queries: usize, pairs: f64, cost: &Cost) -> f64 {
        let measured = |s| self.curves.iter().filter(move |c| c.screened == s && !c.points.is_empty());
        // An engine that was not measured behind a screen is taken to be as fast as without.
        let screened = screened && measured(true).next().is_some();
        let work = cost.operations + pairs * self.overhead[usize::from(screened)];
        let below = measured(screened).rfind(|c| c.queries <= queries);
        let above = measured(screened).find(|c| c.queries > queries);
        let seconds = match (below, above) {
            (Some(a), Some(b)) => {
                let t = (queries as f64 / a.queries as f64).ln() / (b.queries as f64 / a.queries as f64).ln();
                (a.seconds(work).ln() * (1.0 - t) + b.seconds(work).ln() * t).exp()
            }
            (Some(one), None) | (None, Some(one)) => one.seconds(work),
            (None, None) => 0.0,
        };
        // Rows must at least be read.
        seconds.max(self.fixed() * 0.5 + cost.bytes_read / self.bytes_per_second)
    }

    /// What more places per query cost.
    fn wider(&self, k: usize) -> f64 {
        let [hundred, beyond] = self.wide;
        match k {
            0..=10 => 1.0,
            11..=128 => hundred.powf((k as f64 / 10.0).log10()),
            _ => beyond.max(1.0),
        }
    }

    /// Predicted seconds of each operation. Those that a device runs in one go share the fixed cost of a call.
    pub fn steps(&self, program: &Program) -> Vec<f64> {
        let costs = program.costs();
        let rate = self.rate();
        let small =
            |cost: &Cost| (cost.operations / rate).max((cost.bytes_read + cost.bytes_written) / self.bytes_per_second);
        let back = |cost: &Cost| self.transfer.map_or(0.0, |bps| cost.bytes_written / bps);
        let pass = |pairs: &Pairs, screened: bool, cost: &Cost| {
            let extent = pairs.extent(program).ok();
            extent.map_or(0.0, |e| self.pass(screened, e.queries, e.rows as f64 * e.queries as f64, cost))
        };
        let mut seconds: Vec<f64> = program
            .operations()
            .zip(&costs)
            .enumerate()
            .map(|(i, ((value, op), cost))| match op {
                Op::Search(search) => {
                    let k = Chain::after(program, value, &search.pairs).k.unwrap_or(search.keep);
                    pass(&search.pairs, search.screen != Screen::None, cost) * self.wider(k)
                }
                Op::Assign(assign) => pass(&assign.pairs, true, cost),
                Op::Distance(distance) => pass(&distance.pairs, false, cost) + back(cost),
                Op::Range(range) => pass(&range.pairs, false, cost) + back(cost),
                Op::Scan(scan) => {
                    let (slots, queries) = scan.extent(program);
                    // Only a share of the lists is probed.
                    let (probes, lists) = scan.share;
                    let pairs = slots as f64 * queries as f64 * probes.min(lists) as f64 / lists.max(1) as f64;
                    self.pass(false, queries, pairs, cost) * self.wider(scan.keep) + back(cost)
                }
                Op::Normalize(_) => self.fixed() + small(cost) + back(cost),
                Op::Refine(_) | Op::SelectK(_) | Op::Matmul(_) | Op::SegmentSum(_) if i == 0 => {
                    self.fixed() + small(cost) + back(cost)
                }
                Op::Refine(_) | Op::SelectK(_) | Op::Matmul(_) | Op::Host(_) => small(cost),
                Op::SegmentSum(_) => small(cost) + back(cost),
            })
            .collect();
        // A screened pass was measured together with what follows it.
        for (i, (value, op)) in program.operations().enumerate() {
            if let Op::Search(search) = op
                && search.screen != Screen::None
                && Chain::after(program, value, &search.pairs).refined
                && let Some([first, rest @ ..]) = seconds.get_mut(i..i + 3)
            {
                let after: f64 = rest.iter().sum();
                let share = if after > 0.5 * *first { 0.5 * *first / after } else { 1.0 };
                rest.iter_mut().for_each(|s| *s *= share);
                *first -= after * share;
            }
        }
        seconds
    }

    /// Predicted seconds of a program whose rows lie where the engine wants them, but for `missing` bytes.
    pub fn seconds(&self, program: &Program, missing: u64) -> f64 {
        self.steps(program).iter().sum::<f64>() + self.transfer.map_or(0.0, |bps| missing as f64 / bps)
    }

    /// Operations per second of a long pass without a screen.
    fn rate(&self) -> f64 {
        let longest = self.curves.iter().filter(|c| !c.screened).filter_map(|c| c.points.last());
        longest.map(|&(work, seconds)| work / seconds).fold(1e6, f64::max)
    }

    /// Compares every number with what it may be.
    pub(super) fn check(&self) -> Result<(), String> {
        let mut wrong = Vec::new();
        let mut see = |what: &str, value: f64, range: std::ops::RangeInclusive<f64>| {
            if !range.contains(&value) {
                wrong.push(format!("{what} {value:e}"));
            }
        };
        for curve in &self.curves {
            for &(work, seconds) in &curve.points {
                see(&format!("point {work:e}"), work, WORK);
                see(&format!("point {work:e}"), seconds, SECONDS);
            }
        }
        self.overhead.iter().for_each(|&x| see("overhead", x, OVERHEAD));
        self.wide.iter().for_each(|&x| see("wide", x, FACTOR));
        see("bandwidth", self.bytes_per_second, RATE);
        self.transfer.iter().for_each(|&x| see("transfer", x, RATE));
        if !self.curves.iter().any(|c| !c.screened && !c.points.is_empty()) {
            wrong.push("no curve".to_owned());
        }
        // Time that grows much faster than work was not that of the search alone.
        let leaps = |p: &[(f64, f64)]| p[1].1 / p[0].1 > 8.0 * p[1].0 / p[0].0;
        if self.curves.iter().any(|c| c.points.windows(2).any(leaps)) {
            wrong.push("a curve that leaps".to_owned());
        }
        if self.curves.iter().any(|c| c.queries == 0 || c.points.windows(2).any(|p| p[0].0 >= p[1].0)) {
            wrong.push("a curve that does not rise".to_owned());
        }
        wrong.first().map_or(Ok(()), |first| Err(format!("it says `{first}`")))
    }
}

/// As it lies on disk.
impl fmt::Display for Calibration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "overhead {:e} {:e}", self.overhead[0], self.overhead[1])?;
        writeln!(f, "wide {:e} {:e}", self.wide[0], self.wide[1])?;
        writeln!(f, "bandwidth {:e}", self.bytes_per_second)?;
        if let Some(bps) = self.transfer {
            writeln!(f, "transfer {bps:e}")?;
        }
        for curve in &self.curves {
            writeln!(f, "curve {} {}", u8::from(curve.screened), curve.queries)?;
            curve.points.iter().try_for_each(|(work, seconds)| writeln!(f, "point {work:e} {seconds:e}"))?;
        }
        Ok(())
    }
}

impl FromStr for Calibration {
    type Err = String;

    fn from_str(text: &str) -> Result<Calibration, String> {
        let mut read = Calibration::default();
        for line in text.lines().take(1000) {
            let wrong = || format!("it says `{}`", line.chars().take(60).collect::<String>());
            let mut words = line.split(' ');
            let name = words.next().unwrap_or_default();
            let room = read.curves.len() < 32;
            let numbers: Vec<f64> = words.map(str::parse).collect::<Result<_, _>>().map_err(|_| wrong())?;
            match (name, numbers.as_slice(), read.curves.last_mut()) {
                ("overhead", &[a, b], _) => read.overhead = [a, b],
                ("wide", &[a, b], _) => read.wide = [a, b],
                ("bandwidth", &[a], _) => read.bytes_per_second = a,
                ("transfer", &[a], _) => read.transfer = Some(a),
                ("curve", &[screened, queries], _) if (1.0..1e6).contains(&queries) && room => {
                    read.curves.push(Curve {
                        screened: screened != 0.0,
                        queries: queries as usize,
                        points: Vec::new(),
                    });
                }
                ("point", &[work, seconds], Some(curve)) => curve.points.push((work, seconds)),
                _ => return Err(wrong()),
            }
        }
        read.check().map(|()| read)
    }
}

/// The sort of search that a correction is for; scans of lists by the form of their codes.
type Sort = (Screen, u32, DType, std::mem::Discriminant<Metric>, Option<Form>);

/// A calibration and what later searches taught.
#[derive(Debug)]
pub struct Predictor {
    calibration: Calibration,
    /// What was wrong with the file of this engine.
    note: Option<String>,
    /// Measured over predicted time, and how often that was seen.
    seen: Mutex<HashMap<Sort, (f64, u32)>>,
}

impl Predictor {
    /// A calibration that nothing was learned beside.
    pub fn new(calibration: Calibration, note: Option<String>) -> Predictor {
        Predictor { calibration, note, seen: Mutex::default() }
    }

    /// What was measured.
    pub fn calibration(&self) -> &Calibration {
        &self.calibration
    }

    /// What was wrong with the file on disk.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    fn sort(program: &Program) -> Sort {
        let (mut screen, mut form, mut extent) = (None, None, None);
        for (_, op) in program.operations() {
            let pairs = match op {
                Op::Search(search) => {
                    screen.get_or_insert(search.screen);
                    Some(&search.pairs)
                }
                Op::Scan(scan) => {
                    form.get_or_insert(scan.form);
                    let (rows, queries) = scan.extent(program);
                    extent = Some(Extent { metric: scan.metric, dtype: DType::F32, dim: 0, rows, queries });
                    None
                }
                Op::Assign(assign) => Some(&assign.pairs),
                Op::Distance(distance) => Some(&distance.pairs),
                Op::Range(range) => Some(&range.pairs),
                Op::Refine(refine) => Some(&refine.pairs),
                Op::Normalize(_) | Op::SegmentSum(_) | Op::SelectK(_) | Op::Matmul(_) | Op::Host(_) => None,
            };
            extent = extent.or_else(|| pairs.and_then(|pairs| pairs.extent(program).ok()));
        }
        let nothing = Extent { metric: Metric::L2, dtype: DType::F32, dim: 0, rows: 0, queries: 0 };
        let Extent { metric, dtype, queries, .. } = extent.unwrap_or(nothing);
        // Few, some, many queries.
        let class = [4, 64].iter().filter(|&&most| queries > most).count() as u32;
        (screen.unwrap_or_default(), class, dtype, std::mem::discriminant(&metric), form)
    }

    /// How many times longer than predicted such searches took so far.
    pub fn correction(&self, program: &Program) -> f64 {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(&Predictor::sort(program)).map_or(1.0, |&(ratio, _)| ratio)
    }

    /// Predicted seconds of each operation.
    pub fn steps(&self, program: &Program) -> Vec<f64> {
        let correction = self.correction(program);
        self.calibration.steps(program).into_iter().map(|s| s * correction).collect()
    }

    /// Predicted seconds of a program, `missing` bytes of whose rows must be brought to the device first.
    pub fn seconds(&self, program: &Program, missing: u64) -> f64 {
        let here = self.calibration.seconds(program, 0);
        here * self.correction(program) + self.calibration.seconds(program, missing) - here
    }

    /// Learns from a run that took so long, uploads left out. The first of a sort counts nothing, since it may have
    /// compiled; and no single one counts more than twofold.
    pub fn learn(&self, program: &Program, measured: f64) {
        let predicted = self.calibration.seconds(program, 0);
        if !(predicted > 0.0 && measured > 0.0) {
            return;
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (ratio, times) = seen.entry(Predictor::sort(program)).or_insert((1.0, 0));
        *times = times.saturating_add(1);
        if *times > 1 {
            let step = (measured / predicted / *ratio).clamp(0.5, 2.0);
            *ratio = (*ratio * step.powf(0.3)).clamp(1.0 / 16.0, 16.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::Type;
    use crate::ops::Scan;

    fn extent(rows: usize, dim: usize, queries: usize) -> Extent {
        Extent { metric: Metric::L2, dtype: DType::F32, dim, rows, queries }
    }

    fn plan(rows: usize, dim: usize, queries: usize, k: usize) -> Program {
        extent(rows, dim, queries).nearest(k, Screen::None).unwrap()
    }

    #[test]
    fn scans_cost_what_they_look_at_and_teach_nothing_of_searches() {
        let predictor = Predictor::new(Calibration::simple(1e-5, 1e11, 3e10, None), None);
        let scan = |probes| {
            let (form, mut program) = (Form::Integers(8), Program::new());
            let lists = program.input(Type::Lists { form, dim: 128, lists: 1000, slots: 1_000_000 });
            let queries = program.input(Type::Prepared { queries: 50 });
            let of_probes = program.input(Type::Probes { queries: 50, width: probes });
            let (metric, share) = (Metric::L2, (probes, 1000));
            let scan = Scan { metric, lists, queries, probes: of_probes, mask: None, keep: 10, form, share };
            let found = program.push(scan).unwrap();
            program.output(found);
            program
        };
        let (few, many) = (predictor.seconds(&scan(10), 0), predictor.seconds(&scan(100), 0));
        assert!((5.0..=10.5).contains(&(many / few)), "{few} {many}");
        for _ in 0..5 {
            predictor.learn(&scan(10), 4.0 * few);
        }
        assert!(predictor.correction(&scan(100)) > 1.5);
        assert_eq!(predictor.correction(&plan(1_000_000, 128, 50, 10)), 1.0);
    }

    #[test]
    fn curves_meet_their_points_and_go_on_in_proportion() {
        let curve = Curve { screened: false, queries: 1, points: vec![(1e4, 1e-5), (1e6, 2e-5), (1e8, 1e-3)] };
        for &(work, seconds) in &curve.points {
            assert!((curve.seconds(work) / seconds - 1.0).abs() < 1e-9);
        }
        assert_eq!(curve.seconds(1.0), 1e-5);
        let far = curve.seconds(1e12);
        assert!((far / 9.9 - 1.0).abs() < 0.01, "{far}");
        let mut last = 0.0;
        for e in 0..1000 {
            let seconds = curve.seconds(f64::powf(10.0, e as f64 / 80.0));
            assert!(seconds >= last);
            last = seconds;
        }
    }

    #[test]
    fn steps_of_a_plan_add_up_and_wide_answers_cost_more() {
        let mut c = Calibration::simple(1e-5, 1e11, 1e10, None);
        c.wide = [2.0, 10.0];
        let p = plan(100_000, 128, 1, 10);
        assert!((c.seconds(&p, 0) / (1e-5 + 100_000.0 * 512.0 / 1e10) - 1.0).abs() < 0.1, "memory decides");
        assert!(c.seconds(&plan(100_000, 128, 1, 100), 0) > 1.9 * c.seconds(&p, 0));
        assert!(c.seconds(&plan(100_000, 128, 1, 500), 0) > 9.0 * c.seconds(&p, 0));
        let screened = extent(100_000, 128, 64).nearest(10, Screen::F32).unwrap();
        let steps = c.steps(&screened);
        assert!(steps.len() == 3 && steps.iter().all(|s| *s > 0.0));
        assert_eq!(c.seconds(&p, 1 << 30), c.seconds(&p, 0), "nothing to bring anywhere");
        let gpu = Calibration::simple(1e-4, 1e12, 1e12, Some(1e9));
        assert!((gpu.seconds(&p, 1_000_000_000) - gpu.seconds(&p, 0) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn calibrations_survive_the_disk_and_odd_numbers_do_not() {
        let c = Calibration::simple(1.25e-5, 1e11, 1e10, Some(3e9));
        assert_eq!(c.to_string().parse::<Calibration>(), Ok(c.clone()));
        for (from, to) in [
            ("bandwidth 1e10", "bandwidth NaN"),
            ("bandwidth 1e10", "bandwidth 0"),
            ("bandwidth 1e10\n", ""),
            ("transfer 3e9", "transfer -3e9"),
            ("curve 0 1", "curve 0 0"),
            ("curve", "point 1 1\ncurve"),
            ("wide 1e0", "wide inf"),
            ("point 1e4", "point 1e3"),
            ("point 1e4", "pont 1e4"),
            ("point 1e6 2.25e-5", "point 1e6 2.25e-1"),
        ] {
            let damaged = c.to_string().replacen(from, to, 1);
            assert!(damaged.parse::<Calibration>().is_err(), "{from} -> {to}");
        }
        assert!("".parse::<Calibration>().is_err());
    }

    #[test]
    fn corrections_come_near_what_is_measured_and_stay_bounded() {
        let predictor = Predictor::new(Calibration::simple(1e-5, 1e11, 1e10, None), None);
        let p = plan(100_000, 128, 1, 10);
        let predicted = predictor.seconds(&p, 0);
        predictor.learn(&p, 1000.0 * predicted);
        assert_eq!(predictor.correction(&p), 1.0, "the first may have compiled");
        for _ in 0..40 {
            predictor.learn(&p, 3.0 * predicted);
        }
        assert!((predictor.seconds(&p, 0) / predicted - 3.0).abs() < 0.1);
        assert_eq!(predictor.correction(&plan(100_000, 128, 1000, 10)), 1.0, "another sort of search");
        for _ in 0..100 {
            predictor.learn(&p, 1e9);
        }
        assert!(predictor.correction(&p) <= 16.0);
        predictor.learn(&p, f64::NAN);
        assert!(predictor.correction(&p).is_finite());
    }
}
