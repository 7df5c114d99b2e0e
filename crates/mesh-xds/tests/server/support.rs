//! A machine with a set behind it and a client in front of it, without any input or output.

use mesh_core::{Feed, Publisher};
use mesh_xds::pb::envoy::service::discovery::v3 as discovery;
use mesh_xds::pb::google::rpc;
use mesh_xds::server::{
    Changes, Event, Machine, Options, Refused, ResourceSet, Response, Scope, Variant, View,
};
use mesh_xds::{Encoded, Node, TypeUrl};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) use TypeUrl::{Cluster, Endpoints, Listener, Routes};

pub(crate) struct Desk {
    pub(crate) set: ResourceSet,
    pub(crate) machine: Machine,
    pub(crate) now: Instant,
    pub(crate) views: Publisher<View>,
    variant: Variant,
    /// The names that a state-of-the-world client lists in each request.
    names: BTreeMap<TypeUrl, BTreeSet<String>>,
    /// The version that such a client has accepted.
    versions: BTreeMap<TypeUrl, String>,
}

impl Desk {
    pub(crate) fn delta() -> Self {
        Self::with(
            Options::new(Variant::Delta, Scope::Aggregated),
            &Node::new("n"),
        )
    }

    pub(crate) fn sotw() -> Self {
        Self::with(
            Options::new(Variant::StateOfTheWorld, Scope::Aggregated),
            &Node::new("n"),
        )
    }

    pub(crate) fn with(options: Options, node: &Node) -> Self {
        Self::over(ResourceSet::new(), options, node)
    }

    pub(crate) fn over(set: ResourceSet, options: Options, node: &Node) -> Self {
        let views = Publisher::new(View::of([set.clone()]));
        let now = Instant::now();
        Self {
            set,
            variant: options.variant,
            machine: Machine::new(options, node, views.feed(), now),
            now,
            views,
            names: BTreeMap::new(),
            versions: BTreeMap::new(),
        }
    }

    // --- the set ---

    pub(crate) fn set(&mut self, entries: &[(TypeUrl, &str, &str)]) {
        let changes = entries
            .iter()
            .fold(Changes::new(), |changes, (kind, name, text)| {
                changes.set(*kind, Encoded::new(*name, text.as_bytes().to_vec()))
            });
        self.apply(changes);
    }

    pub(crate) fn remove(&mut self, entries: &[(TypeUrl, &str)]) {
        let each = entries.iter();
        self.apply(each.fold(Changes::new(), |all, (kind, name)| all.remove(*kind, *name)));
    }

    pub(crate) fn apply(&mut self, changes: Changes) {
        self.set.apply(changes);
        self.machine.refresh(self.now);
    }

    pub(crate) fn wait(&mut self, time: Duration) {
        self.now += time;
        self.machine.refresh(self.now);
    }

    // --- what the client says ---

    /// Subscribes; a state-of-the-world client lists exactly these from now on.
    pub(crate) fn ask(&mut self, kind: TypeUrl, names: &[&str]) {
        self.try_ask(kind, names).unwrap();
    }

    pub(crate) fn try_ask(&mut self, kind: TypeUrl, names: &[&str]) -> Result<(), Refused> {
        match self.variant {
            Variant::StateOfTheWorld => {
                self.names
                    .insert(kind, names.iter().map(|name| name.to_string()).collect());
                self.say(kind, self.nonce(kind), None)
            }
            Variant::Delta => self.change(kind, names, &[]),
        }
    }

    /// Delta: changes the subscriptions, with no nonce.
    pub(crate) fn change(
        &mut self,
        kind: TypeUrl,
        add: &[&str],
        drop: &[&str],
    ) -> Result<(), Refused> {
        self.machine.delta_request(
            discovery::DeltaDiscoveryRequest {
                type_url: kind.url().into(),
                resource_names_subscribe: add.iter().map(|name| name.to_string()).collect(),
                resource_names_unsubscribe: drop.iter().map(|name| name.to_string()).collect(),
                ..discovery::DeltaDiscoveryRequest::default()
            },
            self.now,
        )
    }

    /// Delta: the first request of a client that comes back.
    pub(crate) fn resume(&mut self, kind: TypeUrl, names: &[&str], has: &[(&str, &str)]) {
        let versions = has.iter();
        let versions = versions.map(|(name, version)| (name.to_string(), version.to_string()));
        let request = discovery::DeltaDiscoveryRequest {
            type_url: kind.url().into(),
            resource_names_subscribe: names.iter().map(|name| name.to_string()).collect(),
            initial_resource_versions: versions.collect(),
            ..discovery::DeltaDiscoveryRequest::default()
        };
        self.machine.delta_request(request, self.now).unwrap();
    }

