//! What is asked for as a whole, and a question for a server that is not spoken to yet.

use super::record::Kind;
use super::request::WILDCARD;
use super::{Machine, Request, Variant};
use crate::TypeUrl;
use crate::pb::envoy::service::discovery::v3 as discovery;

// === impl Machine ===

impl<R> Machine<R> {
    /// Whether anything is asked for.
    pub fn asks(&self) -> bool {
        self.kinds.values().any(Kind::asks)
    }

    /// Whether resources of a type are asked for, and nothing of them has come on any stream. What
    /// requests ask for does not count.
    pub(in crate::client) fn awaits(&self, kind: TypeUrl) -> bool {
        let wants = |all: &Kind| all.wildcard || all.records.values().any(|one| one.lasting);
        let all = self.kinds.get(&kind);
        all.is_some_and(|all| !all.answered && wants(all))
    }

    /// Keep listeners and clusters that the server removes, from now on:
    /// [`Config::ignore_resource_deletion`](super::Config::ignore_resource_deletion).
    pub fn ignore_resource_deletion(&mut self, ignore: bool) {
        self.config.ignore_resource_deletion = ignore;
    }

    /// What could be asked on a stream of its own to hear whether a server answers: a request for
    /// one type, the one that it can answer most easily. The machine takes no note of it.
    pub fn question(&self) -> Option<Request> {
        let asked = self.kinds.iter().filter(|(_, all)| all.asks());
        // A server that is asked for names that it does not know may say nothing.
        let (kind, all) = asked
            .rev()
            .max_by_key(|(_, all)| (all.wildcard, all.has_something()))?;
        Some(self.first(*kind, all))
    }

    fn first(&self, kind: TypeUrl, all: &Kind) -> Request {
        let node = Some(self.config.node.to_proto());
        let type_url = kind.url().to_owned();
        let names = match all.wildcard {
            true => vec![WILDCARD.to_owned()],
            false => all.names().map(ToString::to_string).collect(),
        };
        match self.config.variant {
            Variant::Delta => Request::Delta(Box::new(discovery::DeltaDiscoveryRequest {
                node,
                type_url,
                resource_names_subscribe: names,
                ..Default::default()
            })),
            Variant::Sotw => Request::Sotw(Box::new(discovery::DiscoveryRequest {
                node,
                type_url,
                resource_names: names,
                ..Default::default()
            })),
        }
    }
}

// === impl Kind ===

impl Kind {
    fn asks(&self) -> bool {
        self.wildcard || self.named > 0
    }

    fn has_something(&self) -> bool {
        let mut records = self.records.values();
        records.any(|record| record.named && record.accepted.is_some())
    }
}
