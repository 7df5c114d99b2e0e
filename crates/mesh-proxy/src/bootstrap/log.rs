//! The log.

use anyhow::Context;
use std::fs::OpenOptions;
use std::io::IsTerminal;
use std::path::Path;
use std::sync::Mutex;
use tracing_subscriber::EnvFilter;

/// Logs to standard error as `MESH_LOG` says (`tracing` directives), or else as `usual` does. In
/// colour only on a terminal.
pub fn log_to_stderr(usual: &str) {
    let filter = EnvFilter::try_from_env("MESH_LOG").unwrap_or_else(|_| EnvFilter::new(usual));
    to_stderr(filter);
}

/// Logs what is asked for, to a file or to standard error.
pub(super) fn log_to(directives: Option<&str>, path: Option<&Path>) -> anyhow::Result<()> {
    let filter = match directives {
        Some(directives) => EnvFilter::new(directives),
        None => EnvFilter::try_from_env("MESH_LOG").unwrap_or_else(|_| EnvFilter::new("info")),
    };
    let Some(path) = path else {
        to_stderr(filter);
        return Ok(());
    };
    let file = OpenOptions::new().create(true).append(true).open(path);
    let file = file.with_context(|| format!("cannot write the log to {}", path.display()))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(Mutex::new(file))
        .init();
    Ok(())
}

fn to_stderr(filter: EnvFilter) {
    let colour = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colour)
        .with_writer(std::io::stderr)
        .init();
}
