//! What is read where nothing can be asked for on demand: with the state-of-the-world variant, and
//! without servers.

use crate::TypeUrl;
use crate::read::{self, Reader, Resource};
use mesh_core::Invalid;

/// Reads a resource as the reader does, and refuses what somebody would have to answer.
pub(super) fn resource(reader: &Reader, kind: TypeUrl, bytes: &[u8]) -> Result<Resource, Invalid> {
    let resource = reader.resource(kind, bytes)?;
    check(&resource)?;
    Ok(resource)
}

/// Refuses what somebody would have to answer.
pub(super) fn check(resource: &Resource) -> Result<(), Invalid> {
    match read::on_demand::of_resource(resource) {
        Some(field) => {
            let message =
                "needs the delta variant of the protocol (DELTA_GRPC), and somebody to answer";
            Err(Invalid::new(field, message))
        }
        None => Ok(()),
    }
}
