//! The control plane, in a process of its own so that its memory is told apart. It is told what to
//! do on its standard input, a line each, and answers with a line of JSON.

use crate::objects::{endpoint_moves, files, node};
use anyhow::{Context as _, bail};
use mesh_control::{Attached, Control};
use mesh_istio::World;
use mesh_xds::server::Limits;
use mesh_xds::{Encoded, TypeUrl};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpSocket;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// How the server is run.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Settings {
    /// Services
    #[arg(long, hide = true, default_value_t = 100)]
    pub(crate) size: usize,

    /// Classes of sidecars
    #[arg(long, hide = true, default_value_t = 1)]
    pub(crate) kinds: usize,

    /// Resources in one response at most; default as the server has it
    #[arg(long)]
    pub(crate) response_resources: Option<usize>,
}

/// What the server says first.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Ready {
    pub(crate) address: SocketAddr,
    /// Reading the YAML.
    pub(crate) read: Duration,
    /// Compiling and encoding for every class.
    pub(crate) compile: Duration,
}

/// What a change cost the server before any client was told.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Changed {
    pub(crate) took: Duration,
}

/// Resources, and how many of them are other bytes than when it was asked last.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Encodings {
    pub(crate) all: usize,
    pub(crate) fresh: usize,
}

/// In KiB.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Memory {
    pub(crate) resident: u64,
    pub(crate) peak: u64,
}

/// The server as its conductor sees it. It ends with this.
pub(crate) struct Server {
    child: Child,
    to: ChildStdin,
    from: Lines<BufReader<ChildStdout>>,
}

/// What the server has.
struct Plane {
    control: Control,
    worlds: [World; 2],
    classes: Vec<Attached>,
    /// Everything as it was when last compared. Holding it keeps its addresses from being used
    /// for something else.
    known: HashMap<(TypeUrl, usize), Encoded>,
}

// === impl Server ===

impl Server {
    pub(crate) async fn start(settings: Settings) -> anyhow::Result<(Self, Ready)> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg("--server")
            .args(["--size", &settings.size.to_string()]);
        command.args(["--kinds", &settings.kinds.to_string()]);
        if let Some(most) = settings.response_resources {
            command.args(["--response-resources", &most.to_string()]);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let to = child.stdin.take().context("its input is a pipe")?;
        let from = child.stdout.take().context("its output is a pipe")?;
        let from = BufReader::new(from).lines();
        let mut server = Self { child, to, from };
        let ready = server.answer().await?;
        Ok((server, ready))
    }

    /// Sends a command; what comes back is read by [`Server::answer`].
    pub(crate) async fn tell(&mut self, command: &str) -> anyhow::Result<()> {
        self.to.write_all(format!("{command}\n").as_bytes()).await?;
        Ok(self.to.flush().await?)
    }

    pub(crate) async fn answer<T: DeserializeOwned>(&mut self) -> anyhow::Result<T> {
        let line = self.from.next_line().await?;
        let line =
            line.with_context(|| format!("the server ended: {:?}", self.child.try_wait()))?;
        Ok(serde_json::from_str(&line)?)
    }

    pub(crate) async fn ask<T: DeserializeOwned>(&mut self, command: &str) -> anyhow::Result<T> {
        self.tell(command).await?;
        self.answer().await
    }
}

// === impl Plane ===

impl Plane {
    fn change(&self, what: &str, round: usize) -> anyhow::Result<Changed> {
        let started = Instant::now();
        match what {
            "endpoint" => {
                let taken = self.control.endpoints_changed(&endpoint_moves(round));
                anyhow::ensure!(taken, "there is no such service");
            }
            "virtual-service" => {
                self.control.update_world(self.worlds[round % 2].clone());
                self.control.flush();
            }
            other => bail!("{other:?} is no change"),
        }
        let took = started.elapsed();
        Ok(Changed { took })
    }

    fn compare(&mut self) -> Encodings {
        let mut now = HashMap::new();
        for attached in &self.classes {
            for kind in TypeUrl::ALL {
                for resource in attached.view().load().all(kind) {
                    now.insert((kind, resource.bytes.as_ptr().addr()), resource);
                }
            }
        }
        let is_fresh = |at: &&(TypeUrl, usize)| !self.known.contains_key(*at);
        let fresh = now.keys().filter(is_fresh).count();
        let all = now.len();
        self.known = now;
        Encodings { all, fresh }
    }
}

/// The server's process.
pub(crate) async fn run(settings: Settings) -> anyhow::Result<()> {
    let started = Instant::now();
    let worlds = [0, 1].map(|round| {
        let mut world = World::default();
        let findings = world.update(&files(settings.size, round));
        (world, findings)
    });
    let read = started.elapsed() / 2;
    if let Some(finding) = worlds.iter().flat_map(|(_, findings)| findings).next() {
        bail!("{finding}");
    }
    let worlds = worlds.map(|(world, _)| world);
    let mut limits = Limits::default();
    if let Some(most) = settings.response_resources {
        limits.response_resources = most;
    }
    let control = Control::builder().limits(limits).build();
    control.update_world(worlds[0].clone());
    let started = Instant::now();
    let classes = (0..settings.kinds).map(|number| control.attach(&node(number, settings.kinds)));
    let classes = classes.collect::<Result<_, _>>()?;
    let compile = started.elapsed();
    // As many as come at once; the usual queue is shorter.
    let socket = TcpSocket::new_v4()?;
    socket.bind(([127, 0, 0, 1], 0).into())?;
    let listener = socket.listen(4096)?;
    let address = listener.local_addr()?;
    let xds = control.xds().clone();
    let mut plane = Plane {
        control: control.clone(),
        worlds,
        classes,
        known: HashMap::new(),
    };
    say(&Ready {
        address,
        read,
        compile,
    })
    .await?;
    tokio::select! {
        served = xds.serve(listener, std::future::pending()) => Ok(served?),
        () = control.run() => Ok(()),
        ended = obey(&mut plane) => ended,
    }
}

async fn obey(plane: &mut Plane) -> anyhow::Result<()> {
    let mut commands = BufReader::new(tokio::io::stdin()).lines();
    while let Some(command) = commands.next_line().await? {
        match command.split_once(' ') {
            Some((what, round)) => say(&plane.change(what, round.parse()?)?).await?,
            None if command == "compare" => say(&plane.compare()).await?,
            None if command == "memory" => say(&memory()).await?,
            None => bail!("{command:?} is no command"),
        }
    }
    Ok(())
}

async fn say(what: &impl Serialize) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    let mut to = tokio::io::stdout();
    to.write_all(&line).await?;
    Ok(to.flush().await?)
}

/// The memory of this process; zeros where the system does not tell.
fn memory() -> Memory {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let find = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        let number = line.and_then(|line| line.split_whitespace().next());
        number.and_then(|number| number.parse().ok()).unwrap_or(0)
    };
    Memory {
        resident: find("VmRSS:"),
        peak: find("VmHWM:"),
    }
}
