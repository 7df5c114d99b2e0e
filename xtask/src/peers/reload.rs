//! `cargo xtask bench reload`: one route of ten thousand changes while a proxy serves.
//!
//! A change is in force when each of many kept connections, which all workers share, is answered as
//! it says. Latency is that of a fixed rate, at first without changes and then with one after the
//! other; a request that has to wait counts from when it was due.

use std::{
    fmt, fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use serde::Serialize;

use super::{
    load::Latency,
    machine::{self, Cores},
    peer::{Kind, Peer},
    ports::Ports,
    probe,
    process::{Process, Program},
    run::{self, Ground, Running},
    tools::Tools,
};
use crate::{cargo, workspace::Workspace};

mod config;
mod wire;

use config::{Config, Written};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How often each proxy and way of configuring it is measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,

    /// How long each half takes, that without changes and that with them
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,

    /// Write all that was measured to this file, as JSON
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

const WORKERS: usize = 2;
/// Requests a second, of which each second has [`CHANGES`] changes.
const RATE: u32 = 5_000;
const CHANGES: u32 = 2;
/// Connections that have to see a change.
const CONNECTIONS: usize = 32;
/// How long a change may take, and how often is looked for it.
const LIMIT: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(1);
/// What [`Config`] marks answers with.
const MARK: &str = "x-generation";
/// How long a proxy is left alone before it is measured.
const SETTLE: Duration = Duration::from_secs(2);

/// What all rounds are measured with.
#[derive(Debug)]
struct Bench<'a> {
    ground: &'a Ground<'a>,
    cores: Cores,
    control: PathBuf,
    seconds: u32,
}

/// What one round found.
#[derive(Debug, Serialize)]
struct Found {
    peer: &'static str,
    by: &'static str,
    /// Milliseconds until each change was in force.
    in_force: Vec<f64>,
    quiet: Latency,
    changing: Latency,
    wrong: u64,
}

/// What peers-load says of a fixed rate.
#[derive(Debug, serde::Deserialize)]
struct Paced {
    wrong: u64,
    #[serde(flatten)]
    latency: Latency,
}

/// A connection that stays.
#[derive(Debug)]
struct Kept(TcpStream);

/// Measures and prints.
///
/// # Errors
///
/// If a program is missing or ends, an answer is wrong, or a change does not come into force.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> anyhow::Result<()> {
    let tools = Tools::find(workspace);
    let peers = tools.usable(&[Kind::Mesh, Kind::Envoy]);
    for (kind, why) in tools.missing(&[Kind::Mesh, Kind::Envoy]) {
        println!("without {}: {why}", kind.name());
    }
    run::on_ground(workspace, &tools, &peers, |ground, ports| {
        println!("{}", machine::model());
        let bench = Bench {
            ground,
            cores: Cores::of(machine::cores(), WORKERS),
            control: control(workspace)?,
            seconds: options.seconds,
        };
        let _backend = ground.backend(&bench.cores, &[])?;
        let mut all = Vec::new();
        for round in 1..=options.rounds {
            for peer in &peers {
                let peer = ground.built.of(peer);
                for &by in Written::of(peer.kind) {
                    let found = bench.measure(ports, &peer, by)?;
                    println!("round {round} {found}");
                    all.push(found);
                }
            }
        }
        if let Some(out) = &options.out {
            let text = serde_json::to_string_pretty(&all)?;
            fs::write(out, text).with_context(|| format!("cannot write {out:?}"))?;
        }
        let wrong: u64 = all.iter().map(|found| found.wrong).sum();
        ensure!(wrong == 0, "{wrong} answers were wrong");
        Ok(())
    })
}

/// A control plane of raw resources, which is told what it has.
fn control(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let mut command = cargo::cargo(workspace.root());
    command
        .args(["build", "--release", "--package=mesh-xds"])
        .args(["--features=server", "--example=serve"]);
    cargo::run(&mut command)?;
    Ok(workspace.target().join("release/examples/serve"))
}

// === impl Bench ===

