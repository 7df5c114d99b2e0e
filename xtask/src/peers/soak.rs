//! `cargo xtask bench soak`: mesh-proxy with the list of `benches/peers/FEATURES.md`, for long, while
//! its configuration changes and callers and backends break off what they began.
//!
//! It is good if memory stays what it was after a while, all connections, requests, tasks and
//! descriptors are gone when the callers are, each change came into force, and no request failed
//! but those that the backend did not answer.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};

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
/// How long a change may take until it is in force.
const IN_FORCE: Duration = Duration::from_secs(10);
/// How long it is watched what the proxy can serve.
const FIRST: u32 = 5;
/// How long what the callers left behind may last: idle connections to the backend are kept for
/// an hour, all others end at once.
const SETTLE: Duration = Duration::from_secs(20);

/// One request in so many the backend does not answer, callers leave, and one comes on a new connection.
const BREAKS: u32 = 2_000;
const LEAVES: u32 = 1_000;
const RENEWS: u32 = 500;

/// What may grow, in memory, between the warm and the last part: a twentieth, and so many kilobytes
/// for what an allocator keeps.
const GROWTH: u64 = 1_024;
/// Connections to the backend that stay, beyond those of the first sample: one for each endpoint and
/// protocol that is used.
const SPARE: u64 = 64;

/// What is seen of the proxy at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Sample {
    second: u64,
    kilobytes: u64,
    descriptors: u64,
    threads: u64,
    tasks: u64,
    callers: u64,
    upstream: u64,
    requests: u64,
}

/// What `peers-load churn` says at its end.
#[derive(Debug, Deserialize, Serialize)]
struct Load {
    requests: u64,
    statuses: BTreeMap<u16, u64>,
    left: u64,
    connections: u64,
    broken: u64,
    #[serde(default)]
    error: Option<String>,
    rate: f64,
}

/// All that is known at the end.
#[derive(Debug, Serialize)]
struct Record {
    load: Load,
    samples: Vec<Sample>,
    /// Before anybody called, and after all were gone.
    before: Sample,
    after: Sample,
    changes: u64,
    /// The longest that a change took until it was in force, in milliseconds.
    slowest: u64,
    /// Requests that the backend did not answer.
    unanswered: u64,
    /// How requests ended that did not end well: status and flags, by the proxy's own metrics.
    failures: BTreeMap<String, u64>,
}

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
    ground.certify("certificate", &[&ground.certificate, &ground.key], &cores)?;
    ground.certify("authority", &[&ground.mutual.folder], &cores)?;
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

/// The file that the proxy reads, and what it is changed to.
#[derive(Debug)]
struct Config {
    file: PathBuf,
    text: String,
    generation: u64,
}

/// What marks the last route's answers with the generation of its configuration.
const MARK: &str = "x-generation";
const LAST: &str = "  - name: last\n";

// === impl Config ===

impl Config {
    /// The one that `mesh.sh` wrote below this folder.
    fn of(folder: &Path) -> anyhow::Result<Self> {
        let below = fs::read_dir(folder)?.flatten();
        let file = below
            .map(|it| it.path().join("mesh.yaml"))
            .find(|it| it.is_file())
            .context("mesh.sh wrote no configuration")?;
        let text = fs::read_to_string(&file)?;
        ensure!(text.contains(LAST), "no route `last`");
        Ok(Self {
            file,
            text,
            generation: 0,
        })
    }

    /// Another route, and one endpoint that was there is not or the other way round. How long it took
    /// until a request showed that it is in force.
    fn change(&mut self, running: &Running) -> anyhow::Result<Duration> {
        self.generation += 1;
        let new = self.file.with_extension("new");
        fs::write(&new, self.written())?;
        let begun = Instant::now();
        fs::rename(&new, &self.file)?;
        loop {
            // The backend may break this one, too.
            let answer = probe::get(running.listens.h1, "/", &[]);
            let mark = answer.ok().and_then(|it| it.header(MARK)?.parse().ok());
            if mark == Some(self.generation) {
                return Ok(begun.elapsed());
            }
            if begun.elapsed() > IN_FORCE {
                let generation = self.generation;
                bail!("change {generation} is not in force after {IN_FORCE:?}, but {mark:?}");
            }
            machine::pause(Duration::from_millis(20));
        }
    }

