//! `nearfield bench quick`: this machine's CPU and GPU on the shipped sentences and on generated rows, in 15 seconds.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use nearfield::format::Matrix;
use nearfield::{Device, Flat, Metric, SearchOptions};

use super::measure::{self, Limits};
use crate::common::DeviceArgs;
use crate::compare::{self, Gpu};
use crate::{demo, fail, ui};

const K: usize = 10;
const BATCHES: [usize; 2] = [1, 100];
/// For each of at most 12 measurements.
const LEAST: Duration = Duration::from_millis(700);

/// Compare this machine's CPU and GPU in 15 seconds
#[derive(Args, Debug)]
pub struct QuickArgs {
    #[command(flatten)]
    device: DeviceArgs,
}

/// Rows to search and queries to ask.
struct Set {
    name: &'static str,
    metric: Metric,
    base: Matrix,
    queries: Matrix,
}

/// One line of the table.
struct Line {
    name: &'static str,
    batch: usize,
    cpu: Speed,
    gpu: Option<Speed>,
}

/// Of one device on one set with one batch size.
struct Speed {
    qps: f64,
    p50_ms: f64,
}

pub fn run(args: &QuickArgs) -> Result<()> {
    let (cpu, gpu) = compare::both(&args.device)?;
    let (gpu, without) = match gpu {
        Gpu::There(device) => (Some(device), None),
        Gpu::Not(why) => (None, Some(why)),
    };
    let mut head = format!("CPU: {}\n", cpu.name());
    head += &match (&gpu, &without) {
        (Some(gpu), _) => format!("GPU: {}\n", gpu.name()),
        (None, why) => ui::wrap(&format!("GPU: none; {}.\n", why.as_deref().unwrap_or_default()), ui::width(), 0, 5),
    };
    fail::print(&format!("{head}\n"))?;
    let bar = ui::progress(3 * BATCHES.len() as u64 * (1 + u64::from(gpu.is_some())), "measuring");
    let mut results = Vec::new();
    for make in [sentences, short_rows, long_rows] {
        let set = make()?;
        for batch in BATCHES {
            let on_cpu = speed(&cpu, &set, batch)?;
            bar.inc(1);
            let on_gpu = gpu.as_ref().map(|gpu| speed(gpu, &set, batch)).transpose()?;
            bar.inc(u64::from(on_gpu.is_some()));
            results.push(Line { name: set.name, batch, cpu: on_cpu, gpu: on_gpu });
        }
    }
    bar.finish_and_clear();
    let sentence = ui::wrap(&advice(&results), ui::width(), 0, 0);
    let key = format!(
        "k = {K}; p50 is the time of a batch. 384: the sentences of `nearfield demo`, f16; 128 and 768: generated, f32."
    );
    fail::print(&format!("{}\n{}\n\n{sentence}\n", table(&results), ui::wrap(&key, ui::width(), 0, 0)))
}

fn table(lines: &[Line]) -> String {
    let cpu = |l: &Line| [l.name.to_owned(), l.batch.to_string(), ui::rate(l.cpu.qps), ui::ms(l.cpu.p50_ms)];
    if lines.iter().all(|l| l.gpu.is_none()) {
        return ui::table(["rows", "batch", "CPU q/s", "p50"], lines.iter().map(cpu));
    }
    let cells = lines.iter().map(|l| {
        let [name, batch, qps, p50] = cpu(l);
        let gpu = l.gpu.as_ref().map(|gpu| [ui::rate(gpu.qps), ui::ms(gpu.p50_ms), faster(l.cpu.qps, gpu.qps)]);
        let [gpu_qps, gpu_p50, who] = gpu.unwrap_or_default();
        [name, batch, qps, p50, gpu_qps, gpu_p50, who]
    });
    ui::table(["rows", "batch", "CPU q/s", "p50", "GPU q/s", "p50", "faster"], cells)
}

fn faster(cpu: f64, gpu: f64) -> String {
    if gpu > cpu { format!("GPU {:.1}x", gpu / cpu) } else { format!("CPU {:.1}x", cpu / gpu) }
}

fn speed(device: &Device, set: &Set, batch: usize) -> Result<Speed> {
    let flat = Flat::from_matrix(device, set.base.clone(), set.metric, None)?;
    let limits = Limits { least: LEAST, every_query: false };
    let timing = measure::run(&flat, &set.queries, K, batch, &SearchOptions::default(), &limits, |_, _| Ok(()))?;
    if let Some(reason) = &timing.stats().fallback {
        return Err(anyhow::anyhow!("the GPU did not answer: {reason}"));
    }
    Ok(Speed { qps: timing.qps(), p50_ms: timing.percentile_ms(0.5) })
}

