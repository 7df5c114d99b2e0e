//! What policies ask about, and what a value of it comes to.

use http::HeaderName;
use mesh_core::Name;
use mesh_core::model::{
    ClaimMatch, Fact, HeaderKey, HeaderMatch, PathTemplate, Pattern, PortRange, StringMatch,
    ValueMatch,
};

use super::block;

/// What a policy asks about.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Attribute {
    /// `hosts`
    Host,
    /// `methods`
    Method,
    /// `paths`
    Path,
    /// `ports`, `destination.port`
    Port,
    /// `destination.ip`
    DestinationIp,
    /// `connection.sni`
    ServerName,
    /// `ipBlocks`, `source.ip`
    SourceIp,
    /// `remoteIpBlocks`, `remote.ip`
    RemoteIp,
    /// `namespaces`, `source.namespace`
    Namespace,
    /// `serviceAccounts`, `source.serviceAccount`
    ServiceAccount,
    /// `trustDomains`, `source.trustDomain`
    TrustDomain,
    /// `principals`, `source.principal`
    Principal,
    /// `requestPrincipals`, `request.auth.principal`
    RequestPrincipal,
    /// `request.auth.audiences`
    Audience,
    /// `request.auth.presenter`
    Presenter,
    /// `request.headers[…]`
    Header(HeaderName),
    /// `request.auth.claims[…]`, by the way to it.
    Claim(Vec<String>),
}

/// What has to be there.
const ANYTHING: &str = ".+";
/// The longest service account.
const MAX_ACCOUNT: usize = 320;

impl Attribute {
    /// The attribute that a condition (`when`) names.
    pub(crate) fn named(key: &str) -> Result<Self, String> {
        if let Some(rest) = key.strip_prefix("request.headers") {
            let name =
                bracketed(rest).ok_or_else(|| format!("{key:?} is not request.headers[…]"))?;
            let header = name
                .parse()
                .map_err(|_| format!("{name:?} is no name of a header"))?;
            return Ok(Self::Header(header));
        }
        if let Some(rest) = key.strip_prefix("request.auth.claims") {
            let wrong = || format!("{key:?} is not request.auth.claims[…][…]");
            let inside = bracketed(rest).ok_or_else(wrong)?;
            let way: Vec<String> = inside.split("][").map(str::to_owned).collect();
            let plain = |one: &String| !one.is_empty() && !one.contains(['[', ']']);
            return way
                .iter()
                .all(plain)
                .then_some(Self::Claim(way))
                .ok_or_else(wrong);
        }
        Ok(match key {
            "source.ip" => Self::SourceIp,
            "remote.ip" => Self::RemoteIp,
            "source.namespace" => Self::Namespace,
            "source.trustDomain" => Self::TrustDomain,
            "source.principal" => Self::Principal,
            "source.serviceAccount" => Self::ServiceAccount,
            "request.auth.principal" => Self::RequestPrincipal,
            "request.auth.audiences" => Self::Audience,
            "request.auth.presenter" => Self::Presenter,
            "destination.ip" => Self::DestinationIp,
            "destination.port" => Self::Port,
            "connection.sni" => Self::ServerName,
            filter if filter.starts_with("experimental.envoy.filters.") => {
                return Err(format!(
                    "not supported: {filter}, metadata of filters of Envoy's"
                ));
            }
            other => return Err(format!("{other:?} is not a key that is known")),
        })
    }

    /// Whether it is about what is done rather than who does it.
    pub(crate) fn is_of_operation(&self) -> bool {
        matches!(
            self,
            Self::Host
                | Self::Method
                | Self::Path
                | Self::Port
                | Self::DestinationIp
                | Self::ServerName
        )
    }

    /// Whether only requests have it.
    pub(crate) fn is_of_http(&self) -> bool {
        matches!(
            self,
            Self::Host
                | Self::Method
                | Self::Path
                | Self::RequestPrincipal
                | Self::Audience
                | Self::Presenter
                | Self::Header(_)
                | Self::Claim(_)
        )
    }

    /// Whether istiod asks about all values at once.
    pub(crate) fn is_of_token(&self) -> bool {
        matches!(
            self,
            Self::RequestPrincipal | Self::Audience | Self::Presenter | Self::Claim(_)
        )
    }

