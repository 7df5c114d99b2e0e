//! What a mesh of many services and a thousand sidecars costs the control plane.
//!
//! A control plane in one process; in another as many delta clients as are asked for, each with a
//! connection of its own. They ask for clusters, endpoints, listeners and routes as a sidecar
//! does, acknowledge them, and keep counts. Measured are
//!
//! * the first sync of all: from the first connection until the last client has everything;
//! * one endpoint changes, as another registry reports it, and one `VirtualService` changes: from
//!   the command to the control plane until the last client has it. The control plane is not given
//!   YAML to read and waits for no further changes; its own share is told apart;
//! * the control plane's memory: without clients, with all of them, and at most;
//! * how many resources have other bytes after a change: one, or the run fails.
//!
//! Both processes share the cores that `--cores` names (where there is `taskset`). Figures are of
//! the machine; ratios within a run say more.

#![forbid(unsafe_code)]

mod client;
mod objects;
mod server;
mod table;
mod wire;

use clap::Parser;
use client::{Board, KINDS, Plan};
use mesh_xds::TypeUrl;
use server::{Changed, Encodings, Memory, Server, Settings};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use table::{Row, Samples};

/// After a round, for what was sent to be acknowledged.
const CALM: Duration = Duration::from_millis(50);

/// After the first sync, for buffers to be freed.
const REST: Duration = Duration::from_secs(1);

#[derive(Debug, Parser)]
struct Options {
    /// Numbers of services, 10 endpoints each
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1_000, 10_000])]
    services: Vec<usize>,

    /// Numbers of classes: namespaces that the sidecars are in
    #[arg(long, value_delimiter = ',', default_values_t = [1, 10])]
    classes: Vec<usize>,

    /// Sidecars
    #[arg(long, default_value_t = 1_000)]
    clients: usize,

    /// How many sidecars are in their first sync at a time
    #[arg(long, default_value_t = 1_000)]
    at_once: usize,

    /// How often each change is made
    #[arg(long, default_value_t = 15)]
    rounds: usize,

    /// Few of everything, to see that it runs
    #[arg(long)]
    quick: bool,

    /// Where to write the figures as JSON
    #[arg(long)]
    json: Option<PathBuf>,

    /// The cores to use; empty for all
    #[arg(long, default_value = "0,1")]
    cores: String,

    /// Runs on those cores already
    #[arg(long, hide = true)]
    pinned: bool,

    /// Is the server
    #[arg(long, hide = true)]
    server: bool,

    #[command(flatten)]
    settings: Settings,

    /// Said by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    let mut options = Options::parse();
    if !options.server && !options.pinned && !options.cores.is_empty() {
        let mut pinned = Command::new("taskset");
        pinned
            .args(["-c", &options.cores])
            .arg(std::env::current_exe()?);
        match pinned
            .args(std::env::args_os().skip(1))
            .arg("--pinned")
            .status()
        {
            Ok(status) => std::process::exit(status.code().unwrap_or(1)),
            Err(error) => eprintln!("taskset: {error}; all cores are used"),
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    if options.server {
        return runtime.block_on(server::run(options.settings));
    }
    if options.quick {
        options.services = vec![100, 1_000];
        options.classes = vec![1];
        options.clients = options.clients.min(200);
        options.rounds = 5;
    }
    let mut rows = Vec::new();
    for classes in &options.classes {
        for services in &options.services {
            eprintln!("{services} services, {classes} classes …");
            rows.push(runtime.block_on(measure(&options, *services, *classes))?);
        }
    }
    print!("{}", table::text(&rows));
    if let Some(path) = &options.json {
        std::fs::write(path, serde_json::to_string_pretty(&rows)?)?;
    }
    Ok(())
}

async fn measure(options: &Options, services: usize, classes: usize) -> anyhow::Result<Row> {
    let settings = Settings {
        size: services,
        kinds: classes,
        ..options.settings
    };
    let (mut server, ready) = Server::start(settings).await?;
    let plan = Arc::new(Plan::of(ready.address, &objects::node(0, classes)).await?);
    anyhow::ensure!(plan.count[0] >= services, "clusters: {:?}", plan.count);
    let alone: Memory = server.ask("memory").await?;

    let nodes = (0..options.clients).map(|number| objects::node(number, classes));
    let started = Instant::now();
    let (board, clients) = client::start(ready.address, &plan, nodes.collect(), options.at_once);
    board
        .until(|board| board.synced() == options.clients)
        .await?;
    let first_sync = started.elapsed();
    let bytes = board.bytes();
    tokio::time::sleep(REST).await;
    let with_clients: Memory = server.ask("memory").await?;
    let known: Encodings = server.ask("compare").await?;

    let mut endpoint = Rounds::of("endpoint", TypeUrl::Endpoints);
    endpoint.run(options, &mut server, &board).await?;
    let mut virtual_service = Rounds::of("virtual-service", TypeUrl::Routes);
    virtual_service.run(options, &mut server, &board).await?;
    let after: Memory = server.ask("memory").await?;
    drop(clients);
    Ok(Row {
        services,
        classes,
        clients: options.clients,
        resources: known.all,
        read: ready.read,
        compile: ready.compile,
        first_sync,
        first_sync_bytes: bytes,
        endpoint: endpoint.reached,
        virtual_service_push: virtual_service.own,
        virtual_service: virtual_service.reached,
        alone: alone.resident,
        with_clients: with_clients.resident,
        first_sync_peak: with_clients.peak,
        peak: after.peak,
    })
}

/// One kind of change, made again and again.
struct Rounds {
    what: &'static str,
    kind: TypeUrl,
    /// What the server did before any client was told.
    own: Samples,
    /// Until the last client had it.
    reached: Samples,
}

// === impl Rounds ===

impl Rounds {
    fn of(what: &'static str, kind: TypeUrl) -> Self {
        Self {
            what,
            kind,
            own: Samples::default(),
            reached: Samples::default(),
        }
    }

    async fn run(
        &mut self,
        options: &Options,
        server: &mut Server,
        board: &Board,
    ) -> anyhow::Result<()> {
        let count = options.clients;
        // The first is not counted: whatever is done only once is done then.
        for round in 1..=options.rounds + 1 {
            tokio::time::sleep(CALM).await;
            let before = KINDS.map(|kind| board.resources(kind));
            let wanted = board.resources(self.kind) + count;
            let started = Instant::now();
            server.tell(&format!("{} {round}", self.what)).await?;
            board
                .until(|board| board.resources(self.kind) >= wanted)
                .await?;
            let reached = started.elapsed();
            let changed: Changed = server.answer().await?;
            tokio::time::sleep(CALM).await;
            let sent = board.total() - before.iter().sum::<usize>();
            anyhow::ensure!(sent == count, "{sent} resources sent to {count} clients");
            let encodings: Encodings = server.ask("compare").await?;
            let fresh = encodings.fresh;
            anyhow::ensure!(fresh == 1, "{fresh} resources were encoded for one change");
            if round > 1 {
                self.own.0.push(changed.took);
                self.reached.0.push(reached);
            }
        }
        Ok(())
    }
}
