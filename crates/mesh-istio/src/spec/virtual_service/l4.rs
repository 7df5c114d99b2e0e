//! `TLSRoute` and `TCPRoute`: where connections go that nobody looks into.

use std::collections::BTreeMap;

use mesh_core::model::Cidr;

use super::Destination;
use super::action::check_weights;
use crate::cursor::{Cursor, Fields, read};
use crate::diagnostic::Position;
use crate::names::covers;
use crate::spec::common::{host_name, is_server_name};
use crate::spec::{Spanned, strings};

/// One entry of `tls`: connections by their TLS server name.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsRoute {
    /// Where it starts.
    pub at: Position,
    /// Alternatives; never empty.
    pub matches: Vec<L4Match>,
    /// Where to, by weight.
    pub route: Vec<RouteDestination>,
}

/// One entry of `tcp`.
#[derive(Clone, Debug, PartialEq)]
pub struct TcpRoute {
    /// Where it starts.
    pub at: Position,
    /// Alternatives; empty matches everything.
    pub matches: Vec<L4Match>,
    /// Where to, by weight.
    pub route: Vec<RouteDestination>,
}

/// One entry of `match` of either: everything in it has to hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct L4Match {
    /// Where it starts.
    pub at: Position,
    /// TLS server names, wildcards among them; never empty in `tls`, always in `tcp`.
    pub sni_hosts: Vec<String>,
    /// Blocks that the original destination lies in; empty is any.
    pub destination_subnets: Vec<Cidr>,
    /// Only where the listener or service has this port.
    pub port: Option<u16>,
    /// Only in clients with these labels.
    pub source_labels: BTreeMap<String, String>,
    /// Only in clients of this namespace; empty is any.
    pub source_namespace: String,
    /// Only on these gateways, instead of the whole object's.
    pub gateways: Vec<String>,
}

/// One entry of `route`.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteDestination {
    /// Where it starts.
    pub at: Position,
    /// Where to.
    pub destination: Destination,
    /// Its share of the sum of all weights.
    pub weight: u32,
}

impl TlsRoute {
    /// Reads one; `hosts` are those of the virtual service.
    pub(super) fn read(cursor: &Cursor<'_>, hosts: &[Spanned<String>]) -> Option<Self> {
        let mut fields = cursor.fields()?;
        let matches = fields.list("match", |cursor| {
            let mut fields = cursor.fields()?;
            let sni_hosts = fields.list("sniHosts", |item| sni_host(item, hosts));
            if !fields.has("sniHosts") {
                cursor.error("sniHosts is missing");
            }
            Some(L4Match {
                sni_hosts,
                ..L4Match::read(cursor, fields)
            })
        });
        if !fields.has("match") {
            cursor.error("match is missing: tls rules go by sniHosts");
        }
        let route = fields.need("route", destinations);
        fields.done();
        Some(Self {
            at: cursor.at(),
            matches,
            route: route?,
        })
    }
}

impl TcpRoute {
    pub(super) fn read(cursor: &Cursor<'_>) -> Option<Self> {
        let mut fields = cursor.fields()?;
        let matches = fields.list("match", |cursor| {
            let mut fields = cursor.fields()?;
            fields.refuse("sourceSubnet", "istiod does not act on it either");
            Some(L4Match::read(cursor, fields))
        });
        let route = fields.need("route", destinations);
        fields.done();
        Some(Self {
            at: cursor.at(),
            matches,
            route: route?,
        })
    }

    /// Whether nothing gets past it.
    pub(super) fn takes_all(&self) -> bool {
        let empty = |block: &L4Match| {
            *block
                == L4Match {
                    at: block.at,
                    ..L4Match::default()
                }
        };
        self.matches.is_empty() || self.matches.iter().any(empty)
    }
}

impl L4Match {
    /// Reads what both kinds of rules have.
    fn read(cursor: &Cursor<'_>, mut fields: Fields<'_>) -> Self {
        let block = Self {
            at: cursor.at(),
            sni_hosts: Vec::new(),
            destination_subnets: fields.list("destinationSubnets", subnet),
            port: fields.get("port", read::port),
            source_labels: fields
                .get("sourceLabels", read::string_map)
                .unwrap_or_default(),
            source_namespace: fields
                .get("sourceNamespace", read::string)
                .unwrap_or_default(),
            gateways: fields.get("gateways", strings).unwrap_or_default(),
        };
        fields.done();
        block
    }
}

/// `10.0.0.0/8`, or an address.
pub(in crate::spec) fn subnet(cursor: &Cursor<'_>) -> Option<Cidr> {
    let text = cursor.string()?;
    let parsed = text.parse().ok();
    if parsed.is_none() {
        cursor.error(format!(
            "{text:?} is neither an IP address nor a block such as 10.0.0.0/8"
        ));
    }
    parsed
}

fn sni_host(cursor: &Cursor<'_>, hosts: &[Spanned<String>]) -> Option<String> {
    let name = host_name(cursor)?;
    if !is_server_name(&name) {
        cursor.error(format!(
            "{name:?} is not a TLS server name: \"*\" stands for whole labels"
        ));
        return None;
    }
    if !hosts.iter().any(|host| covers(host, &name)) {
        let hosts: Vec<&str> = hosts.iter().map(|host| host.value.as_str()).collect();
        cursor.error(format!(
            "{name:?} is not among the hosts of the virtual service: {}",
            hosts.join(", ")
        ));
        return None;
    }
    Some(name)
}

/// The list `route`.
fn destinations(cursor: &Cursor<'_>) -> Option<Vec<RouteDestination>> {
    let all = cursor.list(|item| {
        let mut fields = item.fields()?;
        let destination = fields.need("destination", Destination::read);
        let weight = fields.get("weight", read::count).unwrap_or_default();
        fields.done();
        Some(RouteDestination {
            at: item.at(),
            destination: destination?,
            weight,
        })
    })?;
    let weights = all.iter().map(|one| one.weight);
    check_weights(cursor, weights).then_some(all)
}
