//! The programs: what is there, what is missing and how to get it, and what is built.

use std::{
    env,
    fmt::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

use super::peer::{Kind, Peer};
use crate::{cargo, venv, workspace::Workspace};

/// What all need, and how to get it on Debian.
const NEEDED: [(&str, &str); 4] = [
    ("h2load", "apt-get install nghttp2-client"),
    ("taskset", "apt-get install util-linux"),
    ("setpriv", "apt-get install util-linux"),
    ("kill", "apt-get install procps"),
];

/// What was found.
#[derive(Debug)]
pub(crate) struct Tools {
    needed: Vec<(&'static str, &'static str, bool)>,
    peers: Vec<(Kind, Result<Peer, String>)>,
}

/// What cargo built.
#[derive(Clone, Debug)]
pub(crate) struct Built {
    pub(crate) backend: PathBuf,
    pub(crate) load: PathBuf,
    forward: PathBuf,
    mesh: PathBuf,
}

// === impl Tools ===

impl Tools {
    pub(crate) fn find(workspace: &Workspace) -> Self {
        let needed = NEEDED.map(|(name, how)| (name, how, on_path(name).is_some()));
        let peers = Kind::ALL.map(|kind| (kind, find(kind, workspace)));
        Self {
            needed: needed.into(),
            peers: peers.into(),
        }
    }

    pub(crate) fn list(&self) -> String {
        let mut text = String::from("programs:\n");
        for (name, how, is_there) in &self.needed {
            let says = if *is_there { "is there" } else { how };
            writeln!(text, "  {name:<12} {says}").expect("a string takes all");
        }
        text += "peers:\n";
        for (kind, found) in &self.peers {
            let name = kind.name();
            match found {
                Ok(peer) => writeln!(text, "  {name:<12} {}", peer.version),
                Err(why) => writeln!(text, "  {name:<12} missing: {why}"),
            }
            .expect("a string takes all");
        }
        text
    }

    /// Those that are there, of the ones that are wanted (none is all).
    pub(crate) fn usable(&self, wanted: &[Kind]) -> Vec<Peer> {
        let found = self.peers.iter().filter(|(kind, _)| is_in(wanted, *kind));
        found.filter_map(|(_, peer)| peer.clone().ok()).collect()
    }

    pub(crate) fn missing(&self, wanted: &[Kind]) -> Vec<(Kind, &str)> {
        let found = self.peers.iter().filter(|(kind, _)| is_in(wanted, *kind));
        found
            .filter_map(|(kind, peer)| Some((*kind, peer.as_ref().err()?.as_str())))
            .collect()
    }

    /// Builds the backend, the load and, unless `MESH_PROXY` names one, mesh-proxy, optimized.
    ///
    /// # Errors
    ///
    /// If something that all need is missing, or does not build.
    pub(crate) fn build(&self, workspace: &Workspace, peers: &[Peer]) -> anyhow::Result<Built> {
        let mut missing = self.needed.iter().filter(|(_, _, is_there)| !is_there);
        if let Some((name, how, _)) = missing.next() {
            bail!("{name} is missing (Debian: {how})");
        }
        let release = |package: &str| {
            let mut command = cargo::cargo(workspace.root());
            command.args(["build", "--release", "--bins", "--package", package]);
            cargo::run(&mut command)
        };
        release("mesh-benches")?;
        let given = env::var_os("MESH_PROXY").map(PathBuf::from);
        if given.is_none() && peers.iter().any(|peer| peer.kind == Kind::Mesh) {
            release("mesh-proxy")?;
        }
        let folder = workspace.target().join("release");
        let mesh = given.unwrap_or_else(|| folder.join("mesh-proxy"));
        Ok(Built {
            backend: folder.join("peers-backend"),
            load: folder.join("peers-load"),
            forward: folder.join("peers-forward"),
            // It is started elsewhere.
            mesh: mesh.canonicalize().unwrap_or(mesh),
        })
    }
}

fn is_in(wanted: &[Kind], kind: Kind) -> bool {
    wanted.is_empty() || wanted.contains(&kind)
}

fn find(kind: Kind, workspace: &Workspace) -> Result<Peer, String> {
    let program = match kind {
        // Is built.
        Kind::Mesh => PathBuf::from("mesh-proxy"),
        Kind::Hyper => PathBuf::from("peers-forward"),
        Kind::Envoy | Kind::EnvoyPlain => {
            envoy(workspace).ok_or("`cargo xtask envoy` installs it; MESH_ENVOY names another")?
        }
        Kind::Nginx => on_path("nginx").ok_or("apt-get install nginx libnginx-mod-stream")?,
        Kind::Haproxy => on_path("haproxy").ok_or("apt-get install haproxy")?,
    };
    let mut peer = Peer {
        kind,
        program,
        version: String::new(),
        has_tcp: true,
        module: None,
    };
    peer.version = match kind {
        Kind::Mesh => mesh_version(),
        Kind::Hyper => "peers-forward of this workspace, HTTP/1.1 alone".to_owned(),
        Kind::Nginx => {
            let built = said(&peer.program, "-V");
            let (is_built_in, module) = stream(&built);
            peer.module = module.filter(|file| !is_built_in && file.is_file());
            peer.has_tcp = is_built_in || peer.module.is_some();
            let version = first(&built);
            if peer.has_tcp {
                version
            } else {
                version + " (without TCP: apt-get install libnginx-mod-stream)"
            }
        }
        Kind::Haproxy => first(&said(&peer.program, "-v")),
        Kind::Envoy | Kind::EnvoyPlain => {
            let line = first(&said(&peer.program, "--version"));
            // It says where it lies first.
            let version = line
                .rsplit_once("version: ")
                .map(|(_, it)| format!("Envoy {it}"));
            version.unwrap_or(line)
        }
    };
    Ok(peer)
}

fn mesh_version() -> String {
    match env::var("MESH_PROXY") {
        Ok(path) => format!("mesh-proxy, as MESH_PROXY says: {path}"),
        Err(_) => "mesh-proxy of this workspace".to_owned(),
    }
}

/// Envoy, if it is there; nothing is installed.
fn envoy(workspace: &Workspace) -> Option<PathBuf> {
    match env::var_os("MESH_ENVOY") {
        Some(path) => Some(path.into()),
        None => venv::installed_envoy(workspace),
    }
}

/// Whether nginx, as `-V` describes it, passes bytes on by itself, or else by which module.
fn stream(built: &str) -> (bool, Option<PathBuf>) {
    let mut words = built.split_whitespace();
    let is_built_in = words.clone().any(|it| it == "--with-stream");
    let folder = words.find_map(|it| it.strip_prefix("--modules-path="));
    let module = folder.map(|it| Path::new(it).join("ngx_stream_module.so"));
    (is_built_in, module)
}

/// A program by its name; those of the administrator are not on everybody's path.
fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    let mut folders = env::split_paths(&path).chain(more);
    folders.find_map(|folder| {
        let file = folder.join(name);
        file.is_file().then_some(file)
    })
}

