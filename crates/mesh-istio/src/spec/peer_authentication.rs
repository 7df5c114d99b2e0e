//! `PeerAuthentication`: whether callers of a workload have to show a certificate of the mesh.

use std::collections::BTreeMap;

use super::common::{Selector, selector};
use crate::cursor::Cursor;

/// The spec of a `PeerAuthentication`.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerAuthentication {
    /// The workloads it is for; `None` is all of its namespace, and of the mesh in the root
    /// namespace.
    pub selector: Option<Selector>,
    /// What they accept; `None` leaves it to what holds for their namespace, then for the mesh.
    pub mode: Option<MutualTls>,
    /// What they accept on some of their own ports (not of their services); `None` is as on all
    /// others.
    pub ports: BTreeMap<u16, Option<MutualTls>>,
}

/// Which connections a workload accepts (`MutualTLS.Mode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MutualTls {
    /// Those without mutual TLS.
    Disable,
    /// Both: Istio's default for the mesh.
    #[default]
    Permissive,
    /// Only those with a certificate of the mesh.
    Strict,
}

impl PeerAuthentication {
    pub(super) fn read(cursor: &Cursor<'_>) -> Option<Self> {
        let mut fields = cursor.fields()?;
        let selected = fields.get("selector", selector("matchLabels"));
        let selected = selected.filter(|labels| !labels.is_empty());
        let mode = fields.get("mtls", mutual_tls).flatten();
        let ports = fields.get("portLevelMtls", ports);
        if let Some(ports) = &ports {
            if ports.is_empty() {
                cursor.error("portLevelMtls is empty: leave it out, or name a port");
            }
            if selected.is_none() {
                cursor.error("portLevelMtls needs a selector: ports are those of workloads");
            }
        }
        fields.done();
        Some(Self {
            selector: selected,
            mode,
            ports: ports.unwrap_or_default(),
        })
    }
}

fn ports(cursor: &Cursor<'_>) -> Option<BTreeMap<u16, Option<MutualTls>>> {
    let entries = cursor.entries(|key, value| {
        let port = key.parse::<u16>().ok().filter(|port| *port > 0);
        if port.is_none() {
            value.error(format!("{key:?} is not a port between 1 and 65535"));
        }
        Some((port?, mutual_tls(value)?))
    })?;
    Some(entries.into_iter().collect())
}

/// `{mode: STRICT}`; UNSET, and nothing, is `None` inside.
fn mutual_tls(cursor: &Cursor<'_>) -> Option<Option<MutualTls>> {
    let mut fields = cursor.fields()?;
    let mode = fields.get("mode", |cursor| {
        cursor.choice(&[
            ("UNSET", None),
            ("DISABLE", Some(MutualTls::Disable)),
            ("PERMISSIVE", Some(MutualTls::Permissive)),
            ("STRICT", Some(MutualTls::Strict)),
        ])
    });
    fields.done();
    Some(mode.flatten())
}
