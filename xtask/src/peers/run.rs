//! Rounds: everybody is started, asked, measured row by row, and ended.

use std::{
    fs::{self, OpenOptions},
    net::{Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

use super::{
    Options,
    machine::{self, Cores},
    measure::{self, Record},
    memory,
    mutual::{self, Mutual},
    peer::{Kind, Peer, Setting},
    ports::{Listens, Ports},
    probe,
    process::{Process, Program},
    rows::{Area, Load, POST_QUANTUM, Port, ROWS, Row},
    table,
    tools::{Built, Tools},
};
use crate::workspace::Workspace;

/// How long a program has to be ready.
const READY: Duration = Duration::from_secs(60);

/// Peers that run beside one another; only one of them is called at a time.
#[derive(Debug)]
pub(crate) struct Stage<'a> {
    pub(crate) folder: &'a Path,
    pub(crate) cores: &'a Cores,
    pub(crate) own_load: &'a PathBuf,
    pub(crate) backend: &'a Process,
    /// If a row is about it; the peers listen for it only then.
    pub(crate) mutual: Option<Mutual>,
    pub(crate) running: Vec<(Peer, Running)>,
}

/// A peer that was started.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) process: Process,
    pub(crate) listens: Listens,
    pub(crate) access_log: Option<PathBuf>,
}

/// What stays for the whole run.
#[derive(Debug)]
pub(crate) struct Ground<'a> {
    pub(crate) root: &'a Path,
    pub(crate) folder: PathBuf,
    pub(crate) built: Built,
    pub(crate) upstreams: [u16; 4],
    pub(crate) mutual: Mutual,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

pub(crate) fn run(
    workspace: &Workspace,
    tools: &Tools,
    peers: &[Peer],
    options: &Options,
) -> anyhow::Result<()> {
    on_ground(workspace, tools, peers, |ground, ports| {
        let peers: Vec<Peer> = peers.iter().map(|it| ground.built.of(it)).collect();
        measure_all(ground, ports, &peers, options)
    })
}

