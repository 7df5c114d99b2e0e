//! `AuthorizationPolicy`: who may do what to a workload.
//!
//! What is read is istiod's own intermediate form: for each rule a list of alternatives of what is
//! done and one of who does it, each a list of attributes in the order in which istiod asks them.

use mesh_core::model::{Cidr, Fact};

use super::common::selector;
use super::{Selector, Spanned};
use crate::cursor::{Cursor, read};
use crate::diagnostic::Position;

mod attribute;

pub use attribute::Attribute;
pub(crate) use attribute::issuer_and_subject;

/// An `AuthorizationPolicy`.
#[derive(Clone, Debug, PartialEq)]
pub struct AuthorizationPolicy {
    /// The workloads that it is for, by labels; none is all of its namespace.
    pub selector: Option<Selector>,
    /// The Gateways that it is for, by name; workloads otherwise.
    pub gateways: Vec<String>,
    /// What a match means.
    pub action: PolicyAction,
    /// Whom a match asks, where the action is to ask (`provider.name`).
    pub provider: Option<Spanned<String>>,
    /// Any of these may match; without any none does.
    pub rules: Vec<PolicyRule>,
}

/// What a match means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum PolicyAction {
    /// It is allowed, and what no policy with this action matches is not.
    #[default]
    Allow,
    /// It is denied.
    Deny,
    /// It is noted.
    Audit,
    /// A service is asked (CUSTOM).
    Custom,
}

/// A rule of a policy.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyRule {
    /// Where it is.
    pub at: Position,
    /// What is done (`to`, and of `when` what is about that): all of one of these.
    pub operations: Vec<Vec<Asked>>,
    /// Who does it (`from`, and the rest of `when`): all of one of these.
    pub sources: Vec<Vec<Asked>>,
}

/// What is asked of one attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Which.
    pub attribute: Attribute,
    /// It is one of these, unless there are none.
    pub values: Vec<String>,
    /// It is none of these.
    pub not_values: Vec<String>,
}

/// The most service accounts in one list (Istio's CRD).
const MAX_ACCOUNTS: usize = 16;

impl AuthorizationPolicy {
    pub(super) fn read(cursor: &Cursor<'_>) -> Option<Self> {
        let mut fields = cursor.fields()?;
        let selected = fields.get("selector", selector("matchLabels"));
        let mut gateways = fields.list("targetRefs", target);
        gateways.extend(fields.get("targetRef", target));
        if selected.is_some() && !gateways.is_empty() {
            cursor.error("selector and targetRefs exclude each other");
        }
        if gateways.len() > 16 {
            cursor.error("targetRefs: at most 16 are allowed");
        }
        let action = fields.get("action", |cursor| {
            cursor.choice(&[
                ("ALLOW", PolicyAction::Allow),
                ("DENY", PolicyAction::Deny),
                ("AUDIT", PolicyAction::Audit),
                ("CUSTOM", PolicyAction::Custom),
            ])
        });
        let action = action.unwrap_or_default();
        let provider = fields.get("provider", |cursor| {
            let mut fields = cursor.fields()?;
            let name = fields.need("name", |cursor| cursor.spanned(Cursor::filled));
            fields.done();
            name
        });
        match (action, &provider) {
            (PolicyAction::Custom, None) => cursor.error("provider.name: required for CUSTOM"),
            (PolicyAction::Custom, _) | (_, None) => {}
            _ => cursor.error("provider: only for CUSTOM"),
        }
        let said = fields.has("rules");
        let rules = fields.list("rules", PolicyRule::read);
        if action == PolicyAction::Deny && !said {
            cursor.error("a policy that denies never does without rules; [{}] matches everything");
        }
        if action == PolicyAction::Custom && !said {
            cursor.error("a policy that asks never does without rules; [{}] matches everything");
        }
        fields.done();
        Some(Self {
            provider,
            selector: selected.filter(|labels| !labels.is_empty()),
            gateways,
            action,
            rules,
        })
    }
}

/// The name of a Gateway.
pub(super) fn target(cursor: &Cursor<'_>) -> Option<String> {
    let mut fields = cursor.fields()?;
    let group = fields.get("group", read::string).unwrap_or_default();
    let kind = fields.need("kind", read::filled);
    let name = fields.need("name", read::filled);
    fields.refuse(
        "namespace",
        "what is in another namespace has policies there",
    );
    fields.done();
    match (group.as_str(), kind?.as_str()) {
        ("gateway.networking.k8s.io", "Gateway") => name,
        (_, kind) => {
            cursor.error(format!(
                "not supported: a policy for {kind} {group:?}; Gateway of gateway.networking.k8s.io \
                 is, and a selector"
            ));
            None
        }
    }
}

