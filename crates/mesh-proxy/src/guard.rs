//! What keeps the process up when there is too much of something: limits on connections, and what is
//! done when memory or descriptors run out (Envoy's overload manager).
//!
//! The state is a few atomics that all workers look at. One task looks at the system
//! ([`watch_over`]) and asks a machine without I/O what is to be done.

mod addresses;
mod limits;
mod machine;
mod monitor;

pub use limits::Limits;
pub(crate) use limits::usual;

use self::addresses::Addresses;
use self::machine::{Machine, WHOLLY, place};
use mesh_core::model::{Overload, OverloadAction, WatchedResource};
use mesh_core::stats::{Block, Http2Stat, Kind, ListenerStat};
use mesh_core::{Name, Rng};
use mesh_resilience::overload::Shedding;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// What all workers share. A clone is the same guard.
#[derive(Clone, Debug)]
pub(crate) struct Guard(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limits: Limits,
    config: Overload,
    /// Callers' connections at once; none is no limit.
    most: Option<u64>,
    connections: AtomicU64,
    addresses: Addresses,
    handshakes: AtomicU32,
    /// How far connections end with their next response, in millionths.
    keepalive: AtomicU32,
    rejecting: AtomicU32,
    shedding: Shedding,
    /// Whether connections are left to the kernel.
    stopped: watch::Sender<bool>,
    http2: Block<Http2Stat>,
    seen: Mutex<Seen>,
    rng: Rng,
}

/// What was seen at the last look.
#[derive(Debug, Default)]
struct Seen {
    levels: [u32; OverloadAction::ALL.len()],
    /// By monitor: the pressure, and how many looks failed.
    monitors: HashMap<Name, (f64, u64)>,
}

/// The place of a connection among those that there may be, until it is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    guard: Guard,
    /// Whose places it takes, if these are counted.
    from: Option<SocketAddr>,
}

/// The place of a handshake.
#[derive(Debug)]
pub(crate) struct Shaking(Guard);

// === impl Guard ===

impl Guard {
    pub(crate) fn new(limits: Limits, config: Overload, rng: Rng) -> Self {
        let most = config.max_connections.or(limits.connections);
        Self(Arc::new(Inner {
            most,
            addresses: Addresses::default(),
            connections: AtomicU64::new(0),
            handshakes: AtomicU32::new(0),
            keepalive: AtomicU32::new(0),
            rejecting: AtomicU32::new(0),
            shedding: Shedding::default(),
            stopped: watch::Sender::new(false),
            http2: Block::default(),
            seen: Mutex::default(),
            rng,
            limits,
            config,
        }))
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// What is counted for connections of HTTP/2.
    pub(crate) fn http2(&self) -> &Block<Http2Stat> {
        &self.0.http2
    }

    /// How far requests are refused.
    pub(crate) fn shedding(&self) -> &Shedding {
        &self.0.shedding
    }

    /// Says when connections are left to the kernel.
    pub(crate) fn stopped(&self) -> watch::Receiver<bool> {
        self.0.stopped.subscribe()
    }

    /// A place for a connection that was accepted.
    ///
    /// # Errors
    /// What the refusal counts as: the connection is to be closed.
    pub(crate) fn admit(&self, peer: SocketAddr) -> Result<Permit, ListenerStat> {
        let inner = &*self.0;
        if self.by_chance(&inner.rejecting) {
            return Err(ListenerStat::CxOverloadReject);
        }
        let before = inner.connections.fetch_add(1, Ordering::Relaxed);
        // From here on it gives its place back itself.
        let mut permit = Permit {
            guard: self.clone(),
            from: None,
        };
        if inner.most.is_some_and(|most| before >= most) {
            return Err(ListenerStat::GlobalCxOverflow);
        }
        // Connections of Unix domain sockets come from nowhere.
        if let Some(most) = inner.limits.connections_per_address
            && !peer.ip().is_unspecified()
        {
            if !inner.addresses.take(peer.ip(), most) {
                return Err(ListenerStat::AddressCxOverflow);
            }
            permit.from = Some(peer);
        }
        Ok(permit)
    }

    /// A place for a handshake; none if there are as many as there may be.
    pub(crate) fn shake(&self) -> Option<Shaking> {
        let before = self.0.handshakes.fetch_add(1, Ordering::Relaxed);
        let place = Shaking(self.clone());
        let most = self.0.limits.handshakes;
        most.is_none_or(|most| before < most).then_some(place)
    }

    /// Whether a connection is to end with its next response.
    pub(crate) fn ends_connections(&self) -> bool {
        self.by_chance(&self.0.keepalive)
    }

    /// Connections end from now on, as under pressure.
    #[cfg(test)]
    pub(crate) fn end_connections(&self) {
        self.0.keepalive.store(WHOLLY, Ordering::Relaxed);
    }

    /// True in that part of all cases.
    fn by_chance(&self, level: &AtomicU32) -> bool {
        match level.load(Ordering::Relaxed) {
            0 => false,
            WHOLLY.. => true,
            some => self.0.rng.word() % u64::from(WHOLLY) < u64::from(some),
        }
    }

    fn apply(&self, levels: [u32; OverloadAction::ALL.len()]) {
        let inner = &*self.0;
        let level = |action| levels[place(action)];
        let (keepalive, rejecting) = (&inner.keepalive, &inner.rejecting);
        keepalive.store(level(OverloadAction::DisableKeepalive), Ordering::Relaxed);
        rejecting.store(level(OverloadAction::RejectConnections), Ordering::Relaxed);
        inner.shedding.set(level(OverloadAction::StopRequests));
        let stop = level(OverloadAction::StopAccepting) == WHOLLY;
        inner
            .stopped
            .send_if_modified(|now| std::mem::replace(now, stop) != stop);
        let mut seen = inner.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut seen.levels, levels);
        drop(seen);
        for action in OverloadAction::ALL {
            let (was, is) = (before[place(action)], level(action));
            if (was == 0) != (is == 0) {
                tracing::warn!(action = action.name(), active = is > 0, "overload");
            }
        }
    }

