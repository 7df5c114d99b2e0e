//! `/clusters`: the endpoints of every cluster, in Envoy's two forms.

use crate::runtime::Shared;
use crate::xds::Control;
use mesh_core::model::{Address, ClusterEntry, Health, Limits};
use mesh_lb::{ClusterHosts, HostView};
use mesh_xds::TypeUrl;
use serde_json::{Value, json};
use std::fmt::Write;
use std::sync::Arc;

pub(super) fn text(shared: &Shared) -> String {
    let snapshot = shared.feed.load();
    let mut out = String::new();
    for entry in snapshot.clusters() {
        let name = &entry.config().name;
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{name}::observability_name::{}", stat_name(entry));
        for (priority, limits) in [
            ("default", &entry.config().limits),
            ("high", &entry.config().high),
        ] {
            for (what, value) in thresholds(limits) {
                let _ = writeln!(out, "{name}::{priority}_priority::{what}::{value}");
            }
        }
        let added = is_added(shared, entry);
        let _ = writeln!(out, "{name}::added_via_api::{added}");
        for host in ClusterHosts::of(entry).view() {
            let prefix = format!("{name}::{}", host.address.as_envoy());
            for (what, value) in numbers(&host) {
                let _ = writeln!(out, "{prefix}::{what}::{value}");
            }
            let _ = writeln!(out, "{prefix}::hostname::{}", hostname(&host));
            let _ = writeln!(out, "{prefix}::health_flags::{}", health_flags(&host));
            let _ = writeln!(out, "{prefix}::weight::{}", host.weight);
            let _ = writeln!(out, "{prefix}::region::{}", host.locality.region);
            let _ = writeln!(out, "{prefix}::zone::{}", host.locality.zone);
            let _ = writeln!(out, "{prefix}::sub_zone::{}", host.locality.sub_zone);
            let _ = writeln!(out, "{prefix}::canary::{}", host.canary);
            let _ = writeln!(out, "{prefix}::priority::{}", host.priority);
            let _ = writeln!(out, "{prefix}::success_rate::-1");
            let _ = writeln!(out, "{prefix}::local_origin_success_rate::-1");
        }
    }
    out
}

pub(super) fn json(shared: &Shared) -> Value {
    let snapshot = shared.feed.load();
    let clusters = snapshot.clusters().iter();
    let statuses: Vec<Value> = clusters
        .map(|entry| cluster(entry, is_added(shared, entry)))
        .collect();
    json!({"cluster_statuses": statuses})
}

/// Whether a cluster came from a control plane or a file (`added_via_api`).
fn is_added(shared: &Shared, entry: &ClusterEntry) -> bool {
    let is_static = |control: &Control| control.is_static(TypeUrl::Cluster, &entry.config().name);
    shared
        .control
        .as_deref()
        .is_some_and(|control| !is_static(control))
}

fn cluster(entry: &Arc<ClusterEntry>, added: bool) -> Value {
    let hosts: Vec<Value> = ClusterHosts::of(entry).view().iter().map(host).collect();
    json!({
        "name": entry.config().name.as_str(),
        "observability_name": stat_name(entry),
        "added_via_api": added,
        "circuit_breakers": {"thresholds": [
            breakers("DEFAULT", &entry.config().limits),
            breakers("HIGH", &entry.config().high),
        ]},
        "host_statuses": hosts,
    })
}

fn thresholds(limits: &Limits) -> [(&'static str, u32); 4] {
    [
        ("max_connections", limits.max_connections),
        ("max_pending_requests", limits.max_pending),
        ("max_requests", limits.max_requests),
        ("max_retries", limits.max_retries),
    ]
}

fn breakers(priority: &str, limits: &Limits) -> Value {
    let mut value = json!({"priority": priority});
    for (what, most) in thresholds(limits) {
        value[what] = most.into();
    }
    value
}

fn host(host: &HostView) -> Value {
    let address = match &host.address {
        Address::Socket(address) => super::socket(*address),
        Address::Unix(path) => super::pipe(path),
        other => json!({
            "socket_address": {"address": other.to_string(), "port_value": other.port()}
        }),
    };
    let stats: Vec<Value> = numbers(host)
        .into_iter()
        .map(|(name, value)| {
            let kind = if name.ends_with("active") {
                "GAUGE"
            } else {
                "COUNTER"
            };
            json!({"name": name, "value": value.to_string(), "type": kind})
        })
        .collect();
    let mut health = json!({"eds_health_status": match host.health {
        Health::Healthy => "HEALTHY",
        Health::Degraded => "DEGRADED",
        Health::Draining => "DRAINING",
        _ => "UNHEALTHY",
    }});
    for (flag, said) in flags(host) {
        if said {
            health[flag] = Value::Bool(true);
        }
    }
    json!({
        "address": address,
        "stats": stats,
        "health_status": health,
        "weight": host.weight,
        "hostname": hostname(host),
        "priority": host.priority,
        "locality": {
            "region": host.locality.region.as_str(),
            "zone": host.locality.zone.as_str(),
            "sub_zone": host.locality.sub_zone.as_str(),
        },
    })
}

/// What takes a host out of balancing besides discovery (Envoy's `HostHealthStatus`).
fn flags(host: &HostView) -> [(&'static str, bool); 6] {
    [
        ("failed_active_health_check", host.checked.failed),
        ("failed_outlier_check", host.ejected),
        ("failed_active_degraded_check", host.checked.degraded),
        ("pending_dynamic_removal", host.leaving),
        ("excluded_via_immediate_hc_fail", host.checked.excluded),
        ("active_hc_timeout", host.checked.late),
    ]
}

fn hostname(host: &HostView) -> &str {
    match &host.address {
        Address::Host(name, _) => name,
        _ => "",
    }
}

fn numbers(host: &HostView) -> [(&'static str, u64); 7] {
    [
        ("cx_active", u64::from(host.counts.cx_active)),
        ("cx_connect_fail", host.counts.cx_connect_fail),
        ("cx_total", host.counts.cx_total),
        ("rq_active", u64::from(host.active)),
        ("rq_error", host.counts.rq_error),
        ("rq_success", host.counts.rq_success),
        ("rq_total", host.counts.rq_total),
    ]
}

fn health_flags(host: &HostView) -> String {
    let mut flags = String::new();
    let mut add = |said: bool, flag: &str| {
        if said {
            flags += flag;
        }
    };
    // In the order of Envoy's `HEALTH_FLAG_ENUM_VALUES`.
    add(host.checked.failed, "/failed_active_hc");
    add(host.ejected, "/failed_outlier_check");
    add(host.health == Health::Unhealthy, "/failed_eds_health");
    add(host.checked.degraded, "/degraded_active_hc");
    add(host.health == Health::Degraded, "/eds_status_degraded");
    add(host.leaving, "/pending_dynamic_removal");
    add(host.checked.excluded, "/excluded_via_immediate_hc_fail");
    add(host.checked.late, "/active_hc_timeout");
    add(host.health == Health::Draining, "/eds_status_draining");
    if flags.is_empty() {
        "healthy".to_owned()
    } else {
        flags
    }
}

fn stat_name(entry: &ClusterEntry) -> &str {
    entry
        .config()
        .stat_name
        .as_ref()
        .unwrap_or(&entry.config().name)
}
