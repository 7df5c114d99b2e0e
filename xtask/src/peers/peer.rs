//! Who is compared.

use std::path::{Path, PathBuf};

use super::{
    envoy, forwarders, mesh, mutual::Mutual, ports::Listens, process::Program, rows::Port,
};

/// Which proxy, and with what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
pub(crate) enum Kind {
    /// mesh-proxy with the list
    Mesh,
    /// Envoy with the list
    Envoy,
    /// Envoy that forwards and does nothing else
    EnvoyPlain,
    Nginx,
    Haproxy,
    /// A bare forwarder of HTTP/1.1 on hyper, of this workspace
    Hyper,
}

/// A kind of which the program is there.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) kind: Kind,
    pub(crate) program: PathBuf,
    /// What it says of its version.
    pub(crate) version: String,
    /// Whether it can pass on bytes.
    pub(crate) has_tcp: bool,
    /// What nginx has to load for that.
    pub(crate) module: Option<PathBuf>,
}

/// What a peer is started with.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) listens: Listens,
    pub(crate) upstreams: [u16; 4],
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// What it needs to listen with mutual TLS, and does not without.
    pub(crate) mutual: Option<Mutual>,
    pub(crate) workers: usize,
    /// Where its files go.
    pub(crate) folder: PathBuf,
}

/// How a peer is started, and what it writes.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) program: Program,
    pub(crate) access_log: Option<PathBuf>,
}

// === impl Kind ===

impl Kind {
    pub(crate) const ALL: [Self; 6] = [
        Self::Mesh,
        Self::Envoy,
        Self::EnvoyPlain,
        Self::Nginx,
        Self::Haproxy,
        Self::Hyper,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Mesh => "mesh",
            Self::Envoy => "envoy",
            Self::EnvoyPlain => "envoy-plain",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Hyper => "hyper",
        }
    }

    /// Whether it runs the list of `benches/peers/FEATURES.md`.
    pub(crate) fn has_the_list(self) -> bool {
        matches!(self, Self::Mesh | Self::Envoy)
    }
}

// === impl Peer ===

impl Peer {
    /// Writes the configuration and says how to start the peer with it.
    ///
    /// # Errors
    ///
    /// If a file cannot be written.
    pub(crate) fn start(&self, root: &Path, setting: &Setting) -> anyhow::Result<Start> {
        match self.kind {
            Kind::Mesh => Ok(mesh::start(self, root, setting)),
            Kind::Envoy => envoy::start(self, setting, true),
            Kind::EnvoyPlain => envoy::start(self, setting, false),
            Kind::Nginx => forwarders::nginx(self, setting),
            Kind::Haproxy => forwarders::haproxy(self, setting),
            Kind::Hyper => Ok(forwarders::hyper(self, setting)),
        }
    }

    /// Whether it listens there, with so many workers.
    pub(crate) fn has(&self, port: Port, workers: usize) -> bool {
        match (self.kind, port) {
            (Kind::Hyper, _) => port == Port::H1 && workers == 1,
            (_, Port::Tcp) => self.has_tcp,
            _ => true,
        }
    }
}

// === impl Setting ===

impl Setting {
    pub(crate) fn file(&self, kind: Kind, end: &str) -> PathBuf {
        self.folder
            .join(format!("{}-{}.{end}", kind.name(), self.workers))
    }
}
