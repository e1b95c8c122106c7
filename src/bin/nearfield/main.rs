//! The program `nearfield`: vector search from the command line. One file per command.
//!
//! Exit codes: 0 done, 2 wrong usage or input, 1 when the device or the disk failed. Errors are one line on stderr.

mod bench;
mod build_index;
mod common;
mod compare;
mod data;
mod demo;
mod devices;
mod explain;
mod fail;
mod import;
mod info;
mod map;
mod outputs;
mod range;
mod report;
mod search;
mod signals;
mod tune;
mod ui;

use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Vector search, exact or in compressed indexes, on any GPU, and on the CPU when there is none.
#[derive(Parser, Debug)]
#[command(name = "nearfield", version, max_term_width = 100, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Demo(demo::DemoArgs),
    Devices(devices::DevicesArgs),
    Search(search::SearchArgs),
    Range(range::RangeArgs),
    Build(build_index::BuildArgs),
    Import(import::ImportArgs),
    Info(info::InfoArgs),
    Explain(explain::ExplainArgs),
    Tune(tune::TuneArgs),
    Map(map::MapArgs),
    Bench(bench::BenchArgs),
}

/// A driver of Mesa asks for a Wayland display, and without a runtime folder that is two lines of complaint on every call.
/// There can be no display then, so one that isn't there is named, which is answered in silence.
fn keep_mesa_quiet() {
    let is_path = |name: &str| std::env::var_os(name).is_some_and(|value| Path::new(&value).is_absolute());
    if !is_path("XDG_RUNTIME_DIR") && !is_path("WAYLAND_DISPLAY") {
        // SAFETY: this is the first thing that the program does: no other thread exists that could read the environment.
        #[allow(unsafe_code)]
        unsafe {
            std::env::set_var("WAYLAND_DISPLAY", "/dev/null");
        }
    }
}

fn main() -> ExitCode {
    keep_mesa_quiet();
    signals::watch();
    nearfield::format::guard_maps();
    let result = match Cli::parse().command {
        Command::Demo(args) => demo::run(&args),
        Command::Devices(args) => devices::run(&args),
        Command::Search(args) => search::run(&args),
        Command::Range(args) => range::run(&args),
        Command::Build(args) => build_index::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Info(args) => info::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Tune(args) => tune::run(&args),
        Command::Map(args) => map::run(&args),
        Command::Bench(args) => bench::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            fail::tell("error", &fail::message(&error));
            ExitCode::from(fail::exit_code(&error))
        }
    }
}