    /// What it comes to that this has a value; `namespace` is the policy's own.
    ///
    /// # Errors
    /// If there is no such value.
    pub(crate) fn fact(&self, value: &str, namespace: &str) -> Result<Fact, String> {
        Ok(match self {
            Self::Host => header(HeaderKey::Authority, any_case(value)),
            Self::Method => header(HeaderKey::Method, value_match(value)),
            Self::Path if value.contains("{*}") || value.contains("{**}") => {
                Fact::PathTemplate(template(value)?)
            }
            Self::Path => {
                if value.contains(['{', '}']) {
                    return Err(format!(
                        "{value:?}: of braces only {{*}} and {{**}} are known"
                    ));
                }
                Fact::Path(text(value, "")?)
            }
            Self::Port => {
                let port: u16 = value
                    .parse()
                    .map_err(|_| format!("{value:?} is not a port"))?;
                Fact::DestinationPort(PortRange::single(port))
            }
            Self::DestinationIp => block(value, Fact::Destination)?,
            Self::SourceIp => block(value, Fact::Direct)?,
            Self::RemoteIp => block(value, Fact::Remote)?,
            Self::ServerName => Fact::ServerName(text(value, "")?),
            Self::Namespace => {
                let name = value.replace('*', ".*");
                Fact::Peer(Some(regex(&format!(".*/ns/{name}/.*"))?))
            }
            Self::ServiceAccount => Fact::Peer(Some(account(value, namespace)?)),
            Self::TrustDomain => Fact::Peer(Some(domain(value)?)),
            Self::Principal => {
                if value.starts_with("spiffe://") {
                    return Err(format!(
                        "{value:?}: a principal is written without spiffe://"
                    ));
                }
                Fact::Peer(Some(text(value, "spiffe://")?))
            }
            Self::Header(name) => header(HeaderKey::Header(name.clone()), value_match(value)),
            // Only to check the value; they are asked about together.
            Self::RequestPrincipal | Self::Audience | Self::Presenter | Self::Claim(_) => {
                Fact::Claim(ClaimMatch::new(["sub"], [text(value, "")?]))
            }
        })
    }

    /// What it comes to that a claim is one of several values.
    pub(crate) fn claim(&self, values: &[String]) -> Result<Fact, String> {
        let path = match self {
            Self::Presenter => vec!["azp".to_owned()],
            Self::Claim(path) => path.clone(),
            _ => vec!["aud".to_owned()],
        };
        let values: Result<Vec<_>, _> = values.iter().map(|value| text(value, "")).collect();
        let mut claim = ClaimMatch::new(path, values?);
        claim.list = true;
        Ok(Fact::Claim(claim))
    }
}

/// Issuer and subject of a token, from `issuer/subject` (istiod's `requestPrincipalGenerator`).
pub(crate) fn issuer_and_subject(value: &str) -> Result<[Fact; 2], String> {
    let exact = |text: &str| StringMatch::Exact(text.to_owned());
    let anything = || regex(ANYTHING);
    let split = value.rsplit_once('/');
    let (issuer, subject) = match (value, split) {
        ("*", _) => (anything()?, anything()?),
        (_, Some(("*", subject))) => (anything()?, exact(subject)),
        (_, Some((issuer, subject))) if issuer.starts_with('*') => {
            (StringMatch::Suffix(issuer[1..].to_owned()), exact(subject))
        }
        (_, Some((issuer, "*"))) => (exact(issuer), anything()?),
        (_, Some((issuer, subject))) => (
            exact(issuer),
            match subject.strip_suffix('*') {
                Some(prefix) => StringMatch::Prefix(prefix.to_owned()),
                None => exact(subject),
            },
        ),
        (alone, None) => match (alone.strip_prefix('*'), alone.strip_suffix('*')) {
            (Some(suffix), _) => (anything()?, StringMatch::Suffix(suffix.to_owned())),
            (_, Some(prefix)) => (StringMatch::Prefix(prefix.to_owned()), anything()?),
            _ => (exact(alone), exact("")),
        },
    };
    let claim = |name: &str, value| Fact::Claim(ClaimMatch::new([Name::from(name)], [value]));
    Ok([claim("iss", issuer), claim("sub", subject)])
}

