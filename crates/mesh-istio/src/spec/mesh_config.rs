//! `MeshConfig`: what holds for the whole mesh.

use std::time::Duration;

use super::common::{Visibility, export_to};
use super::extension_provider::{ExtensionProvider, providers};
use super::sidecar::{OutboundPolicy, outbound_policy};
use super::traffic_policy::{LocalitySetting, TrafficPolicy, ZoneAwareSetting};
use super::virtual_service::{Retries, retries};
use crate::cursor::{Cursor, read};

/// The configuration of the mesh, with Istio's defaults where nothing is said.
#[derive(Clone, Debug, PartialEq)]
pub struct MeshConfig {
    /// What happens to requests for unknown hosts.
    pub outbound: OutboundPolicy,
    /// Retries of routes that say nothing about them; `None` is the built-in default.
    pub retries: Option<Retries>,
    /// Limit for connecting.
    pub connect_timeout: Duration,
    /// Time between two looks for the addresses of a name.
    pub dns_refresh: Duration,
    /// How long to wait for the first bytes of a connection that tell what is spoken; zero is
    /// without end.
    pub detection_timeout: Duration,
    /// The namespace whose objects hold for all.
    pub root_namespace: String,
    /// The trust domain of identities.
    pub trust_domain: String,
    /// Other names of the trust domain (`trustDomainAliases`).
    pub trust_domain_aliases: Vec<String>,
    /// Mutual TLS is spoken to whoever takes it, where no rule says anything.
    pub auto_mtls: bool,
    /// Base for the connection pools and outlier detection of all hosts.
    pub policy: Option<TrafficPolicy>,
    /// Which localities come first, where destination rules do not say.
    pub locality: LocalitySetting,
    /// The own zone first, instead, where destination rules and services do not say.
    pub zone_aware: Option<ZoneAwareSetting>,
    /// Where to log requests; empty is nowhere.
    pub access_log_file: String,
    /// How to log them; empty is Istio's format.
    pub access_log_format: String,
    /// The port sidecars listen on for their application, where a node does not say.
    pub proxy_listen_port: u16,
    /// What is done to paths before they are matched.
    pub normalization: Normalization,
    /// Services that policies ask, and providers of other things.
    pub extension_providers: Vec<ExtensionProvider>,
    /// Who sees services that do not say.
    pub service_export: Visibility,
    /// Who sees virtual services that do not say.
    pub virtual_service_export: Visibility,
    /// Who sees destination rules that do not say.
    pub destination_rule_export: Visibility,
}

/// What is done to paths before they are matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Normalization {
    /// Nothing.
    None,
    /// RFC 3986.
    Base,
    /// And `//` becomes `/`.
    MergeSlashes,
    /// And `%2F` and `%5C` are decoded before.
    DecodeAndMergeSlashes,
}

impl Default for MeshConfig {
    fn default() -> Self {
        Self {
            outbound: OutboundPolicy::AllowAny,
            retries: None,
            connect_timeout: Duration::from_secs(10),
            dns_refresh: Duration::from_secs(60),
            detection_timeout: Duration::ZERO,
            root_namespace: "istio-system".to_owned(),
            trust_domain: "cluster.local".to_owned(),
            trust_domain_aliases: Vec::new(),
            auto_mtls: true,
            policy: None,
            locality: LocalitySetting::default(),
            zone_aware: None,
            access_log_file: String::new(),
            access_log_format: String::new(),
            proxy_listen_port: 15001,
            extension_providers: Vec::new(),
            normalization: Normalization::Base,
            service_export: Visibility::All,
            virtual_service_export: Visibility::All,
            destination_rule_export: Visibility::All,
        }
    }
}

