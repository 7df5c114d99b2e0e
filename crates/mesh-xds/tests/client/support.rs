//! A machine whose resources are short texts, and messages for it.

use mesh_core::{Invalid, Name};
use mesh_xds::client::{Config, Event, Machine, Request, Response, Update, Variant};
use mesh_xds::pb::envoy::config::cluster::v3::Cluster;
use mesh_xds::pb::envoy::service::discovery::v3 as discovery;
use mesh_xds::pb::google::protobuf::{Any, Duration as ProtoDuration};
use mesh_xds::{Node, TypeUrl};
use prost::Message;
use std::time::{Duration, Instant};

pub(crate) const CDS: TypeUrl = TypeUrl::Cluster;
pub(crate) const EDS: TypeUrl = TypeUrl::Endpoints;
pub(crate) const LDS: TypeUrl = TypeUrl::Listener;
pub(crate) const RDS: TypeUrl = TypeUrl::Routes;

/// Any resource is a name and a text; `bad` cannot be read.
pub(crate) fn any(kind: TypeUrl, name: &str, text: &str) -> Any {
    let message = Cluster {
        name: name.to_owned(),
        alt_stat_name: text.to_owned(),
        ..Cluster::default()
    };
    Any {
        type_url: kind.url().to_owned(),
        value: message.encode_to_vec(),
    }
}

fn decode(_: TypeUrl, bytes: &[u8]) -> Result<String, Invalid> {
    let message = Cluster::decode(bytes).map_err(|_| Invalid::new("", "is garbage"))?;
    if message.alt_stat_name == "bad" {
        return Err(Invalid::new("lb_policy", "is bad"));
    }
    Ok(message.alt_stat_name)
}

pub(crate) struct Client {
    pub(crate) machine: Machine<String>,
    pub(crate) now: Instant,
    nonce: u64,
    variant: Variant,
}

impl Client {
    pub(crate) fn delta() -> Self {
        Self::with(Variant::Delta, |_| {})
    }

    pub(crate) fn sotw() -> Self {
        Self::with(Variant::Sotw, |_| {})
    }

    pub(crate) fn with(variant: Variant, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::new(Node::new("me"));
        config.variant = variant;
        change(&mut config);
        Self {
            machine: Machine::new(config, decode),
            now: Instant::now(),
            nonce: 0,
            variant,
        }
    }

    pub(crate) fn open(&mut self) -> Vec<Request> {
        self.machine.opened("http://a:1");
        self.requests()
    }

    pub(crate) fn requests(&mut self) -> Vec<Request> {
        std::iter::from_fn(|| self.machine.poll_request(self.now)).collect()
    }

    /// The only request, in the delta variant.
    pub(crate) fn request(&mut self) -> discovery::DeltaDiscoveryRequest {
        one_delta(self.requests())
    }

    /// The only request, in state of the world.
    pub(crate) fn sotw_request(&mut self) -> discovery::DiscoveryRequest {
        one_sotw(self.requests())
    }

    pub(crate) fn sleep(&mut self, time: Duration) {
        self.now += time;
        self.machine.tick(self.now);
    }

    pub(crate) fn receive(&mut self, kind: TypeUrl, version: &str, items: Vec<Any>) {
        self.receive_with(kind, version, items, &[]);
    }

    /// A response; the version is that of each resource and of the whole. Its nonce is a number
    /// that counts up.
    pub(crate) fn receive_with(
        &mut self,
        kind: TypeUrl,
        version: &str,
        items: Vec<Any>,
        removed: &[&str],
    ) {
        self.nonce += 1;
        let response = match self.variant {
            Variant::Delta => Response::Delta(Box::new(discovery::DeltaDiscoveryResponse {
                system_version_info: version.to_owned(),
                type_url: kind.url().to_owned(),
                nonce: self.nonce.to_string(),
                resources: items.into_iter().map(|any| wrapped(any, version)).collect(),
                removed_resources: removed.iter().map(ToString::to_string).collect(),
                ..Default::default()
            })),
            Variant::Sotw => Response::Sotw(Box::new(discovery::DiscoveryResponse {
                version_info: version.to_owned(),
                type_url: kind.url().to_owned(),
                nonce: self.nonce.to_string(),
                resources: items,
                ..Default::default()
            })),
        };
        self.machine.receive(response, self.now);
    }

    /// The only update.
    pub(crate) fn update(&mut self) -> Update<String> {
        match self.machine.poll_event() {
            Some(Event::Update(update)) => update,
            other => panic!("no update but {other:?}"),
        }
    }

    /// Accepts everything that there is.
    pub(crate) fn accept(&mut self) {
        while let Some(event) = self.machine.poll_event() {
            let Event::Update(update) = event else {
                panic!("{event:?}")
            };
            for (name, _) in &update.resources {
                self.machine.settle(update.ticket, name, Ok(()));
            }
            self.machine.handed_over(update.ticket);
        }
    }

    /// Receives and accepts; the answer is taken off.
    pub(crate) fn have(&mut self, kind: TypeUrl, version: &str, names: &[&str]) {
        let items = names.iter().map(|name| any(kind, name, version)).collect();
        self.receive(kind, version, items);
        self.accept();
        self.requests();
    }

    pub(crate) fn reconnect(&mut self, server: &str) -> Vec<Request> {
        let at = self.machine.closed(self.now, 0);
        self.now = self.now.max(at);
        self.machine.opened(server);
        self.requests()
    }
}

fn wrapped(any: Any, version: &str) -> discovery::Resource {
    discovery::Resource {
        name: Cluster::decode(any.value.as_slice()).map_or_else(|_| "?".to_owned(), |c| c.name),
        version: version.to_owned(),
        resource: Some(any),
        ..Default::default()
    }
}

pub(crate) fn seconds(seconds: i64) -> ProtoDuration {
    ProtoDuration { seconds, nanos: 0 }
}

pub(crate) fn deltas(requests: Vec<Request>) -> Vec<discovery::DeltaDiscoveryRequest> {
    let delta = |request| match request {
        Request::Delta(request) => *request,
        Request::Sotw(other) => panic!("{other:?}"),
    };
    requests.into_iter().map(delta).collect()
}

pub(crate) fn sotws(requests: Vec<Request>) -> Vec<discovery::DiscoveryRequest> {
    let sotw = |request| match request {
        Request::Sotw(request) => *request,
        Request::Delta(other) => panic!("{other:?}"),
    };
    requests.into_iter().map(sotw).collect()
}

pub(crate) fn one_delta(requests: Vec<Request>) -> discovery::DeltaDiscoveryRequest {
    let mut all = deltas(requests);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

pub(crate) fn one_sotw(requests: Vec<Request>) -> discovery::DiscoveryRequest {
    let mut all = sotws(requests);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

pub(crate) fn names(update: &Update<String>) -> Vec<&str> {
    update
        .resources
        .iter()
        .map(|(name, _)| name.as_str())
        .collect()
}

pub(crate) fn name(text: &str) -> Name {
    text.into()
}
