//! What is read with the state-of-the-world variant, in which nothing can be asked for on demand.

use crate::TypeUrl;
use crate::read::{self, Resource, RouteSource};
use mesh_core::Invalid;
use mesh_core::model::{ClustersOnDemand, RouteTable};

/// Reads a resource as [`read::resource`] does, and refuses what would need the delta variant.
pub(super) fn resource(kind: TypeUrl, bytes: &[u8]) -> Result<Resource, Invalid> {
    let resource = read::resource(kind, bytes)?;
    match &resource {
        Resource::Routes(table) => check_table(table)?,
        Resource::Listener(listener) => {
            for routes in &listener.routes {
                if let RouteSource::Inline(table) = routes {
                    check_table(table).map_err(|error| error.within("route_config"))?;
                }
            }
            let chains = || listener.listener.all_chains();
            let asks = |on_demand| matches!(on_demand, Some(ClustersOnDemand::Within(_)));
            if chains()
                .filter_map(|c| c.manager())
                .any(|m| asks(m.on_demand))
            {
                return Err(needs_delta("http_filters: odcds"));
            }
            if chains()
                .filter_map(|c| c.proxy())
                .any(|p| asks(Some(p.on_demand)))
            {
                return Err(needs_delta("on_demand"));
            }
        }
        _ => {}
    }
    Ok(resource)
}

fn check_table(table: &RouteTable) -> Result<(), Invalid> {
    match table.on_demand {
        Some(_) => Err(needs_delta("vhds")),
        None => Ok(()),
    }
}

fn needs_delta(field: &str) -> Invalid {
    Invalid::new(
        field,
        "needs the delta variant of the protocol (DELTA_GRPC)",
    )
}
