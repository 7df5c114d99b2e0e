//! `cargo xtask bench soak`: mesh-proxy with the list of `benches/peers/FEATURES.md`, for long, while
//! its configuration changes and callers and backends break off what they began.
//!
//! It is good if memory stays what it was after a while, all connections, requests, tasks and
//! descriptors are gone when the callers are, each change came into force, and no request failed
//! but those that the backend did not answer.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};

use super::{
    machine::{self, Cores},
    peer::{Kind, Peer},
    ports::Ports,
    probe,
    process::{Process, Program},
    run::{self, Ground, Running},
    tools::Tools,
};
use crate::workspace::Workspace;

use config::Config;
use record::{Load, Record, Sample};

mod config;
mod record;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How long it lasts; a fifth of that is for warming up
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=1440))]
    minutes: u32,

    /// Percent of what the proxy can serve of such callers
    #[arg(long, default_value_t = 70, value_parser = clap::value_parser!(u32).range(1..=100))]
    load: u32,

    /// Write all samples to this file, as JSON
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// How often it is looked at the proxy, and how often its configuration changes.
const SAMPLE: Duration = Duration::from_secs(10);
const CHANGE: Duration = Duration::from_secs(2);
/// How long it is watched what the proxy can serve.
const FIRST: u32 = 5;
/// How long what the callers left behind may last: idle connections to the backend are kept for
/// an hour, all others end at once.
const SETTLE: Duration = Duration::from_secs(20);

/// One request in so many the backend does not answer, callers leave, and one comes on a new connection.
const BREAKS: u32 = 2_000;
const LEAVES: u32 = 1_000;
const RENEWS: u32 = 500;

/// Runs it, and prints what came of it.
///
/// # Errors
///
/// If a program is missing or ends, or something is not as it has to be.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> anyhow::Result<()> {
    let tools = Tools::find(workspace);
    let peers = tools.usable(&[Kind::Mesh]);
    let peer = peers.first().context("mesh-proxy is always there")?;
    run::on_ground(workspace, &tools, &peers, |ground, ports| {
        let record = soak(ground, ports, &ground.built.of(peer), options)?;
        if let Some(out) = &options.out {
            let text = serde_json::to_string_pretty(&record)?;
            fs::write(out, text).with_context(|| format!("cannot write {out:?}"))?;
        }
        println!("{record}");
        let wrong = record.wrong();
        ensure!(wrong.is_empty(), "{}", wrong.join("; "));
        Ok(())
    })
}

fn soak(
    ground: &Ground<'_>,
    ports: &mut Ports,
    peer: &Peer,
    options: &Options,
) -> anyhow::Result<Record> {
    println!("{}", machine::model());
    let cores = Cores::of(machine::cores(), 1);
    let _backend = ground.backend(&cores, &[format!("--breaks={BREAKS}")])?;
    let mut running = ground.start(peer, &ground.setting(ports, 1)?, &cores)?;
    let mut config = Config::of(&ground.folder)?;
    let most = calls(ground, &running, &cores, 0, FIRST)?.finish(limit(FIRST))?;
    let most: Load = serde_json::from_str(&most).with_context(|| most.clone())?;
    let rate = (most.rate * f64::from(options.load) / 100.0) as u32;
    println!(
        "{:.0} requests a second are all that go; {rate} from now on",
        most.rate
    );
    machine::pause(SAMPLE);
    let before = sample(&running, 0)?;
    let unanswered = broken(ground)?;
    let failed = failures(&running)?;

    let seconds = options.minutes * 60;
    let mut load = calls(ground, &running, &cores, rate, seconds)?;
    let begun = Instant::now();
    let (mut samples, mut slowest) = (Vec::new(), Duration::ZERO);
    while !load.has_ended() {
        if running.process.has_ended() {
            bail!("the proxy ended: {}", running.process.said());
        }
        slowest = slowest.max(config.change(&running)?);
        if begun.elapsed() >= SAMPLE * (samples.len() as u32 + 1) {
            let one = sample(&running, begun.elapsed().as_secs())?;
            println!("{one}");
            samples.push(one);
            running.forget_the_log();
        }
        machine::pause(CHANGE);
    }
    let said = load.finish(limit(0))?;
    let load: Load = serde_json::from_str(&said).with_context(|| said.clone())?;
    let after = settled(&running, &before)?;
    let mut failures = failures(&running)?;
    for (how, number) in failed {
        *failures.entry(how).or_default() -= number;
    }
    failures.retain(|_, number| *number > 0);
    Ok(Record {
        load,
        samples,
        before,
        after,
        changes: config.generation,
        slowest: slowest.as_millis() as u64,
        unanswered: broken(ground)? - unanswered,
        failures,
    })
}

