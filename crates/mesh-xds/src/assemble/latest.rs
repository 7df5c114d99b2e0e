//! What is known of a resource that something refers to, for those who refer to it by another name.

use super::Assemble;
use crate::TypeUrl;
use crate::read::{EndpointsResource, Resource, SecretResource, SecretValue};
use mesh_core::Name;
use mesh_core::model::{EndpointSet, RouteTable};

// === impl Assemble ===

impl Assemble {
    /// The latest version of what something refers to on the aggregated stream.
    pub(crate) fn latest(&self, kind: TypeUrl, name: &Name) -> Option<Resource> {
        Some(match kind {
            TypeUrl::Endpoints => {
                let set = self.endpoints.get(name)?.value.as_ref()?;
                Resource::Endpoints(EndpointsResource {
                    name: name.clone(),
                    endpoints: EndpointSet::clone(set),
                })
            }
            TypeUrl::Routes => {
                let table = self.tables.latest(name)?;
                Resource::Routes(Box::new(RouteTable::clone(table)))
            }
            TypeUrl::Secret => Resource::Secret(SecretResource {
                name: name.clone(),
                value: SecretValue::clone(self.secrets.links.get(name)?.value.as_ref()?),
            }),
            _ => return None,
        })
    }
}