fn header(key: HeaderKey, value: ValueMatch) -> Fact {
    Fact::Header(HeaderMatch {
        key,
        value,
        invert: false,
        missing_is_empty: false,
    })
}

/// What is inside the outermost brackets.
fn bracketed(text: &str) -> Option<&str> {
    let inside = text.strip_prefix('[')?.strip_suffix(']')?;
    (!inside.is_empty()).then_some(inside)
}

fn regex(source: &str) -> Result<StringMatch, String> {
    let pattern = Pattern::new(source).map_err(|error| error.message().to_owned())?;
    Ok(StringMatch::Regex(pattern))
}

/// Exact, `prefix*`, `*suffix` or `*`, behind a prefix that all have.
fn text(value: &str, before: &str) -> Result<StringMatch, String> {
    if value == "*" {
        return regex(ANYTHING);
    }
    if let Some(suffix) = value.strip_prefix('*') {
        return match before {
            "" => Ok(StringMatch::Suffix(suffix.to_owned())),
            before => regex(&format!("{before}.*{suffix}")),
        };
    }
    Ok(match value.strip_suffix('*') {
        Some(prefix) => StringMatch::Prefix(format!("{before}{prefix}")),
        None => StringMatch::Exact(format!("{before}{value}")),
    })
}

/// The same of a header; `*` is that it is there.
fn value_match(value: &str) -> ValueMatch {
    match value {
        "*" => ValueMatch::Present(true),
        value => match (value.strip_prefix('*'), value.strip_suffix('*')) {
            (Some(suffix), _) => ValueMatch::Text(StringMatch::Suffix(suffix.to_owned())),
            (_, Some(prefix)) => ValueMatch::Text(StringMatch::Prefix(prefix.to_owned())),
            _ => ValueMatch::Text(StringMatch::Exact(value.to_owned())),
        },
    }
}

/// The same of a host, whose case does not matter.
fn any_case(value: &str) -> ValueMatch {
    match value_match(value) {
        ValueMatch::Text(StringMatch::Exact(text)) => {
            ValueMatch::Text(StringMatch::ExactIgnoreCase(text))
        }
        ValueMatch::Text(StringMatch::Prefix(text)) => {
            ValueMatch::Text(StringMatch::PrefixIgnoreCase(text))
        }
        ValueMatch::Text(StringMatch::Suffix(text)) => {
            ValueMatch::Text(StringMatch::SuffixIgnoreCase(text))
        }
        other => other,
    }
}

/// `account` or `namespace/account` (istiod's `serviceAccountRegex`).
fn account(value: &str, own: &str) -> Result<StringMatch, String> {
    let wrong = || format!("{value:?} is neither a service account nor namespace/account");
    let (namespace, account) = value.split_once('/').unwrap_or((own, value));
    let plain = |part: &str| !part.is_empty() && !part.contains(['/', '*']);
    if !plain(namespace) || !plain(account) || value.len() > MAX_ACCOUNT {
        return Err(wrong());
    }
    regex(&format!(
        "spiffe://.+/ns/{namespace}/(.+/|)sa/{account}(/.+)?"
    ))
}

/// An identity of a trust domain, whatever else it is. `*` stands for any part of the name, of which
/// a slash is none.
fn domain(value: &str) -> Result<StringMatch, String> {
    let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._*".contains(c);
    if !value.chars().all(known) {
        return Err(format!("{value:?} is not a trust domain"));
    }
    if !value.contains('*') {
        return Ok(StringMatch::Prefix(format!("spiffe://{value}/")));
    }
    let plain = value.replace('.', r"\.").replace('*', "[^/]*");
    regex(&format!("spiffe://{plain}/.*"))
}

/// A template in Istio's form: `{*}` is a segment, `{**}` any text, and the last of them.
fn template(value: &str) -> Result<PathTemplate, String> {
    for segment in value.trim_matches('/').split('/') {
        if !matches!(segment, "{*}" | "{**}") && segment.contains(['{', '}', '*']) {
            return Err(format!(
                "{value:?}: {segment:?} is not a segment of a path template: text, {{*}} or {{**}}"
            ));
        }
    }
    let text = value.replace("{**}", "**").replace("{*}", "*");
    PathTemplate::new(text).map_err(|error| error.message().to_owned())
}