impl MeshConfig {
    pub(super) fn read(cursor: &Cursor<'_>) -> Option<Self> {
        let mut fields = cursor.fields()?;
        let usual = Self::default();
        let config = Self {
            outbound: fields
                .get("outboundTrafficPolicy", outbound_policy)
                .unwrap_or(usual.outbound),
            retries: fields.get("defaultHttpRetryPolicy", |cursor| {
                let policy = retries(cursor)?;
                if policy.per_try_timeout.is_some() {
                    cursor.error("perTryTimeout is not allowed for the whole mesh");
                }
                Some(policy)
            }),
            connect_timeout: fields
                .get("connectTimeout", read::positive_duration)
                .unwrap_or(usual.connect_timeout),
            dns_refresh: fields
                .get("dnsRefreshRate", read::positive_duration)
                .unwrap_or(usual.dns_refresh),
            detection_timeout: fields
                .get("protocolDetectionTimeout", read::duration)
                .unwrap_or(usual.detection_timeout),
            root_namespace: fields
                .get("rootNamespace", read::filled)
                .unwrap_or(usual.root_namespace),
            trust_domain: fields
                .get("trustDomain", read::filled)
                .unwrap_or(usual.trust_domain),
            trust_domain_aliases: fields.list("trustDomainAliases", read::filled),
            auto_mtls: fields
                .get("enableAutoMtls", read::bool)
                .unwrap_or(usual.auto_mtls),
            policy: fields.get("defaultTrafficPolicy", default_policy),
            locality: fields
                .get("localityLbSetting", LocalitySetting::read)
                .unwrap_or_default(),
            zone_aware: fields.get("zoneAwareLbSetting", ZoneAwareSetting::read),
            access_log_file: fields
                .get("accessLogFile", read::string)
                .unwrap_or_default(),
            access_log_format: fields
                .get("accessLogFormat", read::string)
                .unwrap_or_default(),
            proxy_listen_port: fields
                .get("proxyListenPort", read::port)
                .unwrap_or(usual.proxy_listen_port),
            normalization: fields
                .get("pathNormalization", normalization)
                .unwrap_or(usual.normalization),
            extension_providers: fields
                .get("extensionProviders", providers)
                .unwrap_or_default(),
            service_export: fields
                .get("defaultServiceExportTo", export_to)
                .unwrap_or(usual.service_export),
            virtual_service_export: fields
                .get("defaultVirtualServiceExportTo", export_to)
                .unwrap_or(usual.virtual_service_export),
            destination_rule_export: fields
                .get("defaultDestinationRuleExportTo", export_to)
                .unwrap_or(usual.destination_rule_export),
        };
        fields.get("inboundTrafficPolicy", |cursor| {
            let mut fields = cursor.fields()?;
            fields.get("mode", |cursor| {
                if cursor.node().text() == Some("LOCALHOST") {
                    cursor.error("not supported: LOCALHOST; PASSTHROUGH is");
                    return None;
                }
                cursor.choice(&[("PASSTHROUGH", ())])
            });
            fields.done();
            Some(())
        });
        fields.get("accessLogEncoding", |cursor| {
            if cursor.node().text() == Some("JSON") {
                cursor.error("not supported yet: accessLogEncoding JSON; TEXT is");
                return None;
            }
            cursor.choice(&[("TEXT", ())])
        });
        fields.done();
        Some(config)
    }
}

/// Only the blocks that make sense for every host at once.
fn default_policy(cursor: &Cursor<'_>) -> Option<TrafficPolicy> {
    let policy = TrafficPolicy::read(cursor)?;
    let blocks = &policy.blocks;
    if blocks.balancer.is_some() || blocks.tls.is_some() || !policy.ports.is_empty() {
        cursor.error("only connectionPool and outlierDetection are allowed for the whole mesh");
    }
    for (said, name) in [
        (policy.retry_budget.is_some(), "retryBudget"),
        (policy.tunnel.is_some(), "tunnel"),
        (policy.proxy_protocol.is_some(), "proxyProtocol"),
    ] {
        if said {
            cursor.error(format!("{name} is not allowed for the whole mesh"));
        }
    }
    Some(policy)
}

fn normalization(cursor: &Cursor<'_>) -> Option<Normalization> {
    let mut fields = cursor.fields()?;
    let found = fields.get("normalization", |cursor| {
        cursor.choice(&[
            ("DEFAULT", Normalization::Base),
            ("NONE", Normalization::None),
            ("BASE", Normalization::Base),
            ("MERGE_SLASHES", Normalization::MergeSlashes),
            (
                "DECODE_AND_MERGE_SLASHES",
                Normalization::DecodeAndMergeSlashes,
            ),
        ])
    });
    fields.done();
    found
}