impl Bench<'_> {
    fn measure(&self, ports: &mut Ports, peer: &Peer, by: Written) -> anyhow::Result<Found> {
        let setting = self.ground.setting(ports, WORKERS)?;
        let port = ports.take()?;
        let control = Program::new(&self.control).arguments([format!("127.0.0.1:{port}")]);
        let control = control.start(&self.cores.generator, &self.ground.folder, "control")?;
        let mut config = Config::new(&setting, peer, by, (control, port))?;
        let program = config.program(peer);
        let listens = setting.listens;
        let running = self
            .ground
            .started(&program, peer.kind, &self.cores, listens)?;
        machine::pause(SETTLE);
        let quiet = self.pace(&running)?.finish(LIMIT * 10)?;
        let quiet: Paced = serde_json::from_str(&quiet).context(quiet)?;

        let mut kept = (0..CONNECTIONS)
            .map(|_| Kept::connect(running.listens.h1))
            .collect::<Result<Vec<_>, _>>()?;
        let mut load = self.pace(&running)?;
        let mut in_force = Vec::new();
        while !load.has_ended() {
            machine::pause(Duration::from_secs(1) / CHANGES);
            let generation = config.change()?;
            let begun = Instant::now();
            for connection in &mut kept {
                while connection.mark()? != Some(generation) {
                    if begun.elapsed() > LIMIT {
                        bail!("change {generation} is not in force after {LIMIT:?}");
                    }
                    machine::pause(LOOK);
                }
            }
            in_force.push(begun.elapsed().as_secs_f64() * 1_000.0);
        }
        let changing = load.finish(LIMIT)?;
        let changing: Paced = serde_json::from_str(&changing).context(changing)?;
        Ok(Found {
            peer: peer.kind.name(),
            by: by.name(),
            in_force,
            quiet: quiet.latency,
            changing: changing.latency,
            wrong: quiet.wrong + changing.wrong,
        })
    }

    fn pace(&self, running: &Running) -> anyhow::Result<Process> {
        let address = format!("127.0.0.1:{}", running.listens.h1);
        Program::new(&self.ground.built.load)
            .arguments(["pace", &address])
            .arguments([format!("--rate={RATE}")])
            .arguments([format!("--seconds={}", self.seconds)])
            .start(&self.cores.generator, &self.ground.folder, "pace")
    }
}

// === impl Found ===

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted = self.in_force.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
        write!(
            f,
            "{:<6} {:<5} {} changes in force after {:.0} ms ({:.0}–{:.0}); p99 {:.0} µs without and \
             {:.0} with them, {:.2}×",
            self.peer,
            self.by,
            sorted.len(),
            at(sorted.len() / 2),
            at(0),
            at(sorted.len().saturating_sub(1)),
            self.quiet.p99,
            self.changing.p99,
            self.changing.p99 / self.quiet.p99,
        )
    }
}

// === impl Kept ===

impl Kept {
    fn connect(port: u16) -> anyhow::Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(probe::LIMIT))?;
        Ok(Self(stream))
    }

    /// Asks once, and says by which configuration it was answered.
    fn mark(&mut self) -> anyhow::Result<Option<u64>> {
        self.0
            .write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")?;
        let mut bytes = Vec::new();
        loop {
            let mut part = [0; 4096];
            let length = self.0.read(&mut part)?;
            ensure!(length > 0, "the proxy ended a connection");
            bytes.extend_from_slice(&part[..length]);
            if let Some(mark) = marked(&bytes)? {
                return Ok(mark);
            }
        }
    }
}

/// The mark of a response that is there to its end.
fn marked(bytes: &[u8]) -> anyhow::Result<Option<Option<u64>>> {
    let Some(answer) = probe::read(&String::from_utf8_lossy(bytes)) else {
        return Ok(None);
    };
    ensure!(answer.status == 200, "status {}", answer.status);
    let length = answer
        .header("content-length")
        .context("an answer without a length")?;
    let is_whole = answer.body.len() >= length.parse::<usize>()?;
    Ok(is_whole.then(|| answer.header(MARK)?.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_of_an_answer_is_read_when_it_is_whole() {
        let text = "HTTP/1.1 200 OK\r\nX-Generation: 7\r\nContent-Length: 2\r\n\r\nab";
        assert_eq!(marked(&text.as_bytes()[..20]).unwrap(), None);
        assert_eq!(marked(&text.as_bytes()[..text.len() - 1]).unwrap(), None);
        assert_eq!(marked(text.as_bytes()).unwrap(), Some(Some(7)));
        let without = text.replace("Generation", "Other");
        assert_eq!(marked(without.as_bytes()).unwrap(), Some(None));
        let refused = text.replace("200", "503");
        assert!(marked(refused.as_bytes()).is_err());
    }
}