/// Callers of all kinds; 0 is as many requests as go.
fn calls(
    ground: &Ground<'_>,
    running: &Running,
    cores: &Cores,
    rate: u32,
    seconds: u32,
) -> anyhow::Result<Process> {
    let listens = running.listens;
    let at = |name: &str, port: u16| format!("--{name}=127.0.0.1:{port}");
    Program::new(&ground.built.load)
        .arguments(["churn"])
        .arguments([
            at("h1", listens.h1),
            at("h2", listens.h2c),
            at("tls", listens.tls),
        ])
        .arguments([format!("--rate={rate}"), format!("--seconds={seconds}")])
        .arguments([format!("--leaves={LEAVES}"), format!("--renews={RENEWS}")])
        .start(&cores.generator, &ground.folder, "churn")
}

fn limit(seconds: u32) -> Duration {
    Duration::from_secs(u64::from(seconds) + 60)
}

/// How many requests the backend did not answer so far.
fn broken(ground: &Ground<'_>) -> anyhow::Result<u64> {
    let answer = probe::get(ground.upstreams[0], "/broken", &[])?;
    answer.body.trim().parse().context("a number is expected")
}

fn sample(running: &Running, second: u64) -> anyhow::Result<Sample> {
    let id = running.process.id();
    let count = |what: &str| fs::read_dir(format!("/proc/{id}/{what}")).map(Iterator::count);
    let stats = probe::get(running.listens.admin, "/stats", &[])?.body;
    Ok(Sample {
        second,
        kilobytes: machine::resident(&[id]),
        descriptors: count("fd")? as u64,
        threads: count("task")? as u64,
        tasks: sum(&stats, "server.", "tasks"),
        callers: sum(&stats, "http.", "downstream_cx_active"),
        upstream: sum(&stats, "cluster.", "upstream_cx_active"),
        requests: sum(&stats, "http.", "downstream_rq_active")
            + sum(&stats, "cluster.", "upstream_rq_active"),
    })
}

/// The sum of all statistics that begin and end like this.
fn sum(stats: &str, prefix: &str, name: &str) -> u64 {
    let lines = stats.lines().filter_map(|line| line.rsplit_once(": "));
    let lines =
        lines.filter(|(of, _)| of.starts_with(prefix) && of.rsplit('.').next() == Some(name));
    lines
        .filter_map(|(_, value)| value.parse::<u64>().ok())
        .sum()
}

/// What is left when nobody calls any more: looked at until it is as little as before, or it is time.
fn settled(running: &Running, before: &Sample) -> anyhow::Result<Sample> {
    let start = Instant::now();
    loop {
        machine::pause(CHANGE);
        let after = sample(running, 0)?;
        let is_calm = after.lasting(before).is_empty();
        if is_calm || start.elapsed() > SETTLE {
            return Ok(after);
        }
    }
}

/// Requests that did not end with 200, by status and flags.
fn failures(running: &Running) -> anyhow::Result<BTreeMap<String, u64>> {
    let stats = probe::get(running.listens.admin, "/stats/prometheus", &[])?.body;
    Ok(ended(&stats))
}

fn ended(stats: &str) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    let lines = stats
        .lines()
        .filter_map(|line| line.strip_prefix("istio_requests_total{"));
    for (labels, value) in lines.filter_map(|line| line.rsplit_once("} ")) {
        let label = |name: &str| {
            let (_, rest) = labels.split_once(&format!("{name}=\""))?;
            rest.split_once('"').map(|(value, _)| value)
        };
        let (Some(code), Some(flags)) = (label("response_code"), label("response_flags")) else {
            continue;
        };
        if (code, flags) != ("200", "-") {
            let value: u64 = value.trim().parse().unwrap_or_default();
            *all.entry(format!("{code} {flags}")).or_default() += value;
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_added_up_by_their_last_name() {
        let stats = "http.a.downstream_cx_active: 2\nhttp.b.downstream_cx_active: 3\n\
                     http.a.downstream_cx_active_more: 7\ncluster.x.upstream_cx_active: 9\n";
        assert_eq!(sum(stats, "http.", "downstream_cx_active"), 5);
        assert_eq!(sum(stats, "cluster.", "downstream_cx_active"), 0);
    }

    #[test]
    fn requests_that_ended_badly_are_counted_by_status_and_flags() {
        let of = |code, flags, value| {
            format!(
                "istio_requests_total{{a=\"b\",response_code=\"{code}\",response_flags=\"{flags}\",c=\"d\"}} {value}\n"
            )
        };
        let stats =
            of("200", "-", 9) + &of("503", "UC", 2) + &of("503", "UC", 3) + &of("0", "DC", 1);
        let expected = [("0 DC".to_owned(), 1), ("503 UC".to_owned(), 5)];
        assert_eq!(ended(&stats), BTreeMap::from(expected));
    }
}
