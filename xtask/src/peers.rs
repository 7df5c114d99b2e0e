//! `cargo xtask bench peers`: mesh-proxy beside other proxies, on this machine and in one run.
//!
//! Everybody forwards to the same backend, mesh-proxy and Envoy with the list of features in
//! `benches/peers/FEATURES.md`, the others as plain forwarders. In each round every peer is measured
//! in each row, one right after the other, so that what is compared is a moment apart. What the
//! machine or other processes do to a row is seen, and the row is measured again.
//!
//! Nothing is installed. What is not there is named, with the way to get it.

use std::path::PathBuf;

use anyhow::bail;

use crate::workspace::Workspace;

mod envoy;
mod forwarders;
mod h2load;
mod load;
mod machine;
mod measure;
mod memory;
mod mesh;
mod mutual;
mod peer;
mod ports;
mod probe;
mod process;
pub(crate) mod reload;
mod rows;
mod run;
pub(crate) mod soak;
mod table;
mod tools;

pub(crate) use rows::Area;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Only these areas, with commas between
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Area>,

    /// How often each row is measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,

    /// How long each measurement takes
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,

    /// Write all that was measured to this file, as JSON
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Only these peers, with commas between; ratios are to `envoy`
    #[arg(long, value_enum, value_delimiter = ',')]
    peers: Vec<peer::Kind>,

    /// Print rows and peers, and what is missing
    #[arg(long)]
    list: bool,
}

/// Measures and prints.
///
/// # Errors
///
/// If something that all need is missing, a program does not start, or a feature is not on.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> anyhow::Result<()> {
    let tools = tools::Tools::find(workspace);
    if options.list {
        print!("{}", rows::list());
        print!("{}", tools.list());
        return Ok(());
    }
    let peers = tools.usable(&options.peers);
    for (kind, why) in tools.missing(&options.peers) {
        println!("without {}: {why}", kind.name());
    }
    if peers.is_empty() {
        bail!("there is nobody to measure");
    }
    run::run(workspace, &tools, &peers, options)
}

// === impl Options ===

impl Options {
    fn wants(&self, area: Area) -> bool {
        self.only.is_empty() || self.only.contains(&area)
    }
}
