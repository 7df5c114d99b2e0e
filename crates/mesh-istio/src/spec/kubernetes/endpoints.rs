//! `EndpointSlice`, and the older `Endpoints`, which says the same in other words.

use std::net::IpAddr;

use crate::cursor::{Cursor, read};

/// Endpoints of a service that share their ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// Each group of addresses with its ports.
    pub groups: Vec<(Vec<SliceEndpoint>, Vec<SlicePort>)>,
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// Its address.
    pub address: IpAddr,
    /// Whether it may get requests.
    pub ready: bool,
    /// Whether it is going away.
    pub terminating: bool,
    /// The pod behind it, or empty.
    pub pod: String,
    /// Its zone, or empty.
    pub zone: String,
    /// The machine that it runs on, or empty.
    pub node: String,
}

/// A port of endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    /// The name of the service port, or empty.
    pub name: String,
    /// The endpoints' port.
    pub number: u16,
}

impl Endpoints {
    /// Reads an `EndpointSlice`, which has no `spec`.
    pub(in crate::spec) fn read_slice(cursor: &Cursor<'_>) -> Option<Self> {
        let mut fields = cursor.fields()?;
        let kind = fields.get("addressType", read::string).unwrap_or_default();
        if kind == "FQDN" {
            cursor.error("not supported: endpoints by host name");
            return None;
        }
        let ports = fields.list("ports", port);
        let endpoints = fields.list("endpoints", |cursor| {
            let mut fields = cursor.fields()?;
            let addresses = fields.list("addresses", read::ip);
            let (ready, terminating) = fields
                .get("conditions", |cursor| {
                    let mut fields = cursor.fields()?;
                    let ready = fields.get("ready", read::bool).unwrap_or(true);
                    Some((
                        ready,
                        fields.get("terminating", read::bool).unwrap_or_default(),
                    ))
                })
                .unwrap_or((true, false));
            let pod = fields.get("targetRef", pod).unwrap_or_default();
            let zone = fields.get("zone", read::string).unwrap_or_default();
            let node = fields.get("nodeName", read::string).unwrap_or_default();
            Some(
                addresses
                    .into_iter()
                    .map(|address| SliceEndpoint {
                        address,
                        ready,
                        terminating,
                        pod: pod.clone(),
                        zone: zone.clone(),
                        node: node.clone(),
                    })
                    .collect::<Vec<_>>(),
            )
        });
        Some(Self {
            groups: vec![(endpoints.into_iter().flatten().collect(), ports)],
        })
    }

    /// Reads an `Endpoints`, which has no `spec` either.
    pub(in crate::spec) fn read(cursor: &Cursor<'_>) -> Option<Self> {
        let mut fields = cursor.fields()?;
        let groups = fields.list("subsets", |cursor| {
            let mut fields = cursor.fields()?;
            let mut endpoints = fields.list("addresses", |cursor| address(cursor, true));
            endpoints.extend(fields.list("notReadyAddresses", |cursor| address(cursor, false)));
            Some((endpoints, fields.list("ports", port)))
        });
        Some(Self { groups })
    }
}

fn address(cursor: &Cursor<'_>, ready: bool) -> Option<SliceEndpoint> {
    let mut fields = cursor.fields()?;
    Some(SliceEndpoint {
        address: fields.need("ip", read::ip)?,
        ready,
        terminating: false,
        pod: fields.get("targetRef", pod).unwrap_or_default(),
        zone: String::new(),
        node: fields.get("nodeName", read::string).unwrap_or_default(),
    })
}

fn pod(cursor: &Cursor<'_>) -> Option<String> {
    let mut fields = cursor.fields()?;
    let kind = fields.get("kind", read::string)?;
    if kind != "Pod" {
        return None;
    }
    fields.get("name", read::string)
}

fn port(cursor: &Cursor<'_>) -> Option<SlicePort> {
    let mut fields = cursor.fields()?;
    let number = fields.need("port", read::port)?;
    Some(SlicePort {
        name: fields.get("name", read::string).unwrap_or_default(),
        number,
    })
}
