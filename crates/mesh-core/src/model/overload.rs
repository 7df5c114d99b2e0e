//! What a process does when it runs out of something (Envoy `OverloadManager`).

use crate::Name;
use std::time::Duration;

/// What is watched, and what is done about it. It is the process's own, no part of a snapshot.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Overload {
    /// How often it is looked (`refresh_interval`). Default 1 s.
    pub refresh: Duration,
    /// What is watched besides [`Overload::DESCRIPTORS`].
    pub monitors: Vec<OverloadMonitor>,
    /// What is done. Default: nothing.
    pub rules: Vec<OverloadRule>,
    /// Connections of callers at once, of all listeners together (Envoy's monitor
    /// `global_downstream_max_connections`). None leaves it to the proxy.
    pub max_connections: Option<u64>,
}

/// Something that can run out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct OverloadMonitor {
    /// What triggers call it, e.g. `envoy.resource_monitors.fixed_heap`.
    pub name: Name,
    /// What it is.
    pub resource: WatchedResource,
}

/// What a monitor looks at. Its pressure is the part that is used, from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WatchedResource {
    /// Memory of the process's own, in bytes, of at most so many (Envoy `fixed_heap`).
    Heap(u64),
    /// Memory of the control group, in bytes, of at most so many, and of no more than the group may
    /// have (Envoy `cgroup_memory`). 0 is what the group may have.
    ControlGroup(u64),
    /// File descriptors, of as many as the process may have (`RLIMIT_NOFILE`).
    Descriptors,
}

/// When something is done.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct OverloadRule {
    /// What is done.
    pub action: OverloadAction,
    /// Each for itself; the one that asks for most counts.
    pub triggers: Vec<OverloadTrigger>,
}

/// A pressure at which something is done.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct OverloadTrigger {
    /// The monitor.
    pub monitor: Name,
    /// Up to this pressure nothing is done (Envoy `scaling_threshold`), from 0 to 1.
    pub from: f64,
    /// From this pressure on it is done wholly (`saturation_threshold`, or `threshold.value`, where
    /// both are the same), and between the two in proportion.
    pub to: f64,
}

/// What can be done, the mildest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum OverloadAction {
    /// Connections end with their next response.
    DisableKeepalive,
    /// Requests are answered 503.
    StopRequests,
    /// Connections are closed as soon as they were accepted.
    RejectConnections,
    /// Connections are left to the kernel.
    StopAccepting,
}

// === impl Overload ===

impl Overload {
    /// The monitor of file descriptors. It is always there; Envoy has none, so this name is ours.
    pub const DESCRIPTORS: &'static str = "mesh.resource_monitors.file_descriptors";

    /// How often it is looked where nothing is said (Envoy's default).
    pub const REFRESH: Duration = Duration::from_secs(1);
}

impl Default for Overload {
    /// Nothing but descriptors is watched, and nothing is done.
    fn default() -> Self {
        Self {
            refresh: Self::REFRESH,
            monitors: Vec::new(),
            rules: Vec::new(),
            max_connections: None,
        }
    }
}

// === impl OverloadMonitor ===

impl OverloadMonitor {
    /// A monitor by the name that triggers call it.
    pub fn new(name: impl Into<Name>, resource: WatchedResource) -> Self {
        Self {
            name: name.into(),
            resource,
        }
    }
}

// === impl OverloadRule ===

impl OverloadRule {
    /// Something that is done for these reasons.
    pub fn new(action: OverloadAction, triggers: Vec<OverloadTrigger>) -> Self {
        Self { action, triggers }
    }
}

// === impl OverloadTrigger ===

impl OverloadTrigger {
    /// All or nothing (Envoy `threshold`).
    pub fn threshold(monitor: impl Into<Name>, at: f64) -> Self {
        Self::scaled(monitor, at, at)
    }

    /// In proportion between two pressures (Envoy `scaled`).
    pub fn scaled(monitor: impl Into<Name>, from: f64, to: f64) -> Self {
        Self {
            monitor: monitor.into(),
            from,
            to,
        }
    }
}

// === impl OverloadAction ===

impl OverloadAction {
    /// All of them, the mildest first.
    pub const ALL: [Self; 4] = [
        Self::DisableKeepalive,
        Self::StopRequests,
        Self::RejectConnections,
        Self::StopAccepting,
    ];

    /// Envoy's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::DisableKeepalive => "envoy.overload_actions.disable_http_keepalive",
            Self::StopRequests => "envoy.overload_actions.stop_accepting_requests",
            Self::RejectConnections => "envoy.overload_actions.reject_incoming_connections",
            Self::StopAccepting => "envoy.overload_actions.stop_accepting_connections",
        }
    }

    /// The one that Envoy calls so.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_action_is_found_by_its_name_and_the_mildest_comes_first() {
        for action in OverloadAction::ALL {
            assert_eq!(OverloadAction::named(action.name()), Some(action));
        }
        assert!(OverloadAction::ALL.is_sorted());
        assert_eq!(
            OverloadAction::named("envoy.overload_actions.shrink_heap"),
            None
        );
    }
}
