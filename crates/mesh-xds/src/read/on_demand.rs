//! What in a resource asks for more while requests wait: somebody has to answer.

use super::{ListenerResource, RouteSource};
use mesh_core::model::{ClustersOnDemand, RouteTable};

/// The first field of a resource that asks for something on demand.
#[cfg(feature = "client")]
pub(crate) fn of_resource(resource: &super::Resource) -> Option<String> {
    match resource {
        super::Resource::Listener(listener) => of_listener(listener),
        super::Resource::Routes(table) => of_table(table),
        _ => None,
    }
}

/// The first such field of a listener.
pub(crate) fn of_listener(resource: &ListenerResource) -> Option<String> {
    let mut tables = resource.routes.iter().filter_map(|routes| match routes {
        RouteSource::Inline(table) => of_table(table),
        RouteSource::Named(_) => None,
    });
    if let Some(field) = tables.next() {
        return Some(format!("route_config.{field}"));
    }
    let chains = || resource.listener.all_chains();
    let mut managers = chains().filter_map(|chain| chain.manager());
    if managers.any(|manager| asks(manager.on_demand)) {
        return Some("http_filters: odcds".to_owned());
    }
    let mut proxies = chains().filter_map(|chain| chain.proxy());
    let asks = proxies.any(|proxy| asks(Some(proxy.on_demand)));
    asks.then(|| "on_demand".to_owned())
}

/// The first such field of a route table.
pub(crate) fn of_table(table: &RouteTable) -> Option<String> {
    if table.on_demand.is_some() {
        return Some("vhds".to_owned());
    }
    for host in &table.virtual_hosts {
        let field = format!("virtual_hosts[{}]", host.name);
        if asks(host.on_demand) {
            return Some(format!("{field}.typed_per_filter_config: odcds"));
        }
        if let Some(rule) = host.rules.iter().position(|rule| asks(rule.on_demand)) {
            return Some(format!(
                "{field}.routes[{rule}].typed_per_filter_config: odcds"
            ));
        }
    }
    None
}

fn asks(on_demand: Option<ClustersOnDemand>) -> bool {
    matches!(on_demand, Some(ClustersOnDemand::Within(_)))
}
