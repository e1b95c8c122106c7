//! The decision between engines, as a function of numbers: so it can be tested without any of them.

use super::model::Predictor;
use crate::ops::Program;

/// Where the rows of a search lie, seen from a device with memory of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Residency {
    /// Bytes that must be brought there for this call.
    pub missing: u64,
    /// Seconds that earlier calls lost because they were answered elsewhere for want of the rows. Once they would have
    /// paid for bringing the rows, bringing them costs nothing more: at worst that is twice the best that one could have
    /// done knowing the future.
    pub lost: f64,
}

/// Who should answer, and what each would take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wanted {
    /// The GPU is expected to be the faster.
    pub gpu: bool,
    /// Seconds predicted on the CPU.
    pub on_cpu: f64,
    /// Seconds predicted on the GPU, with the rows there already.
    pub on_gpu: f64,
    /// Seconds that bringing the rows there takes.
    pub upload: f64,
}

/// Compares the two engines. The programs differ where one wants a screen and the other does not.
pub fn choose(cpu: (&Predictor, &Program), gpu: (&Predictor, &Program), rows: Residency) -> Wanted {
    let on_cpu = cpu.0.seconds(cpu.1, 0);
    let on_gpu = gpu.0.seconds(gpu.1, 0);
    let upload = gpu.0.seconds(gpu.1, rows.missing) - on_gpu;
    Wanted { gpu: on_gpu + (upload - rows.lost).max(0.0) < on_cpu, on_cpu, on_gpu, upload }
}

impl Wanted {
    /// What this call loses by being answered on the CPU although the GPU, had it the rows, would be faster.
    pub fn loss(&self) -> f64 {
        if self.gpu { 0.0 } else { (self.on_cpu - self.on_gpu).max(0.0) }
    }
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (who, than) = if self.gpu { ("the GPU", "the CPU") } else { ("the CPU", "the GPU") };
        let (mine, other) = if self.gpu { (self.on_gpu, self.on_cpu) } else { (self.on_cpu, self.on_gpu) };
        write!(f, "{who}: {:.3} ms predicted, {:.3} ms on {than}", mine * 1e3, other * 1e3)?;
        if self.upload > 0.0 {
            write!(f, " and {:.3} ms to bring the rows to the GPU", self.upload * 1e3)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::Calibration;
    use super::*;
    use crate::ops::{Extent, Screen};
    use crate::types::{DType, Metric};

    fn plan(rows: usize, dim: usize, queries: usize) -> Program {
        Extent { metric: Metric::L2, dtype: DType::F32, dim, rows, queries }.nearest(10, Screen::None).unwrap()
    }

    fn engines() -> (Predictor, Predictor) {
        // A laptop's CPU, and a GPU that takes ten times as long to ask and is thirty times as fast.
        let cpu = Calibration::simple(5e-6, 1e11, 3e10, None);
        let gpu = Calibration::simple(1e-4, 3e12, 4e11, Some(1e10));
        (Predictor::new(cpu, None), Predictor::new(gpu, None))
    }

    #[test]
    fn row_d5_small_work_stays_large_work_goes() {
        let (cpu, gpu) = engines();
        let wanted = |p: &Program, rows: Residency| choose((&cpu, p), (&gpu, p), rows);
        assert!(!wanted(&plan(1000, 64, 1), Residency::default()).gpu);
        assert!(wanted(&plan(1_000_000, 128, 100), Residency::default()).gpu);
        // The better one by the figures themselves, wherever the two differ by more than a tenth.
        for rows in [100, 1000, 10_000, 100_000, 1_000_000] {
            for dim in [16, 128, 768] {
                for queries in [1, 16, 256, 4096] {
                    let p = plan(rows, dim, queries);
                    let work = p.costs()[0].operations;
                    let bytes = p.costs()[0].bytes_read;
                    let on = |fixed: f64, ops: f64, bps: f64| (fixed + work / ops).max(bytes / bps);
                    let (c, g) = (on(5e-6, 1e11, 3e10), on(1e-4, 3e12, 4e11));
                    if c / g > 1.2 || g / c > 1.2 {
                        assert_eq!(wanted(&p, Residency::default()).gpu, g < c, "{rows} {dim} {queries}: {c} {g}");
                    }
                }
            }
        }
    }

    #[test]
    fn row_d5_rows_that_are_not_there_are_brought_once_that_would_have_paid() {
        let (cpu, gpu) = engines();
        let p = plan(1_000_000, 128, 1);
        let mut rows = Residency { missing: 512_000_000, lost: 0.0 };
        let mut calls = 0;
        loop {
            let wanted = choose((&cpu, &p), (&gpu, &p), rows);
            if wanted.gpu {
                break;
            }
            rows.lost += wanted.loss();
            calls += 1;
            assert!(calls < 100, "it never comes to that: {wanted}");
        }
        // 17 ms against 1.3 ms, and 51 ms for the rows.
        assert!((2..=5).contains(&calls), "{calls} calls");
        // Rows that can never stay on the device are never paid for.
        assert!(!choose((&cpu, &p), (&gpu, &p), Residency { missing: 512_000_000, lost: 0.0 }).gpu);
    }

    #[test]
    fn what_was_measured_changes_the_choice() {
        let (cpu, gpu) = engines();
        let p = plan(100_000, 128, 4);
        assert!(choose((&cpu, &p), (&gpu, &p), Residency::default()).gpu);
        for _ in 0..60 {
            gpu.learn(&p, 0.1);
        }
        assert!(!choose((&cpu, &p), (&gpu, &p), Residency::default()).gpu);
    }
}
