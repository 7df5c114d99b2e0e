//! What a proxy has in memory: idle, for connections that idle, and for configuration.
//!
//! One peer at a time, so that no two of them share pages.

use std::{
    io::Write as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};

use super::{
    envoy,
    machine::{self, Cores},
    mesh,
    peer::{Kind, Peer},
    ports::Ports,
    probe,
    process::{Process, Program},
    rows::Port,
    run::{Ground, Running},
    table::Report,
};

/// Configuration that a proxy holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    Routes(u32),
    Clusters(u32),
}

/// What is held, each in a process of its own.
const HELD: [Held; 3] = [
    Held::Routes(10_000),
    Held::Clusters(1_000),
    Held::Clusters(10_000),
];
/// Connections: the first are for what is allocated once, and more than one step shows whether
/// growth is even.
const STEPS: [u64; 3] = [20, 1_000, 4_000];
/// How long a proxy is left alone before it is looked at.
const SETTLE: Duration = Duration::from_millis(1_500);
/// The same after it read much: mesh-proxy gives back what that took within four seconds.
const CALM: Duration = Duration::from_secs(5);
const LIMIT: Duration = Duration::from_secs(60);

/// A figure of one peer.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Memory {
    pub(crate) round: u32,
    pub(crate) peer: &'static str,
    pub(crate) what: String,
    /// Kilobytes.
    pub(crate) kilobytes: f64,
}

/// Looks at each peer.
///
/// # Errors
///
/// If one does not start or refuses connections.
pub(crate) fn measure(
    ground: &Ground<'_>,
    peers: &[Peer],
    ports: &mut Ports,
    cores: &Cores,
    round: u32,
    report: &mut Report,
) -> anyhow::Result<()> {
    for peer in peers {
        let name = peer.kind.name();
        let mut say = |what: String, kilobytes: f64| {
            println!("round {round} {what:<24} {name:<12} {kilobytes:>10.1} KB");
            report.remember(Memory {
                round,
                peer: name,
                what,
                kilobytes,
            });
        };
        for (tls, at) in [(false, Port::H1), (true, Port::Tls)] {
            if !peer.has(at, 1) {
                continue;
            }
            let running = ground.start(peer, &ground.setting(ports, 1)?, cores)?;
            machine::pause(SETTLE);
            if !tls {
                say("idle".to_owned(), resident(&running));
            }
            let port = at.of(running.listens);
            let steps =
                hold(ground, &running, cores, port, tls).with_context(|| name.to_owned())?;
            let kind = if tls { "tls" } else { "plain" };
            for (pair, connections) in steps.windows(2).zip(STEPS.windows(2)) {
                let each = (pair[1] - pair[0]) / (connections[1] - connections[0]) as f64;
                say(format!("{kind}-{}", connections[1]), each);
            }
        }
        for (held, is_bootstrap) in HELD.into_iter().flat_map(|it| [(it, false), (it, true)]) {
            let setting = ground.setting(ports, 1)?;
            let program = match peer.kind {
                Kind::Mesh => mesh::holding(peer, &setting, held, is_bootstrap)?,
                Kind::Envoy if is_bootstrap => envoy::holding(peer, &setting, held)?,
                _ => continue,
            };
            let running = ground.started(&program, peer.kind, cores, setting.listens)?;
            machine::pause(CALM);
            // A question for all that it has takes memory, too.
            let kilobytes = resident(&running);
            holds(&running, held).with_context(|| name.to_owned())?;
            say(figure(held, is_bootstrap), kilobytes);
        }
    }
    Ok(())
}

fn resident(running: &Running) -> f64 {
    machine::resident(running.process.pids()) as f64
}

/// Kilobytes in memory with so many connections as [`STEPS`] says.
fn hold(
    ground: &Ground<'_>,
    running: &Running,
    cores: &Cores,
    port: u16,
    tls: bool,
) -> anyhow::Result<Vec<f64>> {
    let mut program = Program::new(&ground.built.load)
        .arguments(["hold".to_owned(), format!("127.0.0.1:{port}")]);
    if tls {
        program = program.arguments(["--tls"]);
    }
    let mut load = program.start(&cores.generator, &ground.folder, "hold")?;
    let mut found = Vec::new();
    for number in STEPS {
        ask(&mut load, number)?;
        machine::pause(SETTLE);
        found.push(resident(running));
    }
    Ok(found)
}

