//! Real Envoy as the judge: configurations and requests from a seed, the same for Envoy and for
//! us, and everything that can be seen from outside compared.
//!
//! `cargo xtask oracle` builds and runs it. The last line of its output is
//! `N configs, M requests, D differences`, and it succeeds only if D is 0.

#![forbid(unsafe_code)]

mod allowed;
mod area;
mod backend;
mod callers;
mod chance;
mod config;
mod counters;
mod coverage;
mod dice;
mod difference;
mod embedded;
mod envoy;
mod facts;
mod pace;
mod process;
mod request;
mod run;
mod shrink;
mod stage;
mod wire;
mod wire2;

use anyhow::bail;
use area::{AREAS, Area};
use clap::Parser;
use config::Config;
use coverage::Coverage;
use dice::Dice;
use difference::Found;
use run::{Order, Outcome, Runner};
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Configurations that are tried together.
const TOGETHER: usize = 24;
/// How often a difference has to come up again where it may be a matter of time, and elsewhere:
/// limits of half a second are met by a machine that is busy enough.
const AGAIN: usize = 2;
const ONCE_MORE: usize = 1;
/// How often one is tried again that was not in time.
const LATE: usize = 6;
/// Differences that are made small; the others are only counted.
const SHRUNK: usize = 40;
/// No more are begun after this time.
const SHRINKING: Duration = Duration::from_secs(90);

/// Compare the mesh with a real Envoy
#[derive(Debug, Parser)]
#[command(name = "mesh-oracle")]
struct Arguments {
    /// The binary of Envoy
    #[arg(long, env = "MESH_ENVOY")]
    envoy: String,

    /// What everything that is generated depends on
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Configurations over all areas
    #[arg(long, default_value_t = 300)]
    configs: usize,

    /// Requests over all configurations
    #[arg(long, default_value_t = 10_500)]
    requests: usize,

    /// Only this area; may be repeated
    #[arg(long, value_name = "AREA")]
    only: Vec<String>,

    /// Show differences as they are found instead of making them small
    #[arg(long)]
    no_shrink: bool,

    /// Also list every difference in one line, configurations left out, and why configurations were
    /// refused
    #[arg(long)]
    every: bool,

    /// Do not fail for what was not exercised enough, as in a run that is short on purpose
    #[arg(long)]
    no_coverage: bool,
}