impl PolicyRule {
    fn read(cursor: &Cursor<'_>) -> Option<Self> {
        // A rule without anything in it matches everything.
        let mut fields = cursor.fields()?;
        let mut operations = Vec::new();
        let mut sources = Vec::new();
        for asked in fields.list("when", condition) {
            match asked.value.attribute.is_of_operation() {
                true => operations.push(asked.value),
                false => sources.push(asked.value),
            }
        }
        let with = |before: Vec<Asked>, after: &[Asked]| -> Vec<Asked> {
            before.into_iter().chain(after.iter().cloned()).collect()
        };
        let mut from = |name, key: &'static str, read: fn(&Cursor<'_>) -> Option<Vec<Asked>>| {
            let said = fields.has(name);
            let list = fields.list(name, |cursor| {
                let mut fields = cursor.fields()?;
                let found = fields.need(key, read);
                fields.done();
                found
            });
            if said && list.is_empty() {
                cursor.error(format!("{name}: must not be empty"));
            }
            (said, list)
        };
        let (from_said, from_list) = from("from", "source", source);
        let (to_said, to_list) = from("to", "operation", operation);
        fields.done();
        let sources = match from_said {
            false => vec![sources],
            true => from_list
                .into_iter()
                .map(|one| with(one, &sources))
                .collect(),
        };
        let operations = match to_said {
            false => vec![operations],
            true => to_list
                .into_iter()
                .map(|one| with(one, &operations))
                .collect(),
        };
        Some(Self {
            at: cursor.at(),
            operations,
            sources,
        })
    }
}

/// A list of values, each of which is checked.
fn values(cursor: &Cursor<'_>, attribute: &Attribute) -> Option<Vec<String>> {
    cursor.list(|cursor| {
        let text = cursor.filled()?;
        match attribute.fact(&text, "default") {
            Ok(_) => Some(text),
            Err(message) => {
                cursor.error(message);
                None
            }
        }
    })
}

/// Reads pairs of lists, in the order in which istiod asks.
fn pairs(
    cursor: &Cursor<'_>,
    names: &[(&'static str, &'static str, Attribute)],
) -> Option<Vec<Asked>> {
    let mut fields = cursor.fields()?;
    let mut all = Vec::new();
    for (name, not, attribute) in names {
        let read = |name, fields: &mut crate::cursor::Fields<'_>| {
            fields
                .get(name, |cursor| values(cursor, attribute))
                .unwrap_or_default()
        };
        let (values, not_values) = (read(*name, &mut fields), read(*not, &mut fields));
        if *attribute == Attribute::ServiceAccount
            && (values.len() > MAX_ACCOUNTS || not_values.len() > MAX_ACCOUNTS)
        {
            cursor.error(format!("{name}: at most {MAX_ACCOUNTS} are allowed"));
        }
        if !values.is_empty() || !not_values.is_empty() {
            all.push(Asked {
                attribute: attribute.clone(),
                values,
                not_values,
            });
        }
    }
    fields.done();
    if all.is_empty() {
        cursor.error("must not be empty");
    }
    Some(all)
}

fn source(cursor: &Cursor<'_>) -> Option<Vec<Asked>> {
    let all = pairs(
        cursor,
        &[
            ("principals", "notPrincipals", Attribute::Principal),
            (
                "requestPrincipals",
                "notRequestPrincipals",
                Attribute::RequestPrincipal,
            ),
            (
                "serviceAccounts",
                "notServiceAccounts",
                Attribute::ServiceAccount,
            ),
            ("namespaces", "notNamespaces", Attribute::Namespace),
            ("trustDomains", "notTrustDomains", Attribute::TrustDomain),
            ("remoteIpBlocks", "notRemoteIpBlocks", Attribute::RemoteIp),
            ("ipBlocks", "notIpBlocks", Attribute::SourceIp),
        ],
    )?;
    let has = |attribute: Attribute| all.iter().any(|one| one.attribute == attribute);
    if has(Attribute::ServiceAccount) && (has(Attribute::Principal) || has(Attribute::Namespace)) {
        cursor.error("serviceAccounts exclude principals and namespaces");
    }
    Some(all)
}

fn operation(cursor: &Cursor<'_>) -> Option<Vec<Asked>> {
    pairs(
        cursor,
        &[
            ("hosts", "notHosts", Attribute::Host),
            ("methods", "notMethods", Attribute::Method),
            ("paths", "notPaths", Attribute::Path),
            ("ports", "notPorts", Attribute::Port),
        ],
    )
}

fn condition(cursor: &Cursor<'_>) -> Option<Spanned<Asked>> {
    let mut fields = cursor.fields()?;
    let attribute = fields.need("key", |cursor| {
        let key = cursor.filled()?;
        match Attribute::named(&key) {
            Ok(attribute) => Some(attribute),
            Err(message) => {
                cursor.error(message);
                None
            }
        }
    })?;
    let mut read = |name| {
        let found = fields.get(name, |cursor| values(cursor, &attribute));
        found.unwrap_or_default()
    };
    let (values, not_values) = (read("values"), read("notValues"));
    if values.is_empty() && not_values.is_empty() {
        cursor.error("values or notValues is missing");
    }
    fields.done();
    Some(Spanned {
        at: cursor.at(),
        value: Asked {
            attribute,
            values,
            not_values,
        },
    })
}

/// A block of addresses, as a fact.
fn block(text: &str, fact: fn(Cidr) -> Fact) -> Result<Fact, String> {
    text.parse()
        .map(fact)
        .map_err(|error: mesh_core::Invalid| error.to_string())
}
