//! Active health checks of a cluster's hosts: who is asked, and what the answers change.

use super::{ClusterHosts, Inner};
use crate::Host;
use crate::health::{Answer, Checked, Session, Transition, wait};
use crate::hosts::Members;
use crate::outlier::Event;
use crate::words::WordMap;
use mesh_core::model::{Cluster, Health};
use mesh_core::stats::ClusterStat;
use mesh_core::{Feed, HostId, Shard};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The answers of each host that is checked, one [`Session`] for each check of the cluster.
#[derive(Debug, Default)]
pub(super) struct Checks(WordMap<HostId, Watched>);

#[derive(Debug)]
struct Watched {
    host: Arc<Host>,
    sessions: Vec<Session>,
}

// === impl Checks ===

impl Checks {
    /// Watches exactly those of these hosts that are to be checked. Where checks are new to a host
    /// of old, it stays what it is until it is asked: Envoy goes on with the cluster as it was
    /// until then.
    pub(super) fn follow(&mut self, config: &Cluster, hosts: &[Arc<Host>], old: &Members) {
        let count = config.health_checks.len();
        if count == 0 && self.0.is_empty() {
            return;
        }
        let mut before = std::mem::take(&mut self.0);
        for host in hosts {
            let known = before.remove(&host.id());
            if count == 0 || !host.is_to_be_checked() {
                host.set_checked(Checked::default());
                continue;
            }
            let sessions = match known {
                Some(known) if known.sessions.len() == count => known.sessions,
                _ if old.contains(host.id()) => vec![Session::in_service(); count],
                _ => vec![Session::default(); count],
            };
            let host = host.clone();
            let watched = Watched { host, sessions };
            watched.show();
            self.0.insert(watched.host.id(), watched);
        }
    }

    /// Whether every host was asked.
    fn are_begun(&self) -> bool {
        let mut sessions = self.0.values().flat_map(|watched| &watched.sessions);
        sessions.all(Session::is_begun)
    }

    /// How many hosts are healthy, and how many degraded, by their checks.
    pub(super) fn counts(&self) -> (usize, usize) {
        let count = |has: fn(Checked) -> bool| {
            let hosts = self
                .0
                .values()
                .filter(|watched| has(watched.host.checked()));
            hosts.count()
        };
        (
            count(|checked| !checked.failed),
            count(|checked| checked.degraded),
        )
    }
}

// === impl Watched ===

impl Watched {
    /// What the checks say together; true when that is news.
    fn show(&self) -> bool {
        let all = self.sessions.iter().map(Session::checked);
        self.host
            .set_checked(all.fold(Checked::default(), Checked::and))
    }
}

// === impl ClusterHosts ===

impl ClusterHosts {
    /// The hosts that active health checks ask, with the endpoints that are in force now.
    pub fn to_check(&self) -> Vec<Arc<Host>> {
        self.follow();
        let inner = self.lock();
        let mut hosts: Vec<_> = inner
            .checks
            .0
            .values()
            .map(|one| one.host.clone())
            .collect();
        hosts.sort_by_key(|host| host.id());
        hosts
    }

    /// Whether every host that is to be asked was asked once. Until then a new cluster is not
    /// ready (Envoy's initial health checks).
    pub fn is_checked(&self) -> bool {
        self.follow();
        self.lock().checks.are_begun()
    }

    /// The hosts at each time, and news of them.
    pub fn sets(&self) -> Feed<crate::HostSet> {
        self.current.clone()
    }

    /// Takes the answer of a host to one of the cluster's checks into account, and says how long
    /// to wait before it is asked again; `word` is random. None when it is not to be asked again.
    pub fn checked(
        &self,
        host: HostId,
        check: usize,
        answer: Answer,
        now: Instant,
        word: u64,
    ) -> Option<Duration> {
        let mut inner = self.lock();
        let set = self.current();
        let config = set.config();
        let policy = config.health_checks.get(check)?;
        let watched = inner.checks.0.get_mut(&host)?;
        let transition = watched.sessions.get_mut(check)?.note(answer, policy);
        let traffic = self.stats.block().get(ClusterStat::CxTotal) > 0;
        self.answered(&mut inner, host, answer, now);
        Some(wait(&policy.pace, traffic, answer, transition, word))
    }

    /// An answer to a request said that the host is not well, and that it knows. Nothing happens
    /// where hosts are not checked, for it would never come back.
    pub fn fails(&self, host: &Host, now: Instant) {
        let mut inner = self.lock();
        let set = self.current();
        let Some(watched) = inner.checks.0.get_mut(&host.id()) else {
            return;
        };
        let checks = set.config().health_checks.iter();
        for (session, check) in watched.sessions.iter_mut().zip(checks) {
            let _: Transition = session.note(Answer::Passive, check);
        }
        self.answered(&mut inner, host.id(), Answer::Passive, now);
    }

    /// Counts an answer that was noted, and publishes what it changed.
    fn answered(&self, inner: &mut Inner, id: HostId, answer: Answer, now: Instant) {
        let stats = self.stats.block();
        let inc = |stat| stats.inc(Shard::default(), stat);
        inc(match answer.is_well() {
            true => ClusterStat::CheckSuccess,
            false => ClusterStat::CheckFailure,
        });
        if answer.is_network_failure() {
            inc(ClusterStat::CheckNetworkFailure);
        }
        if answer == Answer::Passive {
            inc(ClusterStat::CheckPassiveFailure);
        }
        let Some(watched) = inner.checks.0.get(&id) else {
            return;
        };
        let was_out = watched.host.checked().failed;
        let (host, mut changed) = (watched.host.clone(), watched.show());
        let is_in = !host.checked().failed;
        if was_out && is_in {
            host.note_healthy_again(now);
        }
        let mut events: Vec<Event> = Vec::new();
        if let Some(ejector) = &mut inner.ejector
            && answer.is_well()
            && is_in
        {
            ejector.is_well(id, now, &mut events);
        }
        changed |= self.record(&events);
        if !changed {
            return;
        }
        let set = self.current();
        let (config, mut members) = (set.config().clone(), set.members().clone());
        if host.is_leaving() && !is_in {
            // It was here only because it was healthy.
            members = Arc::new(members.without(id));
            inner.follow(&config, members.hosts(), &members);
            inc(ClusterStat::MembershipChange);
        }
        self.publish(inner, config, members, Some(now));
    }
}

/// Whether a host stays although discovery does not name it any more.
pub(super) fn stays(config: &Cluster, host: &Host) -> bool {
    config.keep_removed
        && !config.health_checks.is_empty()
        && host.is_to_be_checked()
        && !host.checked().failed
        && host.endpoint().health != Health::Unhealthy
}

#[cfg(test)]
mod tests;