fn main() -> ExitCode {
    if let Some(arguments) = process::of_a_subject() {
        return process::become_subject(arguments);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let outcome = runtime
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(run(&Arguments::parse())));
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("oracle: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether nothing differs and enough was tried.
async fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    let areas = chosen(&arguments.only)?;
    let names: Vec<&str> = areas.iter().map(|area| area.name).collect();
    let began = Instant::now();
    let directory = tempfile::tempdir()?;
    let mut runner = Runner::start(&arguments.envoy, directory.path()).await?;
    let configs = generated(arguments, &areas);
    let mut judged = Judged::default();
    let mut doubted = (0, 0);
    let mut waiting = Vec::new();
    for batch in configs.chunks(TOGETHER) {
        let batch: Vec<&Config> = batch.iter().collect();
        let outcomes = runner.batch(&batch, Order::AtOnce).await?;
        let (outcomes, again) = believed(&mut runner, &batch, outcomes).await?;
        doubted = (doubted.0 + again.0, doubted.1 + again.1);
        for (config, outcome) in batch.iter().zip(outcomes) {
            if outcome.late {
                waiting.push(*config);
            } else {
                judged.take(arguments, config, outcome);
            }
        }
    }
    // Who was never in time among others is tried once more alone, when the machine may have less
    // to do.
    for config in waiting {
        let outcomes = runner.batch(&[config], Order::InTurn).await?;
        let (outcomes, again) = believed(&mut runner, &[config], outcomes).await?;
        doubted = (doubted.0 + again.0, doubted.1 + again.1 + 1);
        for outcome in outcomes {
            judged.take(arguments, config, outcome);
        }
    }
    let Judged {
        coverage,
        excused,
        found,
        open,
        mut differences,
    } = judged;
    let requests = coverage.requests;
    if arguments.every {
        for it in &found {
            println!("{}", it.in_one_line());
        }
    }
    runner.thorough = true;
    report(&mut runner, &found, arguments.no_shrink).await?;
    println!("{coverage}");
    for (subject, fact, why) in stage::istio::left_out() {
        println!("not compared: {subject}: {fact}: {why}");
    }
    for (at, it) in allowed::ALLOWED.iter().enumerate() {
        let times = excused.get(&at).copied().unwrap_or_default();
        println!("allowed: {times} × {}: {}", it.id, it.reason);
    }
    for (at, it) in allowed::OPEN.iter().enumerate() {
        let times = open.get(&at).copied().unwrap_or_default();
        println!("open: {times} × {}: {}", it.id, it.reason);
    }
    differences += found.len();
    let lacking = coverage.lacking(&names);
    let enough = lacking.is_empty() || arguments.no_coverage;
    println!(
        "tried again: {} times because something differed, {} times because it was late",
        doubted.0, doubted.1
    );
    for it in &lacking {
        println!("not exercised enough: {it}");
    }
    println!(
        "areas: {}; seed {}; {:.0?}",
        names.join(", "),
        arguments.seed,
        began.elapsed()
    );
    println!(
        "{} configs, {requests} requests, {differences} differences",
        configs.len()
    );
    Ok(differences == 0 && enough)
}

/// What came of all configurations.
#[derive(Default)]
struct Judged {
    coverage: Coverage,
    /// By the place of who allows it.
    excused: BTreeMap<usize, usize>,
    open: BTreeMap<usize, usize>,
    found: Vec<Found>,
    /// Beside those that are found: the open ones.
    differences: usize,
}

impl Judged {
    fn take(&mut self, arguments: &Arguments, config: &Config, outcome: Outcome) {
        self.coverage.note(config, &outcome);
        if let Some((peer, why)) = outcome.refused.first().filter(|_| arguments.every) {
            let line: Vec<&str> = why.split_whitespace().collect();
            println!("refused by {peer}: {}", line.join(" "));
        }
        for difference in outcome.differences {
            let explains = |list| allowed::explains(list, &difference, config);
            if let Some(at) = explains(allowed::ALLOWED) {
                *self.excused.entry(at).or_default() += 1;
            } else if let Some(at) = explains(allowed::OPEN) {
                *self.open.entry(at).or_default() += 1;
                self.differences += 1;
            } else {
                let config = config.clone();
                self.found.push(Found { config, difference });
            }
        }
    }
}

/// Tries those again that differ or were not in time: as long as they do, and so many times at
/// most. Says how many tries that were, for either reason.
async fn believed(
    runner: &mut Runner,
    batch: &[&Config],
    mut outcomes: Vec<Outcome>,
) -> anyhow::Result<(Vec<Outcome>, (usize, usize))> {
    let mut tries = (0, 0);
    // How often each differed, and how often it was late.
    let mut times = vec![(0, 0); batch.len()];
    loop {
        let mut doubted = Vec::new();
        for (at, (differed, late)) in times.iter_mut().enumerate() {
            let found = outcomes[at].differences.iter();
            let mut found =
                found.filter(|it| allowed::explains(allowed::ALLOWED, it, batch[at]).is_none());
            let most = if batch[at].is_timed() {
                AGAIN
            } else {
                ONCE_MORE
            };
            if outcomes[at].late && *late < LATE {
                *late += 1;
                tries.1 += 1;
                doubted.push(at);
            } else if found.next().is_some() && *differed < most {
                *differed += 1;
                tries.0 += 1;
                doubted.push(at);
            }
        }
        if doubted.is_empty() {
            break;
        }
        let configs: Vec<&Config> = doubted.iter().map(|at| batch[*at]).collect();
        let again = runner.batch(&configs, Order::InTurn).await?;
        for (at, outcome) in doubted.into_iter().zip(again) {
            outcomes[at] = outcome;
        }
    }
    for (config, outcome) in batch.iter().zip(&mut outcomes) {
        // What comes later follows from the first: another host has answered, or is out.
        let calls = outcome.differences.iter().filter_map(|it| it.call);
        if let Some(first) = calls.min().filter(|_| config.is_timed()) {
            outcome.differences.retain(|it| it.call == Some(first));
        }
    }
    Ok((outcomes, tries))
}

fn chosen(only: &[String]) -> anyhow::Result<Vec<Area>> {
    for name in only {
        if !AREAS.iter().any(|area| area.name == name) {
            let names: Vec<&str> = AREAS.iter().map(|area| area.name).collect();
            bail!("there is no area `{name}`, but {}", names.join(", "));
        }
    }
    let wanted = |area: &&Area| only.is_empty() || only.iter().any(|name| name == area.name);
    Ok(AREAS.iter().filter(wanted).copied().collect())
}

fn generated(arguments: &Arguments, areas: &[Area]) -> Vec<Config> {
    let shares: usize = areas.iter().map(|area| area.share).sum();
    let each = arguments.requests.div_ceil(arguments.configs.max(1)).max(1);
    let mut configs = Vec::new();
    for (n, area) in areas.iter().enumerate() {
        let number = (arguments.configs * area.share).div_ceil(shares);
        // An area alone is the same as among others.
        let place = AREAS
            .iter()
            .position(|it| it.name == area.name)
            .unwrap_or(n);
        for config in 0..number {
            let stream = (place as u64) << 32 | config as u64;
            configs.push((area.generate)(&mut Dice::of(arguments.seed, stream), each));
        }
    }
    configs
}

/// Prints one small case of each kind of difference.
async fn report(runner: &mut Runner, found: &[Found], as_they_are: bool) -> anyhow::Result<()> {
    let began = Instant::now();
    let mut kinds = BTreeMap::<String, (usize, &Found)>::new();
    for it in found {
        let (peer, fact, how) = it.difference.signature();
        let kind = format!("{} {peer} {fact}: {how}", it.config.area);
        kinds.entry(kind).or_insert((0, it)).0 += 1;
    }
    let mut kinds: Vec<_> = kinds.into_iter().collect();
    kinds.sort_by_key(|(_, (times, _))| std::cmp::Reverse(*times));
    for (n, (kind, (times, it))) in kinds.into_iter().enumerate() {
        println!("=== {times} × {kind}");
        let mut it = it.clone();
        if n < SHRUNK && !as_they_are && began.elapsed() < SHRINKING {
            it = shrink::shrink(runner, it).await?;
        }
        println!("{it}");
    }
    Ok(())
}