    /// Statistics, by Envoy's names.
    pub(crate) fn statistics(&self) -> Vec<(String, Kind, u64)> {
        let inner = &*self.0;
        let seen = inner.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = Vec::new();
        for rule in &inner.config.rules {
            let (name, level) = (rule.action.name(), seen.levels[place(rule.action)]);
            let percent = u64::from(level) * 100 / u64::from(WHOLLY);
            let active = u64::from(level == WHOLLY);
            all.push((format!("overload.{name}.active"), Kind::Gauge, active));
            all.push((
                format!("overload.{name}.scale_percent"),
                Kind::Gauge,
                percent,
            ));
        }
        let mut monitors: Vec<_> = seen.monitors.iter().collect();
        monitors.sort_by(|a, b| a.0.cmp(b.0));
        for (name, (pressure, failed)) in monitors {
            let percent = (pressure * 100.0) as u64;
            all.push((format!("overload.{name}.pressure"), Kind::Gauge, percent));
            all.push((
                format!("overload.{name}.failed_updates"),
                Kind::Counter,
                *failed,
            ));
        }
        drop(seen);
        let open = inner.connections.load(Ordering::Relaxed);
        all.push(("server.total_connections".into(), Kind::Gauge, open));
        for (name, kind, value) in inner.http2.iter() {
            all.push((format!("http2.{name}"), kind, value));
        }
        all
    }
}

/// Looks at the system again and again, until it is dropped.
pub(crate) async fn watch_over(guard: Guard) {
    looking(guard, monitor::pressure).await;
}

async fn looking(guard: Guard, read: impl Fn(WatchedResource) -> io::Result<f64>) {
    let config = &guard.0.config;
    if config.rules.is_empty() {
        return;
    }
    let mut machine = Machine::new(config);
    let mut look = tokio::time::interval(config.refresh);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        let mut pressures = HashMap::new();
        let mut failed = Vec::new();
        for (name, resource) in guard.watched() {
            match read(resource) {
                Ok(pressure) => drop(pressures.insert(name, pressure)),
                Err(error) => {
                    tracing::debug!(monitor = %name, %error, "overload");
                    failed.push(name);
                }
            }
        }
        let levels = machine.update(&pressures);
        let mut seen = guard.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, pressure) in pressures {
            seen.monitors.entry(name).or_default().0 = pressure;
        }
        for name in failed {
            seen.monitors.entry(name).or_default().1 += 1;
        }
        drop(seen);
        guard.apply(levels);
    }
}

impl Guard {
    fn watched(&self) -> impl Iterator<Item = (Name, WatchedResource)> {
        let own = (Overload::DESCRIPTORS.into(), WatchedResource::Descriptors);
        let others = self.0.config.monitors.iter();
        let others = others.map(|monitor| (monitor.name.clone(), monitor.resource));
        std::iter::once(own).chain(others)
    }
}

// === impl Permit ===

impl Drop for Permit {
    fn drop(&mut self) {
        let inner = &*self.guard.0;
        inner.connections.fetch_sub(1, Ordering::Relaxed);
        if let Some(from) = self.from {
            inner.addresses.give_back(from.ip());
        }
    }
}

// === impl Shaking ===

impl Drop for Shaking {
    fn drop(&mut self) {
        self.0.0.handshakes.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