    pub(crate) fn ack(&mut self, response: &Response) {
        let kind = response.kind().unwrap();
        self.versions.insert(kind, response.version.to_string());
        self.say(kind, response.nonce.to_string(), None).unwrap();
    }

    pub(crate) fn nack(&mut self, response: &Response, message: &str) {
        let error = rpc::Status {
            code: 3,
            message: message.into(),
            ..rpc::Status::default()
        };
        let kind = response.kind().unwrap();
        self.say(kind, response.nonce.to_string(), Some(error))
            .unwrap();
    }

    pub(crate) fn say(
        &mut self,
        kind: TypeUrl,
        nonce: String,
        error: Option<rpc::Status>,
    ) -> Result<(), Refused> {
        match self.variant {
            Variant::StateOfTheWorld => {
                let names = self.names.get(&kind).into_iter().flatten();
                let request = discovery::DiscoveryRequest {
                    type_url: kind.url().into(),
                    version_info: self.versions.get(&kind).cloned().unwrap_or_default(),
                    resource_names: names.cloned().collect(),
                    response_nonce: nonce,
                    error_detail: error,
                    ..discovery::DiscoveryRequest::default()
                };
                self.machine.request(request, self.now)
            }
            Variant::Delta => {
                let request = discovery::DeltaDiscoveryRequest {
                    type_url: kind.url().into(),
                    response_nonce: nonce,
                    error_detail: error,
                    ..discovery::DeltaDiscoveryRequest::default()
                };
                self.machine.delta_request(request, self.now)
            }
        }
    }

    /// The version that a state-of-the-world client brings from an earlier stream.
    pub(crate) fn bring(&mut self, kind: TypeUrl, version: &str) {
        self.versions.insert(kind, version.into());
    }

    fn nonce(&self, kind: TypeUrl) -> String {
        let status = self.machine.status(self.now);
        let of_kind = status.iter().find(|status| status.kind == kind);
        let sent = of_kind.and_then(|status| status.sent.as_ref());
        sent.map(|sent| sent.nonce.to_string()).unwrap_or_default()
    }

    // --- what the server says ---

    pub(crate) fn next(&mut self) -> Option<Response> {
        self.machine.poll_response(self.now)
    }

    /// The next response, which has to be of this type and hold exactly these.
    #[track_caller]
    pub(crate) fn expect(&mut self, kind: TypeUrl, names: &[&str]) -> Response {
        let response = self
            .next()
            .unwrap_or_else(|| panic!("no response of type {kind}"));
        assert_eq!(
            (response.kind(), sorted(&response)),
            (Some(kind), names.to_vec())
        );
        response
    }

    /// As `expect`, and these are removed.
    #[track_caller]
    pub(crate) fn expect_removed(&mut self, kind: TypeUrl, removed: &[&str]) -> Response {
        let response = self
            .next()
            .unwrap_or_else(|| panic!("no response of type {kind}"));
        let mut gone: Vec<&str> = response.removed.iter().map(|name| name.as_str()).collect();
        gone.sort_unstable();
        assert_eq!((response.kind(), gone), (Some(kind), removed.to_vec()));
        response
    }

    #[track_caller]
    pub(crate) fn expect_silence(&mut self) {
        let response = self.next();
        assert_eq!(response, None);
    }

    /// Subscribes, and acknowledges what comes.
    #[track_caller]
    pub(crate) fn sync(&mut self, kind: TypeUrl, names: &[&str]) {
        self.ask(kind, names);
        self.ack_all();
    }

    /// Acknowledges until there is silence; what was sent.
    pub(crate) fn ack_all(&mut self) -> Vec<Response> {
        let mut all = Vec::new();
        while let Some(response) = self.next() {
            self.ack(&response);
            all.push(response);
        }
        all
    }

    pub(crate) fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.machine.poll_event()).collect()
    }
}

pub(crate) fn sorted(response: &Response) -> Vec<&str> {
    let mut names: Vec<&str> = response
        .resources
        .iter()
        .map(|item| item.resource.name.as_str())
        .collect();
    names.sort_unstable();
    names
}

pub(crate) fn version(text: &str) -> String {
    Encoded::new("", text.as_bytes().to_vec())
        .version
        .to_string()
}

pub(crate) fn limited(
    variant: Variant,
    set: impl FnOnce(&mut mesh_xds::server::Limits),
) -> Options {
    let mut options = Options::new(variant, Scope::Aggregated);
    set(Arc::make_mut(&mut options.limits));
    options
}

pub(crate) fn fixed(sets: impl IntoIterator<Item = ResourceSet>) -> Feed<View> {
    Feed::fixed(View::of(sets))
}

pub(crate) fn removed(response: &Response) -> Vec<&str> {
    let mut names: Vec<&str> = response.removed.iter().map(|name| name.as_str()).collect();
    names.sort_unstable();
    names
}
