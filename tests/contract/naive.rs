//! The references as an engine: f64, rounded once. It shows that the suite accepts what is right, and is what
//! `can_fail.rs` spoils.

use nearfield::engine::{Candidates, Coded, Engine, EngineError, Input, Output, Task};
use nearfield::kernels::{codes, distance, normalize, refine, scan, search, select_k};
use nearfield::plan::{Plan, Problem, Screen, Step};
use nearfield::stats::{Ceilings, SearchStats};

pub struct Naive;

type Pairs = Vec<Vec<(f32, u32)>>;

/// `[queries, width]` places from lists that may be shorter.
fn places(pairs: Pairs, width: usize) -> Candidates {
    let mut out = Candidates::empty(pairs.len(), width);
    for (q, list) in pairs.into_iter().enumerate() {
        for (i, (key, position)) in list.into_iter().enumerate() {
            (out.keys[q * width + i], out.positions[q * width + i]) = (key, position);
        }
    }
    out
}

/// The keys of all pairs, rounded; zeros lose their sign.
fn direct_keys(task: &Task<'_>) -> Vec<f32> {
    let keys = distance::reference(task.plan.problem.metric, &task.queries, &task.base.rows);
    keys.into_iter().map(|key| key as f32 + 0.0).collect()
}

/// The lower bounds of all pairs.
fn screened_keys(task: &Task<'_>, norms: &[f32]) -> Vec<f32> {
    let (problem, rows) = (task.plan.problem, task.base.rows);
    let slack = search::slack(problem.dim);
    let mut keys = Vec::new();
    for q in 0..problem.queries {
        let query = distance::row_f64(&task.queries, q);
        for (r, &norm) in norms.iter().enumerate() {
            let dot: f64 = distance::row_f64(&rows, r).iter().zip(&query).map(|(x, y)| x * y).sum();
            keys.push(search::lower_bound(problem.metric, slack, dot as f32, task.query_norms[q], norm));
        }
    }
    keys
}

/// The `keep` smallest allowed pairs of each query.
fn nearest(task: &Task<'_>, keys: &[f32], keep: usize) -> Pairs {
    let n = task.plan.problem.rows;
    (0..task.plan.problem.queries)
        .map(|q| {
            let allowed: Vec<u32> =
                (0..n).filter(|&r| task.mask.is_none_or(|m| m.allows(q, r))).map(|r| r as u32).collect();
            let keys: Vec<f32> = allowed.iter().map(|&r| keys[q * n + r as usize]).collect();
            select_k::reference(&keys, Some(&allowed), keep)
        })
        .collect()
}

/// The lower bounds of all pairs, from codes.
fn coded_keys(coded: &Coded<'_>) -> Vec<f32> {
    let Coded { codes, queries, .. } = coded;
    let terms = queries.terms.iter().enumerate();
    let pairs = terms.flat_map(|(q, terms)| (0..codes.rows()).map(move |r| (q, terms, r)));
    pairs
        .map(|(q, terms, r)| codes::lower_bound(codes, r, terms, codes::product(codes.row(r), queries.query(q))))
        .collect()
}

fn search(task: &Task<'_>, screen: Screen, keep: usize) -> Candidates {
    let bounded = |keys: Vec<f32>| {
        let mut out = places(nearest(task, &keys, keep), keep);
        out.bound = out.keys.chunks(keep.max(1)).map(|keys| keys[keep - 1]).collect();
        out
    };
    if let (Screen::Int8, Some(coded)) = (screen, &task.base.codes) {
        return bounded(coded_keys(coded));
    }
    match (screen, task.base.norms) {
        (Screen::F32, Some(norms)) if search::screens(task.plan.problem.metric) => bounded(screened_keys(task, norms)),
        _ => places(nearest(task, &direct_keys(task), keep), keep),
    }
}

fn refine(task: &Task<'_>, mut from: Candidates) -> Candidates {
    if from.width > 0 {
        let keys =
            refine::reference(task.plan.problem.metric, &task.queries, &task.base.rows, &from.positions, from.width);
        from.keys = keys.into_iter().map(|key| key as f32 + 0.0).collect();
    }
    from
}

fn select(from: Candidates, queries: usize, k: usize) -> Candidates {
    let mut pairs = vec![Vec::new(); queries];
    for (q, list) in pairs.iter_mut().enumerate() {
        let segment = q * from.width..(q + 1) * from.width;
        let mut all = select_k::reference(&from.keys[segment.clone()], Some(&from.positions[segment]), from.width);
        all.retain(|pair| pair.1 != u32::MAX);
        all.truncate(k);
        *list = all;
    }
    Candidates { bound: from.bound, ..places(pairs, k) }
}

