//! The `mesh-control` binary.

#![forbid(unsafe_code)]

use clap::Parser;
use mesh_control::cli::{self, Cli};
use std::process::ExitCode;

fn main() -> ExitCode {
    cli::log_to_stderr("info");
    Cli::parse().execute()
}