    fn written(&self) -> String {
        let generation = self.generation;
        let marked =
            format!("{LAST}    headers: {{response: {{set: {{{MARK}: \"{generation}\"}}}}}}\n");
        let text = self.text.replacen(LAST, &marked, 1);
        // Of the five in turn: each of the endpoints is away for a while, and once none is.
        let away = (generation / 3 % 5) as usize;
        let mut endpoints = 0;
        let stays = |line: &&str| {
            let is_endpoint = line.trim_start().starts_with("- {address: ");
            endpoints += usize::from(is_endpoint);
            !is_endpoint || endpoints != away
        };
        let lines: Vec<_> = text.lines().filter(stays).collect();
        lines.join("\n") + "\n"
    }
}

// === impl Sample ===

impl Sample {
    /// What of this lasts though nobody calls.
    fn lasting(&self, before: &Self) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut compare = |what: &str, now: u64, most: u64| {
            if now > most {
                wrong.push(format!("{now} {what} are left, and at most {most} may be"));
            }
        };
        compare("connections of callers", self.callers, 0);
        compare("requests", self.requests, 0);
        compare(
            "connections to the backend",
            self.upstream,
            before.upstream + SPARE,
        );
        let more = self.upstream.saturating_sub(before.upstream);
        compare("descriptors", self.descriptors, before.descriptors + more);
        compare("threads", self.threads, before.threads);
        // A connection to the backend is a task or two.
        compare("tasks", self.tasks, before.tasks + 2 * more);
        wrong
    }
}

impl std::fmt::Display for Sample {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:>5} s {:>7} KB, {:>4} descriptors, {:>3} threads, {:>4} tasks, {:>3} callers, {:>3} connections \
             to the backend",
            self.second,
            self.kilobytes,
            self.descriptors,
            self.threads,
            self.tasks,
            self.callers,
            self.upstream
        )
    }
}

// === impl Record ===

impl Record {
    /// What is not as it has to be.
    fn wrong(&self) -> Vec<String> {
        let mut wrong = self.after.lasting(&self.before);
        let [warm, last] = self.memory();
        let most = warm + warm / 20 + GROWTH;
        if last > most {
            wrong.push(format!("{last} KB in memory at the end, {warm} when warm"));
        }
        let failed: u64 = self.failures.values().sum();
        let of = |how: &str| self.failures.get(how).copied().unwrap_or_default();
        let by_backend = of("503 UC") + of("503 UR");
        let by_callers: u64 = (self.failures.iter())
            .filter(|(how, _)| how.ends_with(" DC") || how.ends_with(" DR"))
            .map(|(_, number)| number)
            .sum();
        if by_backend > self.unanswered {
            wrong.push(format!(
                "{by_backend} requests were broken by the backend, which broke {}",
                self.unanswered
            ));
        }
        if by_callers > self.load.left {
            wrong.push(format!(
                "{by_callers} requests were left by callers, who left {}",
                self.load.left
            ));
        }
        if failed > by_backend + by_callers {
            wrong.push(format!(
                "failures that no fault explains: {:?}",
                self.failures
            ));
        }
        let known = |status: &u16| matches!(status, 200 | 503);
        let statuses = &self.load.statuses;
        if statuses.keys().any(|it| !known(it)) || self.load.broken > 0 {
            let error = self.load.error.as_deref().unwrap_or("nothing");
            wrong.push(format!(
                "callers saw {statuses:?} and {} broken: {error}",
                self.load.broken
            ));
        }
        if statuses.get(&503).copied().unwrap_or_default() > by_backend {
            wrong.push("callers saw more 503 than the backend broke".to_owned());
        }
        wrong
    }

