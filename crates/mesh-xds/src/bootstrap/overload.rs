//! The overload manager.

use crate::pb::envoy::config::overload::v3 as pb;
use crate::pb::envoy::config::overload::v3::resource_monitor::ConfigType;
use crate::pb::envoy::config::overload::v3::trigger::TriggerOneof;
use crate::pb::envoy::extensions::resource_monitors::cgroup_memory::v3::CgroupMemoryConfig;
use crate::pb::envoy::extensions::resource_monitors::downstream_connections::v3::DownstreamConnectionsConfig;
use crate::pb::envoy::extensions::resource_monitors::fixed_heap::v3::FixedHeapConfig;
use crate::wire::{At, duration, each, refuse, required, type_name, unpack};
use mesh_core::Invalid;
use mesh_core::model::{
    Overload, OverloadAction, OverloadMonitor, OverloadRule, OverloadTrigger, WatchedResource,
};
use prost::Name as _;
use std::time::Duration;

/// A monitor as it is configured.
enum Read {
    Watched(OverloadMonitor),
    /// Looked at when a connection comes, and by nobody else.
    MaxConnections(u64),
}

pub(super) fn read(value: &pb::OverloadManager) -> Result<Overload, Invalid> {
    let pb::OverloadManager {
        refresh_interval,
        resource_monitors,
        actions,
        loadshed_points,
        buffer_factory_config,
    } = value;
    refuse!(loadshed_points, buffer_factory_config);
    let mut overload = Overload::default();
    if let Some(interval) = refresh_interval {
        overload.refresh = duration("refresh_interval", interval)?;
        if overload.refresh < Duration::from_millis(1) {
            return Err(Invalid::new("refresh_interval", "must be 1 ms or more"));
        }
    }
    for (at, monitor) in resource_monitors.iter().enumerate() {
        let place = format!("resource_monitors[{at}]");
        match monitor_of(monitor).at(&place)? {
            Read::MaxConnections(most) if overload.max_connections.is_none() => {
                overload.max_connections = Some(most);
            }
            Read::Watched(monitor) if !knows(&overload, &monitor.name) => {
                overload.monitors.push(monitor);
            }
            _ => {
                let message = format!("{:?} is there twice", monitor.name);
                return Err(Invalid::new(format!("{place}.name"), message));
            }
        }
    }
    for (at, action) in actions.iter().enumerate() {
        let place = format!("actions[{at}]");
        let rule = rule(action, &overload).at(&place)?;
        if overload
            .rules
            .iter()
            .any(|other| other.action == rule.action)
        {
            let message = format!("{:?} is there twice", action.name);
            return Err(Invalid::new(format!("{place}.name"), message));
        }
        overload.rules.push(rule);
    }
    Ok(overload)
}

/// Descriptors are always watched.
fn knows(overload: &Overload, name: &str) -> bool {
    name == Overload::DESCRIPTORS || overload.monitors.iter().any(|known| *known.name == *name)
}

fn monitor_of(value: &pb::ResourceMonitor) -> Result<Read, Invalid> {
    let pb::ResourceMonitor { name, config_type } = value;
    if name.is_empty() {
        return Err(Invalid::new("name", "required, but missing"));
    }
    let ConfigType::TypedConfig(any) = required("typed_config", config_type)?;
    let read = || match type_name(any) {
        kind if kind == FixedHeapConfig::full_name() => {
            let FixedHeapConfig {
                max_heap_size_bytes,
                max_heap_size_bytes_runtime,
            } = &unpack(any)?;
            refuse!(max_heap_size_bytes_runtime);
            if *max_heap_size_bytes == 0 {
                return Err(Invalid::new("max_heap_size_bytes", "must be more than 0"));
            }
            Ok(watched(name, WatchedResource::Heap(*max_heap_size_bytes)))
        }
        kind if kind == CgroupMemoryConfig::full_name() => {
            let CgroupMemoryConfig { max_memory_bytes } = unpack(any)?;
            let resource = WatchedResource::ControlGroup(max_memory_bytes);
            Ok(watched(name, resource))
        }
        kind if kind == DownstreamConnectionsConfig::full_name() => {
            let DownstreamConnectionsConfig {
                max_active_downstream_connections: most,
            } = unpack(any)?;
            match u64::try_from(most) {
                Ok(most @ 1..) => Ok(Read::MaxConnections(most)),
                _ => {
                    let field = "max_active_downstream_connections";
                    Err(Invalid::new(field, "must be more than 0"))
                }
            }
        }
        kind => Err(Invalid::new("", format!("{kind:?} is not supported"))),
    };
    read().at("typed_config")
}

