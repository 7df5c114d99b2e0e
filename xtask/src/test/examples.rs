//! The examples: those of the crates, and the packages under `examples/`. Each is built, run from
//! the workspace's root as its reader runs it, and must end by itself.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use serde::Deserialize;
use serde_json::Value;

use super::Context;
use crate::{cargo, report::Outcome, workspace::Package};

/// How long an example may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// How an example is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// With these arguments (`--once` for one that serves), until it exits with this code.
    Run(&'static [&'static str], i32),
    /// Not at all, for this reason.
    Build(&'static str),
}

/// The examples that are not simply run without arguments until they exit with 0.
const SPECIAL: &[(&str, How)] = &[
    // What it shows is how a mistake in YAML is reported.
    ("check", How::Run(&[], 1)),
    (
        "watch",
        How::Build("follows a control plane until it is interrupted"),
    ),
    ("hello", How::Run(&["--once"], 0)),
    ("cost", How::Build("a measurement, which needs an upstream")),
    (
        "versus",
        How::Build("a measurement, which serves until it is interrupted"),
    ),
    (
        "bookinfo",
        How::Build("serves until it is interrupted; its tests and the demo run it"),
    ),
    (
        "httpbin",
        How::Build("serves until it is interrupted; its tests and the demo run it"),
    ),
];

/// A target that cargo built.
#[derive(Debug, Deserialize)]
struct Artifact {
    package_id: String,
    target: ArtifactTarget,
    executable: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct ArtifactTarget {
    name: String,
    kind: Vec<String>,
}

pub(super) fn run(context: &Context<'_>) -> anyhow::Result<Outcome> {
    let known: Vec<&str> = context
        .workspace
        .metadata
        .members()
        .flat_map(|package| names(context, package))
        .collect();
    if let Some((name, _)) = SPECIAL.iter().find(|(name, _)| !known.contains(name)) {
        bail!("there is no example `{name}` any more; xtask/src/test/examples.rs names it");
    }

    let mut failed = Vec::new();
    let built = build(context)?;
    let log = context.workspace.target().join("xtask-example.log");
    for (name, program) in &built {
        match how(name) {
            How::Build(why) => println!("{name}: built; {why}"),
            How::Run(arguments, code) => {
                let mut command = Command::new(program);
                command
                    .args(arguments)
                    .current_dir(context.workspace.root());
                match finish(&mut command, &log, PATIENCE) {
                    Ok(status) if status.code() == Some(code) => println!("{name}: {status}"),
                    Ok(status) => failed.push(format!("{name} ended with {status}")),
                    Err(error) => failed.push(format!("{name}: {error:#}")),
                }
                if failed.last().is_some_and(|last| last.starts_with(name)) {
                    print!("{}", fs::read_to_string(&log).unwrap_or_default());
                }
            }
        }
    }
    if !failed.is_empty() {
        bail!("{}", failed.join("; "));
    }
    Ok(match built.len() {
        0 => Outcome::Nothing("no example".into()),
        _ => Outcome::Passed,
    })
}

fn how(name: &str) -> How {
    SPECIAL
        .iter()
        .find(|(special, _)| *special == name)
        .map_or(How::Run(&[], 0), |(_, how)| *how)
}

/// The examples of a package: its example targets, and the programs of one under `examples/`.
fn names<'a>(context: &Context<'_>, package: &'a Package) -> Vec<&'a str> {
    let mut names: Vec<&str> = package.targets("example").collect();
    if context.workspace.folder(package).starts_with("examples") {
        names.extend(package.targets("bin"));
    }
    names
}

/// Builds the examples, and finds out from cargo where it put them.
fn build(context: &Context<'_>) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let messages = cargo::output_of(
        context
            .cargo()
            .args(["build", "--examples", "--bins", "--all-features"])
            .arg("--message-format=json-render-diagnostics")
            .args(context.packages.arguments()),
    )?;
    let mut built = Vec::new();
    for line in messages.lines() {
        let message: Value = serde_json::from_str(line).context("cannot read what cargo built")?;
        if message["reason"] != "compiler-artifact" {
            continue;
        }
        let artifact: Artifact = serde_json::from_value(message)?;
        let Some(package) = context
            .selected
            .iter()
            .find(|package| package.id == artifact.package_id)
        else {
            continue;
        };
        let is_program = artifact.target.kind.iter().any(|kind| kind != "lib");
        if let Some(executable) = artifact.executable
            && is_program
            && names(context, package).contains(&artifact.target.name.as_str())
        {
            built.push((artifact.target.name, executable));
        }
    }
    built.sort();
    Ok(built)
}

/// Runs a program to its end, with what it prints going to a file.
///
/// # Errors
///
/// If it cannot be started, or has not ended in time; then it is killed.
fn finish(command: &mut Command, log: &Path, patience: Duration) -> anyhow::Result<ExitStatus> {
    let output = File::create(log).with_context(|| format!("cannot create {log:?}"))?;
    let start = Instant::now();
    let mut child = command
        .stdin(std::process::Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()
        .context("cannot be started")?;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if start.elapsed() > patience {
            child.kill()?;
            child.wait()?;
            bail!("did not end within {} s", patience.as_secs());
        }
        thread::park_timeout(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_program_is_run_to_its_end_and_what_it_printed_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let mut command = shell("echo to one; echo to the other >&2; exit 3");
        let status = finish(&mut command, &log, PATIENCE).unwrap();
        assert_eq!(status.code(), Some(3));
        assert_eq!(fs::read_to_string(log).unwrap(), "to one\nto the other\n");
    }

    #[test]
    fn a_program_that_does_not_end_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = shell("exec cat /dev/zero >/dev/null");
        let error = finish(&mut command, &folder.path().join("log"), Duration::ZERO).unwrap_err();
        assert_eq!(error.to_string(), "did not end within 0 s");
    }

    #[test]
    fn an_example_runs_without_arguments_unless_it_is_listed() {
        assert_eq!(how("snapshot"), How::Run(&[], 0));
        assert!(matches!(how("httpbin"), How::Build(_)));
    }
}
