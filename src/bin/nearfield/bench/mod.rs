//! `nearfield bench`: how fast, and how right.

mod kmeans;
pub mod measure;
mod quick;
mod recall;
mod search;
mod settings;
mod shaders;

use anyhow::Result;
use clap::{Args, Subcommand};

/// Measure searches
#[derive(Args, Debug)]
pub struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    Kmeans(kmeans::BenchKmeansArgs),
    Quick(quick::QuickArgs),
    Search(search::BenchSearchArgs),
    Shaders(shaders::ShadersArgs),
}

pub fn run(args: &BenchArgs) -> Result<()> {
    match &args.what {
        What::Kmeans(args) => kmeans::run(args),
        What::Quick(args) => quick::run(args),
        What::Search(args) => search::run(args),
        What::Shaders(args) => shaders::run(args),
    }
}
