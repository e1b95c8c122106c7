#![allow(missing_docs)]
use crate::engine::*;
use crate::kernels;
use crate::plan::*;
use crate::stats::*;
#[derive(Default)]
pub struct CpuOptions {
    pub threads: Option<usize>,
    pub level: Option<()>,
}
pub struct CpuEngine;
impl CpuEngine {
    pub fn new(_: CpuOptions) -> Self {
        CpuEngine
    }
}
impl Engine for CpuEngine {
    fn name(&self) -> String {
        "cpu".into()
    }
    fn wants_screen(&self, _: &Plan) -> bool {
        false
    }
    fn ceilings(&self) -> Ceilings {
        Ceilings { bytes_per_second: 1e10, operations_per_second: 1e11, launch_seconds: 1e-6 }
    }
    fn run(&self, t: &Task<'_>, _s: &mut SearchStats) -> Result<Output, EngineError> {
        let p = &t.plan.problem;
        Ok(match t.plan.steps[0] {
            Step::Search { keep, .. } => {
                let r = kernels::search::reference(p.metric, &t.queries, &t.base.rows, t.mask, keep);
                let mut c = Candidates::empty(p.queries, keep);
                for (q, row) in r.iter().enumerate() {
                    for (j, x) in row.iter().enumerate() {
                        c.keys[q * keep + j] = x.0 as f32;
                        c.positions[q * keep + j] = x.1;
                    }
                }
                Output::Candidates(c)
            }
            Step::Range { key } => {
                let r = kernels::range::reference(p.metric, &t.queries, &t.base.rows, t.mask, key as f64);
                let mut o = vec![0];
                let (mut k, mut ps) = (vec![], vec![]);
                for row in r {
                    for x in row {
                        k.push(x.0 as f32);
                        ps.push(x.1);
                    }
                    o.push(ps.len() as u64);
                }
                Output::Range { offsets: o, keys: k, positions: ps }
            }
            _ => return Err(EngineError::Mismatch("stub".into())),
        })
    }
}