/// Waits until so many connections are held.
fn ask(load: &mut Process, number: u64) -> anyhow::Result<()> {
    let input = load.child.stdin.as_mut().context("the load has an input")?;
    writeln!(input, "{number}")?;
    let wanted = format!("{{\"held\":{number}}}");
    let start = Instant::now();
    while !load.said().contains(&wanted) {
        if load.has_ended() || start.elapsed() > LIMIT {
            bail!("{number} connections could not be held: {}", load.said());
        }
        machine::pause(Duration::from_millis(20));
    }
    Ok(())
}

/// Whether the proxy has what it was given: a route that only the last one matches, or clusters.
fn holds(running: &Running, held: Held) -> anyhow::Result<()> {
    match held {
        Held::Routes(number) => {
            let path = format!("/api/v1/service-{}/", number - 1);
            let status = probe::get(running.listens.h1, &path, &[])?.status;
            ensure!(status == 200, "{path}: status {status}");
        }
        Held::Clusters(number) => {
            let stats = probe::get(running.listens.admin, "/stats?filter=active_clusters", &[])?;
            let active = active(&stats.body).context("no statistic of active clusters")?;
            ensure!(
                active >= number,
                "{active} clusters are there, not {number}"
            );
        }
    }
    Ok(())
}

fn active(stats: &str) -> Option<u32> {
    let mut lines = stats.lines();
    lines.find_map(|line| {
        line.strip_prefix("cluster_manager.active_clusters: ")?
            .trim()
            .parse()
            .ok()
    })
}

// === impl Held ===

impl Held {
    pub(crate) fn name(self) -> String {
        match self {
            Self::Routes(number) => format!("routes-{number}"),
            Self::Clusters(number) => format!("clusters-{number}"),
        }
    }
}

/// The name of a figure.
fn figure(held: Held, is_bootstrap: bool) -> String {
    let from = if is_bootstrap { "bootstrap" } else { "istio" };
    format!("{}-{from}", held.name())
}

/// The figures in their order, with what they are of.
pub(crate) fn rows() -> Vec<(String, String)> {
    let mut rows = vec![("idle".to_owned(), "idle, MB".to_owned())];
    for (kind, says) in [("plain", "plain"), ("tls", "TLS")] {
        for pair in STEPS.windows(2) {
            let [from, to] = [pair[0], pair[1]];
            let says = format!("an idle connection, {says}, of {from} to {to}: KB");
            rows.push((format!("{kind}-{to}"), says));
        }
    }
    for held in HELD {
        let says = match held {
            Held::Routes(number) => format!("{number} routes"),
            Held::Clusters(number) => format!("{number} clusters"),
        };
        for (is_bootstrap, from) in [(true, "Envoy's bootstrap"), (false, "Istio's YAML")] {
            rows.push((
                figure(held, is_bootstrap),
                format!("{says}, from {from}, MB"),
            ));
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_are_counted_where_the_proxy_says_so() {
        let stats = "cluster_manager.active_clusters: 1003\ncluster_manager.cds.x: 7\n";
        assert_eq!(active(stats), Some(1003));
        assert_eq!(active("cluster_manager.cds.x: 7\n"), None);
    }

    #[test]
    fn each_figure_has_a_row() {
        let names: Vec<_> = rows().into_iter().map(|(name, _)| name).collect();
        let expected = [
            "idle",
            "plain-1000",
            "plain-4000",
            "tls-1000",
            "tls-4000",
            "routes-10000-bootstrap",
            "routes-10000-istio",
            "clusters-1000-bootstrap",
            "clusters-1000-istio",
            "clusters-10000-bootstrap",
            "clusters-10000-istio",
        ];
        assert_eq!(names, expected);
    }
}
