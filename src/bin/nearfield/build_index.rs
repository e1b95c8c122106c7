//! `nearfield build`: an index file from a file of vectors. (Not named `build.rs`, which cargo takes for a build script.)

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use nearfield::{AnyIndex, BuildError, Device};

use crate::common::{DeviceArgs, ScreenChoice, file, in_file, screen};
use crate::data::{self, HowArgs};
use crate::outputs::Outputs;
use crate::{fail, ui};

/// Build an index file
#[derive(Args, Debug)]
pub struct BuildArgs {
    /// Vectors: .npy, .npz:array, .fvecs, .bvecs, .ivecs, .fbin, .u8bin, .i8bin; stored as the type they have
    #[arg(long, value_name = "F")]
    base: PathBuf,
    /// The rows' ids, int64 [n], 0 or more, each once [default: the row numbers]
    #[arg(long, value_name = "F")]
    ids: Option<PathBuf>,
    #[command(flatten)]
    how: HowArgs,
    /// The pass in front of the exact one: auto, none, f32, f16, int8; with int8, and with auto where that pays, 8-bit
    /// codes of the rows are made and saved
    #[arg(long, value_name = "S", value_parser = screen, default_value = "auto")]
    screen: ScreenChoice,
    /// Where the index goes; replaced at once or not at all
    #[arg(long, value_name = "X.nf")]
    out: PathBuf,
    #[command(flatten)]
    device: DeviceArgs,
}

pub fn run(args: &BuildArgs) -> Result<()> {
    let mut outputs = Outputs::begin(&[file(&args.out)], &[file(&args.base), args.ids.as_ref()])?;
    let (device, rows) = (args.device.open()?, data::rows(&args.base, &args.how)?);
    let ids = args.ids.as_ref().map(|path| data::row_ids(path, rows.rows(), &args.base)).transpose()?;
    let index = match AnyIndex::build(&device, &args.how.index, args.how.metric()?, rows, ids, &args.how.training()) {
        // An error in the ids is in their file.
        Err(e @ (BuildError::DuplicateId { .. } | BuildError::ReservedId { .. })) => {
            return Err(e).with_context(|| format!("`{}`", args.ids.as_ref().unwrap_or(&args.base).display()));
        }
        other => in_file(other, &args.base)?,
    };
    data::note_warnings(&index);
    let index = match index {
        AnyIndex::Flat(mut flat) => {
            flat.set_device(&Device::cpu());
            flat.set_screen(args.screen.0)?;
            flat.prepare()?;
            AnyIndex::Flat(flat)
        }
        index => index,
    };
    let size = outputs.index(&args.out, &index)?;
    outputs.commit()?;
    fail::print(&ui::built(&args.out, &index, size))
}
