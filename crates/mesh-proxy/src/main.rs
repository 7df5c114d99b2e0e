//! The `mesh-proxy` binary.

use clap::Parser;
use mesh_proxy::bootstrap::Cli;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    Cli::parse().execute()
}
