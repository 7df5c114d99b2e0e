//! `cargo xtask test`: everything that must hold before a commit; with `--full`, before a push.
//!
//! The steps are two tables, [`quick::STEPS`] and [`full::STEPS`]: to add one is to add a line.
//!
//! Tests say by their name or their mark where they run:
//!
//! | a test | quick (unoptimized) | `--full` |
//! |---|---|---|
//! | any | yes | – |
//! | marked `#[ignore = "full: why"]` | no | unoptimized |
//! | in an integration test `tests/*_full.rs` | no | optimized |
//! | in an integration test `tests/*_gate.rs` | yes | optimized, with those that are ignored |

use std::cell::{Cell, OnceCell};

use anyhow::bail;

use self::beside::Beside;
use crate::{
    report::{self, Outcome, Report},
    venv::{self, Peers},
    workspace::{Package, Packages, Workspace},
};

mod beside;
mod examples;
mod features;
mod full;
mod marks;
mod quick;
mod runner;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Add what needs a release build, real peers (installed in target/venv) or more time
    #[arg(long)]
    full: bool,

    /// Only this step; may be repeated
    #[arg(long, value_name = "STEP")]
    step: Vec<String>,

    #[command(flatten)]
    packages: Packages,
}

/// One thing to check.
struct Step {
    name: &'static str,
    what: &'static str,
    run: fn(&Context<'_>) -> anyhow::Result<Outcome>,
    /// What may run at the same time.
    place: Place,
}

/// What a step may share the machine with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// With a step that runs beside it.
    Any,
    /// It runs beside those after it, until one of them has to be alone.
    Beside,
    /// With nothing: it is about time.
    Alone,
}

/// What a step works on.
struct Context<'a> {
    workspace: &'a Workspace,
    packages: &'a Packages,
    /// The packages that `packages` selects.
    selected: Vec<&'a Package>,
    peers: OnceCell<Result<Peers, String>>,
    /// Whether something runs beside the present step.
    shared: Cell<bool>,
}

/// Runs the steps and prints a table of them.
///
/// # Errors
///
/// If one fails; with `CI=true` also if one was skipped.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> anyhow::Result<()> {
    let context = Context {
        workspace,
        packages: &options.packages,
        selected: workspace.select(&options.packages)?,
        peers: OnceCell::new(),
        shared: Cell::new(false),
    };
    let mut report = Report::default();
    let steps = chosen(options)?;
    let mut begun = Vec::new();
    for step in &steps {
        if step.place == Place::Beside && steps.len() > 1 {
            println!("\n=== {}: begins, beside what follows", step.name);
            match Beside::begin(&context, step) {
                Ok(beside) => {
                    begun.push((step, beside));
                    context.shared.set(true);
                }
                Err(error) => report.step(step.name, step.what, || Err(error)),
            }
            continue;
        }
        if step.place == Place::Alone {
            end(&context, &mut report, &mut begun);
        }
        report.step(step.name, step.what, || (step.run)(&context));
    }
    end(&context, &mut report, &mut begun);
    report.finish(report::in_ci())
}

/// Waits for what runs beside.
fn end(context: &Context<'_>, report: &mut Report, begun: &mut Vec<(&&'static Step, Beside)>) {
    for (step, beside) in begun.drain(..) {
        report.step(step.name, step.what, || beside.end());
    }
    context.shared.set(false);
}

/// The steps to run, in their order. One that is named need not be asked for with `--full` too.
fn chosen(options: &Options) -> anyhow::Result<Vec<&'static Step>> {
    let all = || quick::STEPS.iter().chain(full::STEPS);
    if options.step.is_empty() {
        let quick = quick::STEPS.iter();
        return Ok(if options.full {
            all().collect()
        } else {
            quick.collect()
        });
    }
    for name in &options.step {
        if !all().any(|step| step.name == name) {
            let names: Vec<&str> = all().map(|step| step.name).collect();
            bail!("there is no step `{name}`, but {}", names.join(", "));
        }
    }
    Ok(all()
        .filter(|step| options.step.iter().any(|name| name == step.name))
        .collect())
}

// === impl Context ===

impl Context<'_> {
    /// Real peers, installed when they are first asked for; or why there are none.
    fn peers(&self) -> Result<&Peers, &str> {
        self.peers
            .get_or_init(|| venv::peers(self.workspace).map_err(|error| format!("{error:#}")))
            .as_ref()
            .map_err(String::as_str)
    }

    /// A cargo that runs in the root.
    fn cargo(&self) -> std::process::Command {
        let mut cargo = crate::cargo::cargo(self.workspace.root());
        if self.shared.get() && std::env::var_os("CARGO_BUILD_JOBS").is_none() {
            cargo.env("CARGO_BUILD_JOBS", beside::jobs().to_string());
        }
        cargo
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(full: bool, step: &[&str]) -> Options {
        Options {
            full,
            step: step.iter().map(|name| (*name).to_owned()).collect(),
            packages: Packages::default(),
        }
    }

    fn names(options: &Options) -> Vec<&'static str> {
        let chosen = chosen(options).unwrap();
        chosen.into_iter().map(|step| step.name).collect()
    }

    #[test]
    fn the_full_run_begins_with_the_quick_one() {
        let (quick, full) = (names(&options(false, &[])), names(&options(true, &[])));
        assert!(full.starts_with(&quick));
        assert!(full.len() > quick.len());
    }

    #[test]
    fn no_two_steps_have_one_name() {
        let names = names(&options(true, &[]));
        let unique: std::collections::BTreeSet<&str> = names.iter().copied().collect();
        assert_eq!(unique.len(), names.len());
    }

    #[test]
    fn named_steps_run_alone_and_in_their_own_order() {
        assert_eq!(
            names(&options(false, &["clippy", "fmt"])),
            ["fmt", "clippy"]
        );
        assert_eq!(names(&options(false, &["gates"])), ["gates"]);
    }

    #[test]
    fn a_step_that_is_not_there_is_refused_with_those_that_are() {
        let Err(error) = chosen(&options(false, &["clipy"])) else {
            panic!("there is no such step");
        };
        assert!(error.to_string().contains("clippy"));
    }
}
