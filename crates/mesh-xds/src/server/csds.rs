//! Client status discovery: what every connected client was sent and what it said to that.

use super::ResourceState;
use super::handle::Shared;
use super::registry::Open;
use crate::TypeUrl;
use crate::pb::envoy::admin::v3::{ClientResourceStatus, UpdateFailureState};
use crate::pb::envoy::service::status::v3 as pb;
use crate::pb::envoy::service::status::v3::client_config::GenericXdsConfig;
use crate::pb::envoy::r#type::matcher::v3 as matcher;
use crate::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use crate::pb::google::protobuf::Any;
use crate::write::redacted_bytes;
use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt};
use std::sync::Arc;
use tonic::{Request, Response, Status, Streaming};

pub(super) struct StatusService(pub(super) Arc<Shared>);

// === impl StatusService ===

#[tonic::async_trait]
impl pb::client_status_discovery_service_server::ClientStatusDiscoveryService for StatusService {
    type StreamClientStatusStream = BoxStream<'static, Result<pb::ClientStatusResponse, Status>>;

    async fn stream_client_status(
        &self,
        request: Request<Streaming<pb::ClientStatusRequest>>,
    ) -> Result<Response<Self::StreamClientStatusStream>, Status> {
        let shared = self.0.clone();
        let requests = request.into_inner();
        let replies = requests.map(move |request| reply(&shared, &request?));
        Ok(Response::new(replies.boxed()))
    }

    async fn fetch_client_status(
        &self,
        request: Request<pb::ClientStatusRequest>,
    ) -> Result<Response<pb::ClientStatusResponse>, Status> {
        reply(&self.0, &request.into_inner()).map(Response::new)
    }
}

fn reply(
    shared: &Shared,
    request: &pb::ClientStatusRequest,
) -> Result<pb::ClientStatusResponse, Status> {
    let matchers = &request.node_matchers;
    for (index, matcher) in matchers.iter().enumerate() {
        check(matcher, index)?;
    }
    let wanted = |open: &&Arc<Open>| {
        let id = open.client.node.id();
        matchers.is_empty() || matchers.iter().any(|matcher| matches(matcher, id))
    };
    let with_contents = !request.exclude_resource_contents;
    let streams = shared.registry.streams();
    let config = streams
        .iter()
        .filter(wanted)
        .map(|open| client(open, with_contents));
    Ok(pb::ClientStatusResponse {
        config: config.collect(),
    })
}

/// One entry per stream: a node without ADS has several.
fn client(open: &Open, with_contents: bool) -> pb::ClientConfig {
    let machine = open.machine();
    let mut configs = Vec::new();
    for status in machine.status(open.since) {
        for resource in machine.resources(status.kind) {
            let contents = match &resource.version {
                Some(version) if with_contents => {
                    let there = machine.present(status.kind, &resource.name);
                    there.filter(|there| there.version == *version)
                }
                _ => None,
            };
            configs.push(GenericXdsConfig {
                type_url: status.kind.url().into(),
                name: resource.name.to_string(),
                xds_config: contents.map(|it| any(status.kind, &it.bytes)),
                ..state(resource.version.as_deref(), &resource.state)
            });
        }
    }
    pb::ClientConfig {
        node: Some(open.client.node.to_proto()),
        generic_xds_configs: configs,
        ..pb::ClientConfig::default()
    }
}

fn any(kind: TypeUrl, bytes: &Bytes) -> Any {
    Any {
        type_url: kind.url().into(),
        // Anybody may look at this.
        value: redacted_bytes(kind, bytes).to_vec(),
    }
}

fn state(version: Option<&str>, state: &ResourceState) -> GenericXdsConfig {
    let version = version.unwrap_or_default().to_owned();
    let (config, client, version_info, error_state) = match state {
        ResourceState::Requested if version.is_empty() => (
            pb::ConfigStatus::NotSent,
            ClientResourceStatus::Requested,
            version,
            None,
        ),
        ResourceState::Requested => (
            pb::ConfigStatus::Stale,
            ClientResourceStatus::Requested,
            version,
            None,
        ),
        ResourceState::DoesNotExist => (
            pb::ConfigStatus::NotSent,
            ClientResourceStatus::DoesNotExist,
            version,
            None,
        ),
        ResourceState::Acked => (
            pb::ConfigStatus::Synced,
            ClientResourceStatus::Acked,
            version,
            None,
        ),
        ResourceState::Stale => (
            pb::ConfigStatus::Stale,
            ClientResourceStatus::Acked,
            version,
            None,
        ),
        ResourceState::Nacked { message, before } => {
            let error = UpdateFailureState {
                details: message.to_string(),
                version_info: version,
                ..UpdateFailureState::default()
            };
            let before = before.as_deref().unwrap_or_default().to_owned();
            (
                pb::ConfigStatus::Error,
                ClientResourceStatus::Nacked,
                before,
                Some(error),
            )
        }
    };
    GenericXdsConfig {
        version_info,
        config_status: config.into(),
        client_status: client.into(),
        error_state,
        ..GenericXdsConfig::default()
    }
}

/// Refuses what is not supported, by name.
fn check(matcher: &matcher::NodeMatcher, index: usize) -> Result<(), Status> {
    let refuse = |field: &str, why: &str| {
        Err(Status::unimplemented(format!(
            "node_matchers[{index}].{field}: {why}"
        )))
    };
    if !matcher.node_metadatas.is_empty() {
        return refuse("node_metadatas", "not supported; match by node_id");
    }
    match matcher.node_id.as_ref().map(|id| &id.match_pattern) {
        Some(Some(MatchPattern::SafeRegex(_) | MatchPattern::Custom(_))) => refuse(
            "node_id",
            "only exact, prefix, suffix and contains are supported",
        ),
        Some(None) => refuse("node_id", "has no pattern"),
        _ => Ok(()),
    }
}

fn matches(matcher: &matcher::NodeMatcher, id: &str) -> bool {
    let Some(wanted) = &matcher.node_id else {
        return true;
    };
    let fold = |text: &str| match wanted.ignore_case {
        true => text.to_ascii_lowercase(),
        false => text.to_owned(),
    };
    let id = fold(id);
    match &wanted.match_pattern {
        Some(MatchPattern::Exact(text)) => id == fold(text),
        Some(MatchPattern::Prefix(text)) => id.starts_with(&fold(text)),
        Some(MatchPattern::Suffix(text)) => id.ends_with(&fold(text)),
        Some(MatchPattern::Contains(text)) => id.contains(&fold(text)),
        // Refused before.
        _ => false,
    }
}
