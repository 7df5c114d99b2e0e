//! One endpoint that is asked one question, again and again.

use super::dial::Dialer;
use super::{question, tcp};
use crate::upstream::connect::Connector;
use mesh_core::model::{ClusterEntry, GrpcProbe, HealthCheck, HttpProbe, Probe};
use mesh_core::stats::ClusterStat;
use mesh_core::{Rng, Shard};
use mesh_lb::health::{Answer, first_wait};
use mesh_lb::{ClusterHosts, Host};
use std::sync::Arc;
use tokio::time::{Instant, sleep, timeout};

pub(super) struct Session {
    dialer: Dialer,
    /// Which of the cluster's checks it is.
    number: usize,
}

/// Who asks, with the connection of the time before.
enum Asker {
    Http(question::Asker<HttpProbe>),
    Tcp(tcp::Asker),
    Grpc(question::Asker<GrpcProbe>),
}

// === impl Session ===

impl Session {
    /// `number` is that of one of the cluster's checks.
    pub(super) fn new(
        connector: Connector,
        entry: Arc<ClusterEntry>,
        host: Arc<Host>,
        number: usize,
    ) -> Self {
        Self {
            dialer: Dialer::new(connector, entry, host),
            number,
        }
    }

    /// Asks until the endpoint is not to be asked any more.
    pub(super) async fn run(self, rng: Rng) {
        let Self { dialer, number } = self;
        let entry = dialer.entry().clone();
        let Some(check) = entry.config().health_checks.get(number) else {
            return;
        };
        let hosts = ClusterHosts::of(&entry);
        let id = dialer.host().id();
        let stats = entry.live().stats().block();
        let mut asker = Asker::new(dialer, check);
        sleep(first_wait(&check.pace, rng.word())).await;
        loop {
            stats.inc(Shard::default(), ClusterStat::CheckAttempt);
            let answer = match timeout(check.timeout, asker.ask()).await {
                Ok(answer) => answer,
                Err(_) => {
                    asker.hang_up();
                    Answer::Late
                }
            };
            if !check.reuse_connection {
                asker.hang_up();
            }
            let now = Instant::now().into_std();
            match hosts.checked(id, number, answer, now, rng.word()) {
                Some(wait) => sleep(wait).await,
                None => return,
            }
        }
    }
}

// === impl Asker ===

impl Asker {
    fn new(dialer: Dialer, check: &HealthCheck) -> Self {
        match &check.probe {
            Probe::Http(probe) => Self::Http(question::Asker::new(dialer, (**probe).clone())),
            Probe::Grpc(probe) => Self::Grpc(question::Asker::new(dialer, probe.clone())),
            Probe::Tcp(probe) => Self::Tcp(tcp::Asker::new(dialer, probe.clone())),
            // A kind that is not known yet: to be able to connect is all that can be asked for.
            _ => Self::Tcp(tcp::Asker::new(dialer, Default::default())),
        }
    }

    async fn ask(&mut self) -> Answer {
        match self {
            Self::Http(asker) => asker.ask().await,
            Self::Tcp(asker) => asker.ask().await,
            Self::Grpc(asker) => asker.ask().await,
        }
    }

    fn hang_up(&mut self) {
        match self {
            Self::Http(asker) => asker.hang_up(),
            Self::Tcp(asker) => asker.hang_up(),
            Self::Grpc(asker) => asker.hang_up(),
        }
    }
}
