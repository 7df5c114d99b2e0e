//! The steps of the quick run: under 12 minutes on two cores, from nothing.

use super::{Context, Place, Step, examples, marks, runner};
use crate::{cargo, graph, report::Outcome};

/// In the order that they run: what is answered soonest comes first.
pub(super) const STEPS: &[Step] = &[
    Step {
        name: "fmt",
        what: "the format is rustfmt's",
        run: fmt,
        place: Place::Any,
    },
    Step {
        name: "graph",
        what: "crates import only what they may",
        run: |context| graph::run(context.workspace).map(|()| Outcome::Passed),
        place: Place::Any,
    },
    Step {
        name: "marks",
        what: "an ignored test says where it runs",
        run: marks::check,
        place: Place::Any,
    },
    Step {
        name: "clippy",
        what: "no warning, in any target",
        run: clippy,
        place: Place::Any,
    },
    Step {
        name: "tests",
        what: "unit and integration tests",
        run: runner::quick,
        place: Place::Any,
    },
    Step {
        name: "doctests",
        what: "the examples in the documentation",
        run: doctests,
        place: Place::Any,
    },
    Step {
        name: "examples",
        what: "the examples build, run and end",
        run: examples::run,
        place: Place::Any,
    },
    Step {
        name: "docs",
        what: "the documentation builds without a warning",
        run: docs,
        place: Place::Any,
    },
];

fn fmt(context: &Context<'_>) -> anyhow::Result<Outcome> {
    if !cargo::has_subcommand(context.workspace.root(), "fmt") {
        return Ok(Outcome::Skipped("rustfmt is not installed".into()));
    }
    let mut command = context.cargo();
    command.arg("fmt");
    match &*context.packages.package {
        [] => command.arg("--all"),
        names => command.args(names.iter().map(|name| format!("--package={name}"))),
    };
    cargo::run(command.args(["--", "--check"]))?;
    Ok(Outcome::Passed)
}

fn clippy(context: &Context<'_>) -> anyhow::Result<Outcome> {
    if !cargo::has_subcommand(context.workspace.root(), "clippy") {
        return Ok(Outcome::Skipped("clippy is not installed".into()));
    }
    cargo::run(
        context
            .cargo()
            .arg("clippy")
            .args(context.packages.arguments())
            .args(["--all-targets", "--all-features", "--", "-D", "warnings"]),
    )?;
    Ok(Outcome::Passed)
}

fn doctests(context: &Context<'_>) -> anyhow::Result<Outcome> {
    if context.selected.iter().all(|it| it.library().is_none()) {
        return Ok(Outcome::Nothing("no library".into()));
    }
    cargo::run(
        context
            .cargo()
            .args(["test", "--doc", "--all-features", "--no-fail-fast"])
            .args(context.packages.arguments()),
    )?;
    Ok(Outcome::Passed)
}

fn docs(context: &Context<'_>) -> anyhow::Result<Outcome> {
    if context.selected.iter().all(|it| it.library().is_none()) {
        return Ok(Outcome::Nothing("no library".into()));
    }
    cargo::run(
        context
            .cargo()
            .args(["doc", "--no-deps"])
            .args(cargo::documented(&context.selected))
            .args(context.packages.arguments())
            .env("RUSTDOCFLAGS", "-D warnings"),
    )?;
    Ok(Outcome::Passed)
}