/// Which device to use when, in one sentence.
fn advice(lines: &[Line]) -> String {
    let of = |batch: usize| lines.iter().filter(move |l| l.batch == batch);
    let ratios = |batch| -> Vec<f64> { of(batch).filter_map(|l| Some(l.gpu.as_ref()?.qps / l.cpu.qps)).collect() };
    let (single, many) = (ratios(BATCHES[0]), ratios(BATCHES[1]));
    if single.is_empty() || many.is_empty() {
        let gains = of(BATCHES[1]).zip(of(BATCHES[0])).map(|(many, one)| many.cpu.qps / one.cpu.qps);
        return format!(
            "Use the CPU (`auto` does), and ask many queries at once where you can: batches of {} gave up to {:.1} \
             times as many answers per second.",
            BATCHES[1],
            gains.fold(1.0, f64::max)
        );
    }
    let phrase = |ratios: &[f64]| {
        let (low, high) = ratios.iter().fold((f64::MAX, 0.0), |(l, h), &r| (f64::min(l, r), f64::max(h, r)));
        match (low >= 1.0, high >= 1.0) {
            (true, _) => (1, format!("the GPU (up to {high:.1} times as fast)")),
            (_, false) => (-1, format!("the CPU (up to {:.1} times as fast)", 1.0 / low)),
            _ => (0, format!("either: the GPU is {low:.1} to {high:.1} times as fast, by the rows")),
        }
    };
    let ((one, for_one), (more, for_many)) = (phrase(&single), phrase(&many));
    if one == more && one != 0 {
        let all: Vec<f64> = single.iter().chain(&many).copied().collect();
        return format!("Use {} for single queries and for batches.", phrase(&all).1);
    }
    format!("For single queries use {for_one}; for batches of {} use {for_many}.", BATCHES[1])
}

fn sentences() -> Result<Set> {
    let demo = demo::Sentences::load()?;
    let queries = demo.base.view().slice(0, 200);
    let mut floats = vec![0.0f32; 200 * queries.dim()];
    floats.chunks_exact_mut(queries.dim()).enumerate().for_each(|(i, row)| queries.row_f32(i, row));
    let queries = Matrix::from_vec(floats, demo.base.dim())?;
    Ok(Set { name: "4,000 x 384 cosine", metric: Metric::Cosine, base: demo.base, queries })
}

fn short_rows() -> Result<Set> {
    generated("100,000 x 128 l2", Metric::L2, 100_000, 128)
}

fn long_rows() -> Result<Set> {
    generated("20,000 x 768 cosine", Metric::Cosine, 20_000, 768)
}

/// Rows around 256 centres, as real ones lie in groups; the same on every machine.
fn generated(name: &'static str, metric: Metric, rows: usize, dim: usize) -> Result<Set> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        // xorshift64*, of which the upper 24 bits make a float of [-1, 1).
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    let centres: Vec<f32> = (0..256 * dim).map(|_| random()).collect();
    let mut around = |count: usize| -> Result<Matrix> {
        let mut data = Vec::with_capacity(count * dim);
        for i in 0..count {
            let centre = &centres[i % 256 * dim..][..dim];
            data.extend(centre.iter().map(|c| c + 0.7 * random()));
        }
        Ok(Matrix::from_vec(data, dim)?)
    };
    Ok(Set { name, metric, base: around(rows)?, queries: around(200)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(batch: usize, cpu: f64, gpu: Option<f64>) -> Line {
        let speed = |qps| Speed { qps, p50_ms: 1.0 };
        Line { name: "", batch, cpu: speed(cpu), gpu: gpu.map(speed) }
    }

    #[test]
    fn the_advice_follows_from_the_figures() {
        let said = advice(&[result(1, 10.0, Some(5.0)), result(100, 10.0, Some(80.0))]);
        assert_eq!(
            said,
            "For single queries use the CPU (up to 2.0 times as fast); for batches of 100 use the GPU (up to 8.0 times as fast)."
        );
        let said = advice(&[result(1, 10.0, Some(20.0)), result(100, 10.0, Some(80.0))]);
        assert_eq!(said, "Use the GPU (up to 8.0 times as fast) for single queries and for batches.");
        let said = advice(&[result(1, 10.0, None), result(100, 30.0, None)]);
        assert!(said.starts_with("Use the CPU") && said.contains("3.0 times"), "{said}");
    }
}
