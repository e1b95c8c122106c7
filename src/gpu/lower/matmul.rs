//! `matmul`: the product of two matrices that may lie on the device already; it stays there until it is asked for.

use std::borrow::Cow;
use std::sync::Arc;

use super::{Job, Site, Work};
use crate::compute::{Array, EngineError, Frame, Output, Place, Type, Value, room};
use crate::gpu::case::Case;
use crate::gpu::memory::{Buffer, SCRATCH};
use crate::gpu::submit::{Bind, Recorder};
use crate::ops::matmul::{self, Sizes, TILE};
use crate::ops::{Extent, Matmul, Program};
use crate::stats::SearchStats;
use crate::types::{DType, Metric};

/// The product, on the device.
pub(super) async fn run(
    site: Site<'_>,
    program: &Program,
    frame: &Frame<'_>,
    op: &Matmul,
    stats: &mut SearchStats,
) -> Result<Array, EngineError> {
    let sizes = op.sizes(program)?;
    let Sizes { rows, inner, columns } = sizes;
    let bytes = (rows * columns) as u64 * 4;
    let extent = Extent { metric: Metric::InnerProduct, dtype: DType::F32, dim: inner, rows: columns, queries: rows };
    let mut job = Job::new(site, Work::plain(extent), stats).await?;
    let out = allocate(site, bytes)?;
    if bytes > 0 && inner == 0 {
        job.rec.clear(Bind::first(&out, bytes));
    } else if bytes > 0 {
        job.ensure(Case::Matmul { transposed: op.transposed }).await?;
        let binds = vec![
            Bind::whole(&device_matrix(site, frame, op.a, &job.rec)?),
            Bind::whole(&device_matrix(site, frame, op.b, &job.rec)?),
            Bind::first(&out, bytes),
        ];
        launches(&mut job, sizes, op.transposed, &binds).await?;
    }
    job.rec.finish().await?;
    Ok(Array::new(site.holder, [rows, columns], out))
}

/// Records the product, some rows at a time.
async fn launches(job: &mut Job<'_>, s: Sizes, transposed: bool, binds: &[Bind]) -> Result<(), EngineError> {
    let caps = job.caps("matmul");
    let most = (caps.max_groups * TILE) as usize;
    if s.columns > most {
        return Err(EngineError::Unsupported(format!("a product of {} columns; at most {most} here", s.columns)));
    }
    let work = 2.0 * s.inner as f64 * s.columns.next_multiple_of(TILE as usize) as f64;
    let mut row = 0;
    while row < s.rows {
        let mut args = matmul::Args {
            row_begin: row as u32,
            row_end: s.rows as u32,
            inner: s.inner as u32,
            columns: s.columns as u32,
            transposed,
        };
        let pipeline = job.pipeline(&matmul::record(&args, &caps))?;
        let fit = job.rec.fit(&pipeline, work, TILE as usize).await? / TILE as usize * TILE as usize;
        let rows = fit.min(s.rows - row).min(most);
        args.row_end = (row + rows) as u32;
        job.rec.launch("matmul", &pipeline, matmul::record(&args, &caps), binds.to_vec(), work * rows as f64);
        row += rows;
    }
    Ok(())
}

/// Memory of an array, within what a kernel can bind.
fn allocate(site: Site<'_>, bytes: u64) -> Result<Arc<Buffer>, EngineError> {
    let limits = &site.machine.context.limits;
    let most = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
    if bytes > most {
        return Err(EngineError::Unsupported(format!("a matrix of {bytes} bytes; a kernel binds at most {most} here")));
    }
    site.residents.make_room(site.machine, bytes);
    let buffer = site.machine.memory.buffer(&site.machine.context, "nearfield.array", bytes.max(4), SCRATCH)?;
    Ok(Arc::new(buffer))
}

/// A matrix on the device, brought there if it is not.
fn device_matrix(
    site: Site<'_>,
    frame: &Frame<'_>,
    value: Value,
    rec: &Recorder<'_>,
) -> Result<Arc<Buffer>, EngineError> {
    match frame.array(value) {
        Some(array) => array.on::<Buffer>(site.holder),
        None => {
            let bytes = bytemuck::cast_slice(frame.matrix(value)?);
            let buffer = allocate(site, bytes.len() as u64)?;
            rec.write(&buffer, bytes)?;
            Ok(buffer)
        }
    }
}

/// A matrix in host memory, read back if it is not.
pub(super) async fn host_matrix<'a>(
    site: Site<'_>,
    frame: &'a Frame<'_>,
    value: Value,
    stats: &mut SearchStats,
) -> Result<Cow<'a, [f32]>, EngineError> {
    match frame.array(value) {
        None => frame.matrix(value).map(Cow::Borrowed),
        Some(array) => read(site, array, stats).await.map(Cow::Owned),
    }
}

/// The numbers of an array.
async fn read(site: Site<'_>, array: &Array, stats: &mut SearchStats) -> Result<Vec<f32>, EngineError> {
    /// Bytes that are read back at a time.
    const PIECE: u64 = 16 << 20;
    let [rows, columns] = array.shape();
    room(rows, columns, 4)?;
    let buffer = array.on::<Buffer>(site.holder)?;
    let bytes = (rows * columns) as u64 * 4;
    let mut values = Vec::with_capacity(rows * columns);
    let mut rec = Recorder::new(site.machine, stats);
    let mut at = 0;
    while at < bytes {
        let size = PIECE.min(bytes - at);
        let words = rec.read(&[Bind::part(&buffer, at, size)]).await?.pop().unwrap_or_default();
        values.extend(words.into_iter().map(f32::from_bits));
        at += size;
    }
    rec.finish().await?;
    Ok(values)
}

/// Brings an answer to where it is wanted.
pub(super) async fn place(
    site: Site<'_>,
    program: &Program,
    frame: &mut Frame<'_>,
    (value, place): (Value, Place),
    stats: &mut SearchStats,
) -> Result<(), EngineError> {
    let &Type::Matrix { rows, width } = program.ty(value)? else {
        return match place {
            Place::Host => Ok(()),
            Place::Device => Err(EngineError::Mismatch(format!("{value} is no matrix and can't stay on the device"))),
        };
    };
    match place {
        Place::Host if frame.array(value).is_some() || program.maker(value).is_none() => {
            let values = host_matrix(site, frame, value, stats).await?.into_owned();
            frame.set(value, Output::Matrix(values));
        }
        Place::Host => {}
        Place::Device => {
            let array = match frame.array(value) {
                Some(array) => {
                    array.on::<Buffer>(site.holder)?;
                    array.clone()
                }
                None => {
                    let mut rec = Recorder::new(site.machine, stats);
                    let data = device_matrix(site, frame, value, &rec)?;
                    rec.finish().await?;
                    Array::new(site.holder, [rows, width], data)
                }
            };
            frame.set(value, Output::Array(array));
        }
    }
    Ok(())
}
