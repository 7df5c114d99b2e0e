//! `mesh test`: expectations of a configuration, for people and for CI.

mod check;
mod report;

use crate::explain::mesh::Mesh;
use crate::node::NodeArgs;
use crate::output;
use crate::style::Style;
use anyhow::{Context, bail};
use check::Mismatch;
use mesh_core::model::Snapshot;
use mesh_istio::Diagnostic;
use mesh_istio::expect::{Suite, Test};
use mesh_proxy::explain::{POLICIES, Question, explain};
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// What `mesh test` is told.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Files of expectations, in YAML.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// A file or directory of the configuration, instead of those that the expectations name. May
    /// be given more than once.
    #[arg(long, num_args = 1, value_name = "DIR_OR_FILE")]
    config: Vec<PathBuf>,
    /// A MeshConfig, if it is not the ConfigMap `istio` among the objects.
    #[arg(long, value_name = "FILE")]
    mesh_config: Option<PathBuf>,
    #[command(flatten)]
    node: NodeArgs,
    /// How to print the results: for people, in the Test Anything Protocol, or as JSON.
    #[arg(long, short, value_enum, default_value = "text")]
    output: Form,
    /// Print JSON; the same as --output json.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    Text,
    Tap,
    Json,
}

/// What became of a test.
#[derive(Debug)]
struct Outcome {
    file: String,
    test: Test,
    /// Empty where all is as expected.
    mismatches: Vec<Mismatch>,
    explanation: Value,
}

/// The configuration of one file of expectations, compiled once for each node.
struct Stage<'a> {
    args: &'a Args,
    suite: &'a Suite,
    mesh: Mesh,
    snapshots: HashMap<Option<String>, Arc<Snapshot>>,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    output::exit(test(args))
}

fn test(args: &Args) -> anyhow::Result<ExitCode> {
    let mut outcomes = Vec::new();
    for file in &args.files {
        outcomes.extend(results(args, file)?);
    }
    let form = if args.json { Form::Json } else { args.output };
    let text = match form {
        Form::Text => report::text(&outcomes, Style::of_stdout()),
        Form::Tap => report::tap(&outcomes),
        Form::Json => output::Text::Json.of(report::json(&outcomes)),
    };
    output::print(&text)?;
    let failed = outcomes.iter().any(|one| !one.mismatches.is_empty());
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn results(args: &Args, file: &Path) -> anyhow::Result<Vec<Outcome>> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {name}"))?;
    let suite = match Suite::read(&name, &text) {
        Ok(suite) => suite,
        Err(findings) => {
            say(&findings);
            bail!("{name} has {} error(s)", findings.len());
        }
    };
    know_policies(&name, &suite)?;
    let mut stage = Stage::new(args, &suite, file)?;
    let tests = suite.tests.iter();
    tests
        .map(|test| {
            let at = || format!("{name}:{}:{}", test.line, test.column);
            let explanation = stage.explain(test).with_context(at)?;
            Ok(Outcome {
                file: name.clone(),
                mismatches: check::check(&test.expect, &explanation),
                test: test.clone(),
                explanation,
            })
        })
        .collect()
}

/// Refuses names that no policy has: of those nothing would ever be found, and `none` always met.
fn know_policies(file: &str, suite: &Suite) -> anyhow::Result<()> {
    let mut errors = 0;
    for test in &suite.tests {
        let names = test.expect.policy.iter().map(|(name, _)| name.as_str());
        for name in names.filter(|name| !POLICIES.contains(name)) {
            eprintln!(
                "error: {file}:{}:{}: no policy is called {name:?}: expected {}",
                test.line,
                test.column,
                POLICIES.join(", ")
            );
            errors += 1;
        }
    }
    match errors {
        0 => Ok(()),
        _ => bail!("{file} has {errors} error(s)"),
    }
}

/// A path without `x/..`, so that it reads well where it is shown.
fn tidy(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match (part, out.components().next_back()) {
            (Component::ParentDir, Some(Component::Normal(_))) => {
                out.pop();
            }
            (Component::CurDir, _) => {}
            _ => out.push(part),
        }
    }
    out
}

fn say(findings: &[Diagnostic]) {
    for finding in findings {
        eprintln!("{}", finding.render());
    }
}

// === impl Stage ===

impl<'a> Stage<'a> {
    fn new(args: &'a Args, suite: &'a Suite, file: &Path) -> anyhow::Result<Self> {
        let beside = file.parent().unwrap_or_else(|| Path::new(""));
        let config = match args.config.is_empty() {
            true => suite
                .config
                .iter()
                .map(|path| tidy(&beside.join(path)))
                .collect(),
            false => args.config.clone(),
        };
        if config.is_empty() {
            bail!(
                "{}: which configuration? expected config: [PATH, …] in the file, or --config",
                file.display()
            );
        }
        let own = suite.mesh_config.as_ref().map(|path| beside.join(path));
        let mesh_config = args.mesh_config.clone().or(own);
        let (mesh, findings) = Mesh::read(&config, mesh_config.as_deref());
        say(&findings);
        let mesh = mesh.context("the configuration is refused")?;
        Ok(Self {
            args,
            suite,
            mesh,
            snapshots: HashMap::new(),
        })
    }

    fn explain(&mut self, test: &Test) -> anyhow::Result<Value> {
        let headers = test
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}"));
        let question = Question::parse(&test.request, headers)?.listener(test.listener.clone());
        let snapshot = self.snapshot(test)?;
        Ok(serde_json::from_str(&explain(&snapshot, &question)?)?)
    }

    /// What the node of a test is configured with: the flags', else the test's, else the file's. The
    /// file's labels are those of the file's node.
    fn snapshot(&mut self, test: &Test) -> anyhow::Result<Arc<Snapshot>> {
        let id = test.node.clone().or_else(|| self.suite.node.clone());
        if let Some(known) = self.snapshots.get(&id) {
            return Ok(known.clone());
        }
        let labels = match id == self.suite.node {
            true => self.suite.labels.as_slice(),
            false => &[],
        };
        let node = self.args.node.named_or_sidecar(id.as_deref(), labels)?;
        let snapshot = self.mesh.snapshot(&node)?;
        let snapshot = snapshot.context("the configuration is refused for this node")?;
        self.snapshots.insert(id, snapshot.clone());
        Ok(snapshot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_beside_a_file_read_well() {
        for (path, tidied) in [
            (
                "examples/expectations/../bookinfo/mesh",
                "examples/bookinfo/mesh",
            ),
            ("../../a/./b", "../../a/b"),
            ("/a/../b", "/b"),
            ("a/b/../../c", "c"),
        ] {
            assert_eq!(tidy(Path::new(path)), Path::new(tidied));
        }
    }
}
