//! The `mesh-proxy` binary.

use clap::Parser;
use mesh_proxy::bootstrap::{self, Cli};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    bootstrap::log_to_stderr("info");
    Cli::parse().execute()
}