fn watched(name: &str, resource: WatchedResource) -> Read {
    Read::Watched(OverloadMonitor::new(name, resource))
}

fn rule(value: &pb::OverloadAction, overload: &Overload) -> Result<OverloadRule, Invalid> {
    let pb::OverloadAction {
        name,
        triggers,
        typed_config,
    } = value;
    let Some(action) = OverloadAction::named(name) else {
        return Err(Invalid::new("name", format!("{name:?} is not supported")));
    };
    refuse!(typed_config);
    let triggers = each("triggers", triggers, |value| trigger(value, overload))?;
    if triggers.is_empty() {
        return Err(Invalid::new("triggers", "required, but missing"));
    }
    for (at, one) in triggers.iter().enumerate() {
        if triggers[..at]
            .iter()
            .any(|other| other.monitor == one.monitor)
        {
            let message = format!("{:?} is there twice", one.monitor);
            return Err(Invalid::new(format!("triggers[{at}].name"), message));
        }
    }
    Ok(OverloadRule::new(action, triggers))
}

fn trigger(value: &pb::Trigger, overload: &Overload) -> Result<OverloadTrigger, Invalid> {
    let pb::Trigger {
        name,
        trigger_oneof,
    } = value;
    if !knows(overload, name) {
        return Err(Invalid::new(
            "name",
            format!("no monitor is called {name:?}"),
        ));
    }
    match required("threshold", trigger_oneof)? {
        TriggerOneof::Threshold(threshold) => {
            share("value", threshold.value).at("threshold")?;
            Ok(OverloadTrigger::threshold(name.as_str(), threshold.value))
        }
        TriggerOneof::Scaled(scaled) => {
            let (from, to) = (scaled.scaling_threshold, scaled.saturation_threshold);
            share("scaling_threshold", from).at("scaled")?;
            share("saturation_threshold", to).at("scaled")?;
            if from >= to {
                let message = "saturation_threshold must be above scaling_threshold";
                return Err(Invalid::new("scaled", message));
            }
            Ok(OverloadTrigger::scaled(name.as_str(), from, to))
        }
    }
}

