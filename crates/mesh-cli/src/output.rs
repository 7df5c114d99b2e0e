//! What goes to standard output, and in which form.

use crate::yaml;
use anyhow::Context;
use serde_json::Value;
use std::io::{self, Write};
use std::process::ExitCode;

/// The exit code of a command that could not find out what it was asked.
pub(crate) const CANNOT_ASK: u8 = 2;

/// A form for people, or one of two for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
    Yaml,
}

/// A form for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Text {
    Json,
    Yaml,
}

// === impl Text ===

impl Text {
    /// A value with its keys in order.
    pub(crate) fn of(self, mut value: Value) -> String {
        value.sort_all_objects();
        match self {
            Self::Json => format!("{value:#}\n"),
            Self::Yaml => yaml::emit(&value),
        }
    }
}

/// Prints a text. Whoever stops reading, as `head` does, has seen enough.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("cannot print"),
    }
}

/// The exit code of a command that asks somebody: an error means that there is no answer.
pub(crate) fn exit(result: anyhow::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(CANNOT_ASK)
    })
}