    /// The most in memory between the first and the third fifth, and in the last one, in kilobytes.
    fn memory(&self) -> [u64; 2] {
        let number = self.samples.len();
        let most = |from: usize, to: usize| {
            let of = self.samples[from * number / 5..to * number / 5].iter();
            of.map(|it| it.kilobytes).max().unwrap_or_default()
        };
        [most(1, 3), most(4, 5)]
    }
}

impl std::fmt::Display for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [warm, last] = self.memory();
        let load = &self.load;
        writeln!(
            f,
            "{} requests ({:.0} a second) on {} connections: {:?}, {} left, {} broken",
            load.requests, load.rate, load.connections, load.statuses, load.left, load.broken
        )?;
        writeln!(
            f,
            "{} changes of configuration, in force after {} ms at most",
            self.changes, self.slowest
        )?;
        writeln!(
            f,
            "{} requests that the backend did not answer; failures: {:?}",
            self.unanswered, self.failures
        )?;
        writeln!(f, "{warm} KB in memory when warm, {last} KB at the end")?;
        writeln!(f, "before: {}", self.before)?;
        write!(f, "after:  {}", self.after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(kilobytes: u64) -> Sample {
        Sample {
            kilobytes,
            ..Sample::default()
        }
    }

    fn record(memory: &[u64]) -> Record {
        Record {
            load: Load {
                requests: 10,
                statuses: BTreeMap::from([(200, 8), (503, 2)]),
                left: 2,
                connections: 1,
                broken: 0,
                error: None,
                rate: 1.0,
            },
            samples: memory.iter().map(|it| sample(*it)).collect(),
            before: Sample::default(),
            after: Sample::default(),
            changes: 1,
            slowest: 1,
            unanswered: 2,
            failures: BTreeMap::from([
                ("503 UC".into(), 1),
                ("503 UR".into(), 1),
                ("0 DC".into(), 1),
                ("200 DR".into(), 1),
            ]),
        }
    }

    const CALM: [u64; 10] = [9, 20, 20, 20, 20, 20, 20, 20, 20, 20];

    #[test]
    fn what_faults_explain_is_good() {
        assert_eq!(record(&CALM).wrong(), Vec::<String>::new());
    }

    #[test]
    fn each_thing_that_is_not_as_it_has_to_be_is_told() {
        let mut grown = CALM;
        grown[9] = 20 + 1 + GROWTH + 1;
        assert!(record(&grown).wrong()[0].contains("in memory"));
        let mut of = record(&CALM);
        of.failures.insert("504 UT".into(), 1);
        assert!(of.wrong()[0].contains("no fault explains"));
        let mut of = record(&CALM);
        of.failures.insert("503 UC".into(), 2);
        assert!(of.wrong()[0].contains("broken by the backend"));
        let mut of = record(&CALM);
        of.load.broken = 1;
        assert!(of.wrong()[0].contains("1 broken"));
        let mut of = record(&CALM);
        of.load.statuses.insert(503, 3);
        assert!(of.wrong()[0].contains("more 503"));
        let mut of = record(&CALM);
        of.load.left = 1;
        assert!(of.wrong()[0].contains("left by callers"));
        let mut of = record(&CALM);
        (of.after.callers, of.after.tasks) = (1, 1);
        assert_eq!(of.wrong().len(), 2);
    }

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

    #[test]
    fn each_endpoint_is_away_in_turn() {
        let text = "  endpoints:\n  - {address: a}\n  - {address: b}\n".to_owned() + LAST;
        let mut config = Config {
            file: PathBuf::new(),
            text,
            generation: 0,
        };
        let mut there = Vec::new();
        for generation in [1, 3, 6, 9] {
            config.generation = generation;
            let written = config.written();
            assert!(written.contains(&format!("{{{MARK}: \"{generation}\"}}")));
            there.push(["{address: a}", "{address: b}"].map(|it| written.contains(it)));
        }
        let expected = [[true, true], [false, true], [true, false], [true, true]];
        assert_eq!(there, expected);
    }
}