/// What a program says of itself, on either output.
fn said(program: &Path, argument: &str) -> String {
    let output = Command::new(program).arg(argument).output();
    let output = output.with_context(|| format!("cannot start {program:?}"));
    match output {
        Ok(output) => {
            let text = [output.stdout, output.stderr].concat();
            String::from_utf8_lossy(&text).into_owned()
        }
        Err(error) => format!("{error:#}"),
    }
}

/// The first line that says something.
fn first(text: &str) -> String {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines
        .next()
        .unwrap_or("it does not say its version")
        .to_owned()
}

// === impl Built ===

impl Built {
    /// The peer with the program that was built for it.
    pub(crate) fn of(&self, peer: &Peer) -> Peer {
        let program = match peer.kind {
            Kind::Mesh => &self.mesh,
            Kind::Hyper => &self.forward,
            _ => &peer.program,
        };
        Peer {
            program: program.clone(),
            ..peer.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_module_of_nginx_is_built_in_or_beside_it() {
        assert_eq!(
            stream("configure arguments: --with-x --with-stream --with-y"),
            (true, None)
        );
        let built = "--modules-path=/m --with-stream=dynamic --with-stream_ssl_module";
        let module = PathBuf::from("/m/ngx_stream_module.so");
        assert_eq!(stream(built), (false, Some(module)));
    }

    #[test]
    fn what_a_program_says_first_is_its_version() {
        assert_eq!(first("\n  x version: 1\nmore"), "x version: 1");
    }

    #[test]
    fn what_is_not_wanted_is_not_missing() {
        let tools = Tools {
            needed: Vec::new(),
            peers: vec![
                (Kind::Nginx, Err("a".into())),
                (Kind::Haproxy, Err("b".into())),
            ],
        };
        assert_eq!(tools.missing(&[Kind::Haproxy]), [(Kind::Haproxy, "b")]);
        assert_eq!(tools.missing(&[]).len(), 2);
        assert!(tools.usable(&[]).is_empty());
    }
}
