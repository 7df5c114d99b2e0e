//! The steps that `--full` adds: what needs a release build, real peers or more time.

use std::{
    fs::{self, File},
    path::Path,
    process::Command,
    time::{Duration, Instant, SystemTime},
};

use anyhow::Context as _;

use super::{Context, Place, Step, features, runner};
use crate::{
    api::{self, OtherFormat},
    cargo, instructions,
    report::Outcome,
};

/// In the order that they run.
pub(super) const STEPS: &[Step] = &[
    Step {
        name: "api",
        what: "the public API is as listed",
        run: api,
        place: Place::Any,
    },
    Step {
        name: "advisories",
        what: "no dependency has a known weakness (cargo-deny, where it is installed)",
        run: |context| crate::advisories::check(context.workspace.root()),
        place: Place::Any,
    },
    Step {
        name: "peers",
        what: "a real Envoy and gRPC are in target/venv and start",
        run: peers,
        place: Place::Any,
    },
    Step {
        name: "oracle",
        what: "generated configurations and requests, with a real Envoy as the judge",
        run: oracle,
        place: Place::Beside,
    },
    Step {
        name: "features",
        what: "each crate builds alone, with each feature alone",
        run: features::run,
        place: Place::Any,
    },
    Step {
        name: "fuzz",
        what: "every fuzz target, for a few seconds",
        run: |context| crate::fuzz::smoke(context.workspace).map(|()| Outcome::Passed),
        place: Place::Any,
    },
    Step {
        name: "instructions",
        what: "how many instructions the hot path takes, against benches/instructions.txt",
        run: instructions,
        place: Place::Any,
    },
    Step {
        name: "marked",
        what: "tests with #[ignore = \"full: …\"]",
        run: runner::marked,
        place: Place::Alone,
    },
    Step {
        name: "full",
        what: "tests/*_full.rs, and the binaries that are shipped, optimized",
        run: runner::full,
        place: Place::Alone,
    },
    Step {
        name: "gates",
        what: "budgets for allocations and sizes (tests/*_gate.rs), optimized",
        run: runner::gates,
        place: Place::Alone,
    },
    Step {
        name: "build-times",
        what: "how long one waits for the compiler (printed, not judged)",
        run: build_times,
        place: Place::Alone,
    },
];

fn api(context: &Context<'_>) -> anyhow::Result<Outcome> {
    if !context.selected.iter().any(|it| it.is_public_library()) {
        return Ok(Outcome::Nothing("no published library".into()));
    }
    match api::compare(context.workspace, context.packages) {
        Ok(()) => Ok(Outcome::Passed),
        Err(error) if error.is::<OtherFormat>() => Ok(Outcome::Skipped(error.to_string())),
        Err(error) => Err(error),
    }
}

fn peers(context: &Context<'_>) -> anyhow::Result<Outcome> {
    let peers = match context.peers() {
        Ok(peers) => peers,
        Err(why) => return Ok(Outcome::Skipped(why.to_owned())),
    };
    cargo::run(Command::new(&peers.envoy).arg("--version"))?;
    let import = "import grpc, grpc_csds, yaml; print('gRPC', grpc.__version__)";
    cargo::run(Command::new(&peers.python).args(["-c", import]))?;
    Ok(Outcome::Passed)
}

fn oracle(context: &Context<'_>) -> anyhow::Result<Outcome> {
    if !context.selected.iter().any(|it| it.name == "mesh-oracle") {
        return Ok(Outcome::Nothing("mesh-oracle is not selected".into()));
    }
    match context.peers() {
        Ok(peers) => crate::oracle::fixed(context.workspace, &peers.envoy),
        Err(why) => return Ok(Outcome::Skipped(why.to_owned())),
    }
    .map(|()| Outcome::Passed)
}

fn instructions(context: &Context<'_>) -> anyhow::Result<Outcome> {
    if !context.selected.iter().any(|it| it.name == "mesh-benches") {
        return Ok(Outcome::Nothing("mesh-benches is not selected".into()));
    }
    if !instructions::is_possible() {
        return Ok(Outcome::Skipped(
            "valgrind is missing (Debian: apt-get install valgrind)".into(),
        ));
    }
    instructions::run(context.workspace, &instructions::Options::default())?;
    Ok(Outcome::Passed)
}

/// What the layers must build in, from nothing and on two cores.
const COLD: Duration = Duration::from_secs(60);
/// What the proxy must check in, after a change in one layer.
const WARM: Duration = Duration::from_secs(5);

fn build_times(context: &Context<'_>) -> anyhow::Result<Outcome> {
    const LAYERS: [&str; 4] = ["mesh-core", "mesh-route", "mesh-lb", "mesh-resilience"];
    let names: Vec<&str> = context.selected.iter().map(|it| &*it.name).collect();
    if !LAYERS.iter().all(|layer| names.contains(layer)) || !names.contains(&"mesh-proxy") {
        return Ok(Outcome::Nothing("needs the whole workspace".into()));
    }
    let target = context.workspace.target().join("build-times");
    if target.exists() {
        fs::remove_dir_all(&target).with_context(|| format!("cannot empty {target:?}"))?;
    }
    let cold = time(
        context
            .cargo()
            .args(["build", "--quiet", "--jobs=2", "--target-dir"])
            .arg(&target)
            .args(LAYERS.map(|name| format!("--package={name}"))),
    )?;
    fs::remove_dir_all(&target).with_context(|| format!("cannot empty {target:?}"))?;

    let mut check = context.cargo();
    check
        .args(["check", "--quiet", "--package=mesh-proxy"])
        .env("CARGO_INCREMENTAL", "1");
    time(&mut check)?;
    touch(
        &context
            .workspace
            .root()
            .join("crates/mesh-resilience/src/lib.rs"),
    )?;
    let warm = time(&mut check)?;

    say("the four layer crates from nothing, two jobs", cold, COLD);
    say("`cargo check -p mesh-proxy` after touching one", warm, WARM);
    Ok(Outcome::Passed)
}

fn time(command: &mut Command) -> anyhow::Result<Duration> {
    let start = Instant::now();
    cargo::run(command)?;
    Ok(start.elapsed())
}

fn say(what: &str, took: Duration, budget: Duration) {
    let verdict = if took > budget {
        "OVER its"
    } else {
        "within its"
    };
    let (took, budget) = (took.as_secs_f64(), budget.as_secs());
    println!("{what}: {took:.1} s, {verdict} budget of {budget} s");
}

/// Makes a file look changed.
fn touch(file: &Path) -> anyhow::Result<()> {
    File::options()
        .append(true)
        .open(file)
        .and_then(|file| file.set_modified(SystemTime::now()))
        .with_context(|| format!("cannot touch {file:?}"))
}