fn range(task: &Task<'_>, radius: f32) -> Output {
    let (mut offsets, mut keys, mut positions) = (vec![0], Vec::new(), Vec::new());
    for list in nearest(task, &direct_keys(task), task.plan.problem.rows) {
        for (key, position) in list.into_iter().filter(|pair| pair.0 <= radius) {
            keys.push(key);
            positions.push(position);
        }
        offsets.push(keys.len() as u64);
    }
    Output::Range { offsets, keys, positions }
}

/// The words that a mask needs for every row of every query.
fn mask_words(problem: Problem, stride: usize) -> usize {
    if problem.queries == 0 { 0 } else { (problem.queries - 1) * stride + problem.rows.div_ceil(32) }
}

/// The shapes that have to fit.
fn fits(task: &Task<'_>) -> Result<(), EngineError> {
    let Plan { problem, steps } = task.plan;
    if let Input::Lists(listed) = task.input {
        return listed.check(problem, task.mask);
    }
    let (base, queries) = (&task.base.rows, &task.queries);
    let wrong = |what: &str| Err(EngineError::Mismatch(what.to_owned()));
    let per_query = steps.iter().any(|s| !matches!(s, Step::Normalize { .. }));
    match () {
        _ if base.rows() != problem.rows || base.dim() != problem.dim => wrong("base and problem"),
        _ if per_query && queries.rows() != problem.queries => wrong("queries and problem"),
        _ if per_query && queries.dim() != problem.dim => wrong("query dim and problem"),
        _ if task.base.norms.is_some_and(|norms| norms.len() != problem.rows) => wrong("norms and rows"),
        _ if task.mask.is_some_and(|m| m.words.len() < mask_words(*problem, m.stride)) => wrong("mask and rows"),
        _ => Ok(()),
    }
}

fn input(task: &Task<'_>) -> Output {
    let (q, n) = (task.plan.problem.queries, task.plan.problem.rows);
    match task.input {
        Input::None | Input::Known(_) => Output::Candidates(Candidates::empty(q, 0)),
        Input::Positions { positions, width } => {
            Output::Candidates(Candidates { positions: positions.to_vec(), ..Candidates::empty(q, width) })
        }
        Input::Matrix(keys) => matrix(keys.to_vec(), q, n),
        // What a scan or an assignment begins with.
        Input::Lists(_) => Output::Candidates(Candidates::empty(q, 0)),
    }
}

/// A matrix as candidates: every row a candidate.
fn matrix(keys: Vec<f32>, q: usize, n: usize) -> Output {
    let positions = (0..q).flat_map(|_| 0..n as u32).collect();
    Output::Candidates(Candidates { width: n, keys, positions, bound: Vec::new() })
}

impl Engine for Naive {
    fn name(&self) -> String {
        "naive".to_owned()
    }

    fn run(&self, task: &Task<'_>, stats: &mut SearchStats) -> Result<Output, EngineError> {
        fits(task)?;
        let problem = task.plan.problem;
        let mut state = input(task);
        for step in &task.plan.steps {
            stats.device = self.name();
            stats.add_kernel(format!("{}/naive", step.verb()));
            stats.scanned = (problem.rows * problem.queries) as u64;
            state = match (*step, state) {
                (Step::Normalize { norm }, _) => {
                    let (rows, norms) = normalize::reference(norm, &task.base.rows);
                    let round = |x: Vec<f64>| x.into_iter().map(|x| x as f32).collect();
                    Output::Rows { rows: round(rows), norms: round(norms) }
                }
                (Step::Distance, _) => Output::Matrix(direct_keys(task)),
                (Step::Search { screen, keep }, _) => Output::Candidates(search(task, screen, keep)),
                (Step::Assign, _) => {
                    Output::Candidates(Candidates { bound: Vec::new(), ..search(task, Screen::None, 1) })
                }
                (Step::Range { key }, _) => range(task, key),
                (Step::Scan { keep, .. }, _) => {
                    let Input::Lists(listed) = task.input else {
                        return Err(EngineError::Mismatch("no lists".to_owned()));
                    };
                    let (lists, queries) = (listed.lists, listed.queries);
                    let found = scan::reference(problem.metric, lists, queries, &listed.probes, task.mask, keep);
                    Output::Candidates(places(found, keep))
                }
                (Step::Refine, Output::Candidates(from)) => Output::Candidates(refine(task, from)),
                (Step::SelectK { k }, Output::Candidates(from)) => Output::Candidates(select(from, problem.queries, k)),
                (Step::SelectK { k }, Output::Matrix(keys)) => match matrix(keys, problem.queries, problem.rows) {
                    Output::Candidates(from) => Output::Candidates(select(from, problem.queries, k)),
                    other => other,
                },
                (step, _) => return Err(EngineError::Mismatch(format!("{step} has nothing to work on"))),
            };
        }
        Ok(state)
    }

    fn wants_screen(&self, _plan: &Plan) -> bool {
        false
    }

    fn ceilings(&self) -> Ceilings {
        Ceilings { bytes_per_second: 1e9, operations_per_second: 1e9, launch_seconds: 0.0 }
    }
}
