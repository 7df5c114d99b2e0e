//! Retries, faults, copies, CORS and header edits of a route.

use std::sync::Arc;
use std::time::Duration;

use http::header::HOST;
use http::{HeaderValue, StatusCode};
use mesh_core::model::{
    AbortWith, AddMode, Cors, DelayBy, Fault, FaultAbort, FaultDelay, Fraction, HeaderAdd,
    HeaderChanges, HeaderEdits, HeaderTemplate, Mirror, Retry, RetryOn, StringMatch,
};

use super::{Compiler, Site, destination};
use crate::spec::Meta;
use crate::spec::virtual_service::{self as spec, HeaderOperations, HttpRoute, Retries};

// A host that was tried is drawn again this often before it is taken after all.
const HOST_ATTEMPTS: u32 = 5;
const BACKOFF: Duration = Duration::from_millis(25);

/// What istiod retries unless told otherwise.
fn usual_conditions() -> RetryOn {
    RetryOn::CONNECT_FAILURE
        .with(RetryOn::REFUSED_STREAM)
        .with(RetryOn::GRPC_UNAVAILABLE)
        .with(RetryOn::GRPC_CANCELLED)
        .with(RetryOn::RETRIABLE_STATUS_CODES)
}

/// The retries of routes that say nothing about them.
///
/// Where requests are `hashed`, the next attempt goes to the same endpoint. They are the very same
/// for all such routes.
pub(in crate::compile) fn default_retry(
    compiler: &mut Compiler<'_>,
    hashed: bool,
) -> Option<Arc<Retry>> {
    if let Some(known) = &compiler.usual_retries[usize::from(hashed)] {
        return known.clone();
    }
    let made = match &compiler.mesh.retries {
        Some(own) => retry(compiler, own, None, hashed),
        None => {
            let mut retry = base();
            retry.attempts = 2;
            retry.avoid_previous_hosts = !hashed;
            Some(retry)
        }
    };
    let made = made.map(Arc::new);
    compiler.usual_retries[usize::from(hashed)] = Some(made.clone());
    made
}

fn base() -> Retry {
    let mut retry = Retry::default();
    retry.on = usual_conditions();
    retry.backoff_base = BACKOFF;
    retry.backoff_max = BACKOFF * 10;
    retry.avoid_previous_hosts = true;
    retry.host_attempts = HOST_ATTEMPTS;
    retry
}

/// The retries that a route (or the mesh, without `meta`) asks for; none with 0 attempts.
pub(super) fn retry(
    compiler: &mut Compiler<'_>,
    asked: &Retries,
    meta: Option<&Meta>,
    hashed: bool,
) -> Option<Retry> {
    if asked.attempts == 0 {
        return None;
    }
    let mut retry = base();
    if let Some(meta) = meta {
        retry.origin = compiler.origin(meta, asked.at);
    }
    retry.attempts = asked.attempts;
    retry.on = asked.on.unwrap_or(retry.on);
    retry.status_codes.clone_from(&asked.status_codes);
    retry.per_try_timeout = asked.per_try_timeout;
    if let Some(backoff) = asked.backoff {
        retry.backoff_base = backoff;
        retry.backoff_max = backoff.saturating_mul(10);
    }
    retry.avoid_previous_hosts = asked.ignore_previous_hosts.unwrap_or(!hashed);
    retry.other_priorities = asked.remote_localities;
    Some(retry)
}

pub(super) fn fault(compiler: &mut Compiler<'_>, meta: &Meta, asked: &spec::Fault) -> Fault {
    let mut fault = Fault::default();
    fault.origin = compiler.origin(meta, asked.at);
    fault.delay = asked.delay.as_ref().map(|delay| FaultDelay {
        by: DelayBy::Fixed(delay.duration),
        share: delay.share,
    });
    fault.abort = asked.abort.as_ref().map(|abort| FaultAbort {
        with: match StatusCode::from_u16(abort.code) {
            Ok(status) if !abort.grpc => AbortWith::Http(status),
            _ => AbortWith::Grpc(abort.code.into()),
        },
        share: abort.share,
    });
    fault
}

pub(super) fn mirrors(
    compiler: &mut Compiler<'_>,
    meta: &Meta,
    route: &HttpRoute,
    site: Site<'_>,
) -> Vec<Mirror> {
    let asked = route
        .mirrors
        .iter()
        .filter(|mirror| mirror.share > Fraction::NONE);
    asked
        .map(|mirror| {
            let origin = compiler.origin(meta, mirror.destination.at);
            let cluster = destination(compiler, meta, &mirror.destination, site);
            Mirror {
                origin,
                share: mirror.share,
                ..Mirror::to(cluster)
            }
        })
        .collect()
}

pub(super) fn cors(compiler: &mut Compiler<'_>, meta: &Meta, asked: &spec::Cors) -> Cors {
    let mut cors = Cors::default();
    cors.origin = compiler.origin(meta, asked.at);
    cors.allow_origins = asked
        .allow_origins
        .iter()
        .map(|origin| match origin {
            // Envoy takes the exact `*` for every origin, and so does everybody who writes it.
            StringMatch::Exact(text) if text == "*" => StringMatch::Prefix(String::new()),
            other => other.clone(),
        })
        .collect();
    cors.allow_methods = asked.allow_methods.join(",");
    cors.allow_headers = asked.allow_headers.join(",");
    cors.expose_headers = asked.expose_headers.join(",");
    cors.max_age = asked.max_age.map(|age| age.to_string()).unwrap_or_default();
    cors.allow_credentials = Some(asked.allow_credentials);
    cors.forward_unmatched_preflights = Some(asked.forward_unmatched);
    cors
}

/// Edits in istiod's order: per source what is set, then what is added, each by name.
pub(super) fn edits(sources: &[&HeaderOperations]) -> HeaderEdits {
    let mut edits = HeaderChanges::default();
    for source in sources {
        for (operations, mode) in [
            (&source.set, AddMode::Overwrite),
            (&source.add, AddMode::Append),
        ] {
            let mut sorted: Vec<_> = operations.iter().collect();
            sorted.sort_by(|(one, _), (other, _)| one.as_str().cmp(other.as_str()));
            edits
                .add
                .extend(sorted.into_iter().map(|(name, value)| HeaderAdd {
                    name: name.clone(),
                    value: value.clone(),
                    mode,
                    keep_empty: false,
                }));
        }
        edits.remove.extend(source.remove.iter().cloned());
    }
    edits.into()
}

/// Puts a destination's own authority in place. A weighted destination has no rewrite of its own
/// in the model, so this is an edit of the host.
pub(super) fn set_host(edits: &mut HeaderEdits, authority: Option<&str>) {
    if let Some(value) = authority.and_then(|text| HeaderValue::from_str(text).ok()) {
        let value = HeaderTemplate::Fixed(value);
        edits.add.push(HeaderAdd {
            name: HOST,
            value,
            mode: AddMode::Overwrite,
            keep_empty: false,
        });
    }
}