/// Builds what is needed for these peers, and does this in a folder that goes with it, unless it fails.
///
/// # Errors
///
/// If it fails, or something is missing or does not build.
pub(crate) fn on_ground(
    workspace: &Workspace,
    tools: &Tools,
    peers: &[Peer],
    what: impl FnOnce(&Ground<'_>, &mut Ports) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let built = tools.build(workspace, peers)?;
    // A folder for each run: two at a time would write over each other's configuration.
    let folder = workspace
        .target()
        .join("peers")
        .join(std::process::id().to_string());
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {folder:?}"))?;
    let mut ports = Ports::new();
    let mut four = || anyhow::Ok([ports.take()?, ports.take()?, ports.take()?, ports.take()?]);
    let upstreams = four()?;
    let mutual = Mutual {
        upstreams: four()?,
        folder: mutual::folder(&folder),
    };
    let ground = Ground {
        root: workspace.root(),
        certificate: folder.join("certificate.pem"),
        key: folder.join("key.pem"),
        folder,
        built,
        upstreams,
        mutual,
    };
    let result = what(&ground, &mut ports);
    if result.is_ok() {
        drop(fs::remove_dir_all(&ground.folder));
    } else {
        eprintln!(
            "xtask: what the programs said is in {}",
            ground.folder.display()
        );
    }
    result
}

fn measure_all(
    ground: &Ground<'_>,
    ports: &mut Ports,
    peers: &[Peer],
    options: &Options,
) -> anyhow::Result<()> {
    println!("{}", machine::model());
    if machine::cores() < 4 {
        println!(
            "with less than four cores the backend and the generator are in the proxies' way: \
             these figures are worth less"
        );
    }
    for peer in peers {
        println!("{}: {}", peer.kind.name(), peer.version);
    }
    let cores = Cores::of(machine::cores(), 1);
    let backend = ground.backend(&cores, &[])?;
    let mut report = table::Report::new(peers, options);
    for round in 1..=options.rounds {
        for workers in [1, 2] {
            let rows: Vec<&Row> = (ROWS.iter())
                .filter(|row| row.workers == workers && options.wants(row.area))
                .collect();
            if !rows.is_empty() {
                let cores = Cores::of(machine::cores(), workers);
                let is_mutual = rows.iter().any(|row| row.port == Port::Mtls);
                let mutual = is_mutual.then(|| ground.mutual.clone());
                let stage = ground.stage(peers, ports, &cores, &backend, workers, mutual)?;
                rows_of(&stage, &rows, round, options, &mut report)?;
            }
        }
        if options.wants(Area::Memory) {
            memory::measure(ground, peers, ports, &cores, round, &mut report)?;
        }
        report.write(options.out.as_deref())?;
    }
    print!("{}", report.text());
    report.result()
}

fn rows_of(
    stage: &Stage<'_>,
    rows: &[&Row],
    round: u32,
    options: &Options,
    report: &mut table::Report,
) -> anyhow::Result<()> {
    if let Some(mutual) = &stage.mutual {
        mutual::probe_backend(stage, mutual)?;
    }
    for (peer, running) in &stage.running {
        probe::all(stage, peer, running).with_context(|| format!("{}: probe", peer.kind.name()))?;
    }
    for row in rows {
        for (at, (peer, running)) in stage.running.iter().enumerate() {
            let has_it = peer.has(row.port, row.workers)
                && (row.load != Load::Fresh(Some(POST_QUANTUM))
                    || probe::has_post_quantum(stage, running));
            if !has_it {
                report.without(row.name, peer.kind);
                continue;
            }
            match measure::row(stage, at, row, round, options.seconds) {
                Ok(record) => {
                    println!("{}", line(&record));
                    report.add(record);
                }
                Err(error) => {
                    println!("round {round} {} {}: {error:#}", row.name, peer.kind.name());
                    report.failed(row.name, peer.kind);
                }
            }
        }
    }
    Ok(())
}

/// What is said while it goes on.
fn line(record: &Record) -> String {
    let flaws: Vec<_> = record.flaws.iter().map(ToString::to_string).collect();
    format!(
        "round {} {:<12} {:<12} {:>10.0}/s {:>8.1} µs CPU  proxy {:.2} backend {:.2} generator {:.2} \
         other {:.2}  {}",
        record.round,
        record.row,
        record.peer.name(),
        record.rate,
        record.cpu,
        record.busy.proxy,
        record.busy.backend,
        record.busy.generator,
        record.busy.other + record.busy.steal,
        flaws.join(", ")
    )
}

// === impl Ground ===

impl Ground<'_> {
    /// Has peers-load write certificates.
    fn certify(&self, what: &str, files: &[&PathBuf], cores: &Cores) -> anyhow::Result<()> {
        let files = files.iter().map(|it| it.display().to_string());
        let program = Program::new(&self.built.load).arguments([what]);
        let output = program
            .arguments(files)
            .output(&cores.generator, &self.folder, READY);
        output.with_context(|| format!("peers-load {what}"))?;
        Ok(())
    }

    /// Makes certificates and starts the backend, with these arguments more.
    pub(crate) fn backend(&self, cores: &Cores, more: &[String]) -> anyhow::Result<Process> {
        self.certify("certificate", &[&self.certificate, &self.key], cores)?;
        self.certify("authority", &[&self.mutual.folder], cores)?;
        let of = |ports: [u16; 4]| ports.map(|port| format!("127.0.0.1:{port}"));
        let mut process = Program::new(&self.built.backend)
            .arguments([
                format!("--threads={}", cores.backend.len()),
                format!("--mutual={}", self.mutual.folder.display()),
                format!("--secure={}", of(self.mutual.upstreams).join(",")),
            ])
            .arguments(more.iter().cloned())
            .arguments(of(self.upstreams))
            .start(&cores.backend, &self.folder, "backend")?;
        for port in self.upstreams.into_iter().chain(self.mutual.upstreams) {
            wait(&mut process, "the backend", || is_open(port))?;
        }
        Ok(process)
    }

    pub(crate) fn setting(&self, ports: &mut Ports, workers: usize) -> anyhow::Result<Setting> {
        Ok(Setting {
            listens: ports.listens()?,
            upstreams: self.upstreams,
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            mutual: None,
            workers,
            folder: self.folder.clone(),
        })
    }

    /// Starts everybody.
    fn stage<'a>(
        &'a self,
        peers: &[Peer],
        ports: &mut Ports,
        cores: &'a Cores,
        backend: &'a Process,
        workers: usize,
        mutual: Option<Mutual>,
    ) -> anyhow::Result<Stage<'a>> {
        let mut running = Vec::new();
        for peer in peers.iter().filter(|peer| peer.has(Port::H1, workers)) {
            let setting = Setting {
                mutual: mutual.clone(),
                ..self.setting(ports, workers)?
            };
            running.push((peer.clone(), self.start(peer, &setting, cores)?));
        }
        Ok(Stage {
            folder: &self.folder,
            cores,
            own_load: &self.built.load,
            backend,
            mutual,
            running,
        })
    }

    /// Starts a peer and waits until it answers.
    pub(crate) fn start(
        &self,
        peer: &Peer,
        setting: &Setting,
        cores: &Cores,
    ) -> anyhow::Result<Running> {
        let start = peer.start(self.root, setting)?;
        let running = self.started(&start.program, peer.kind, cores, setting.listens)?;
        Ok(Running {
            access_log: start.access_log,
            ..running
        })
    }

    pub(crate) fn started(
        &self,
        program: &Program,
        kind: Kind,
        cores: &Cores,
        listens: Listens,
    ) -> anyhow::Result<Running> {
        let name = kind.name();
        let mut process = program.start(&cores.proxy, &self.folder, name)?;
        wait(&mut process, name, || {
            probe::get(listens.h1, "/", &[]).is_ok_and(|answer| answer.status == 200)
        })?;
        process.look();
        Ok(Running {
            process,
            listens,
            access_log: None,
        })
    }
}

fn is_open(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}

fn wait(process: &mut Process, name: &str, is_ready: impl Fn() -> bool) -> anyhow::Result<()> {
    let start = Instant::now();
    while !is_ready() {
        if process.has_ended() {
            bail!("{name} ended: {}", process.said());
        }
        if start.elapsed() > READY {
            bail!("{name} is not ready after {READY:?}: {}", process.said());
        }
        machine::pause(Duration::from_millis(50));
    }
    Ok(())
}

// === impl Running ===

impl Running {
    /// Empties the access log, which else would fill the disk. Both sides append to it.
    pub(crate) fn forget_the_log(&self) {
        if let Some(file) = &self.access_log {
            drop(OpenOptions::new().write(true).truncate(true).open(file));
        }
    }
}