fn share(field: &str, value: f64) -> Result<(), Invalid> {
    match (0.0..=1.0).contains(&value) {
        true => Ok(()),
        false => Err(Invalid::new(
            field,
            format!("{value} is not between 0 and 1"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use crate::bootstrap::Bootstrap;
    use mesh_core::model::{Overload, OverloadAction, OverloadTrigger, WatchedResource};
    use std::time::Duration;

    const HEAP: &str = "
  - name: envoy.resource_monitors.fixed_heap
    typed_config:
      '@type': type.googleapis.com/envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig
      max_heap_size_bytes: 1000";

    fn read(monitors: &str, actions: &str) -> Result<Overload, String> {
        let yaml = format!(
            "overload_manager:\n  refresh_interval: 0.25s\n  resource_monitors:{monitors}\n  actions:{actions}\n"
        );
        let read = Bootstrap::from_yaml(&yaml).map_err(|error| error.to_string());
        read.map(|bootstrap| bootstrap.overload.unwrap())
    }

    #[test]
    fn monitors_actions_and_the_limit_of_connections_are_read() {
        let monitors = format!(
            "{HEAP}
  - name: group
    typed_config:
      '@type': type.googleapis.com/envoy.extensions.resource_monitors.cgroup_memory.v3.CgroupMemoryConfig
  - name: envoy.resource_monitors.global_downstream_max_connections
    typed_config:
      '@type': type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig
      max_active_downstream_connections: 77"
        );
        let actions = "
  - name: envoy.overload_actions.disable_http_keepalive
    triggers:
    - {name: group, scaled: {scaling_threshold: 0.5, saturation_threshold: 0.75}}
    - {name: mesh.resource_monitors.file_descriptors, threshold: {value: 0.9}}
  - name: envoy.overload_actions.stop_accepting_connections
    triggers: [{name: envoy.resource_monitors.fixed_heap, threshold: {value: 1}}]";
        let overload = read(&monitors, actions).unwrap();
        assert_eq!(overload.refresh, Duration::from_millis(250));
        assert_eq!(overload.max_connections, Some(77));
        let resources: Vec<_> = overload.monitors.iter().map(|one| one.resource).collect();
        assert_eq!(
            resources,
            [
                WatchedResource::Heap(1000),
                WatchedResource::ControlGroup(0)
            ]
        );
        let [first, second] = &overload.rules[..] else {
            panic!("{overload:?}");
        };
        assert_eq!(first.action, OverloadAction::DisableKeepalive);
        assert_eq!(
            first.triggers,
            [
                OverloadTrigger::scaled("group", 0.5, 0.75),
                OverloadTrigger::threshold(Overload::DESCRIPTORS, 0.9)
            ]
        );
        assert_eq!(second.action, OverloadAction::StopAccepting);
    }

    #[test]
    fn what_would_do_nothing_or_is_not_known_is_refused_by_its_place() {
        let action = |name: &str, trigger: &str| {
            format!("\n  - name: envoy.overload_actions.{name}\n    triggers: [{trigger}]")
        };
        let heap = "{name: envoy.resource_monitors.fixed_heap, threshold: {value: 0.9}}";
        let cases = [
            (
                HEAP.to_owned(),
                action("shrink_heap", heap),
                "actions[0].name",
            ),
            (
                HEAP.to_owned(),
                action(
                    "stop_accepting_requests",
                    "{name: other, threshold: {value: 0.9}}",
                ),
                "actions[0].triggers[0].name",
            ),
            (
                HEAP.to_owned(),
                action("stop_accepting_requests", &heap.replace("0.9", "1.5")),
                "actions[0].triggers[0].threshold.value",
            ),
            (
                HEAP.to_owned(),
                action(
                    "stop_accepting_requests",
                    "{name: envoy.resource_monitors.fixed_heap, scaled: {scaling_threshold: 0.9, saturation_threshold: 0.8}}",
                ),
                "actions[0].triggers[0].scaled",
            ),
            (
                HEAP.to_owned(),
                action("stop_accepting_requests", &format!("{heap}, {heap}")),
                "actions[0].triggers[1].name",
            ),
            (
                HEAP.to_owned(),
                action("stop_accepting_requests", heap).repeat(2),
                "actions[1].name",
            ),
            (HEAP.repeat(2), String::new(), "resource_monitors[1].name"),
            (
                HEAP.replace("1000", "0"),
                String::new(),
                "resource_monitors[0].typed_config.max_heap_size_bytes",
            ),
            (
                HEAP.replace(
                    "_bytes: 1000",
                    "_bytes_runtime: {default_value: 1, runtime_key: k}",
                ),
                String::new(),
                "resource_monitors[0].typed_config.max_heap_size_bytes_runtime",
            ),
        ];
        for (monitors, actions, place) in cases {
            let actions = if actions.is_empty() { " []" } else { &actions };
            let error = read(&monitors, actions).unwrap_err();
            assert!(
                error.contains(&format!("overload_manager.{place}")),
                "{place}: {error}"
            );
        }
    }
}
