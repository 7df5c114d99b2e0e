//! Why a request went where it went: the same decision as [`find`](crate::find), told in full.

use crate::head::Head;
use crate::matches::{Predicate, query_value, unmet, with_value};
use crate::table::find_host;
use mesh_core::Name;
use mesh_core::model::{
    Condition, HeaderKey, HeaderMatch, PathMatch, RouteTable, ValueMatch, VirtualHost,
};
use std::fmt::{self, Write};

/// How the rule for a request was found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Explanation {
    /// The request's authority.
    pub authority: Option<String>,
    /// The virtual host that serves it, by name and place in the table.
    pub host: Option<(Name, usize)>,
    /// The rules that were considered, in order, up to the one that matched.
    pub rules: Vec<Considered>,
}

/// One rule that was considered.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Considered {
    /// The rule's place in its virtual host.
    pub rule: usize,
    /// The rule's name; may be empty.
    pub name: Name,
    /// What the request did not meet; none for the rule that matched.
    pub failed: Option<Unmet>,
}

/// A part of a condition that a request did not meet.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unmet {
    /// What was asked for, e.g. `header end-user: exact "jason"`.
    pub wanted: String,
    /// What the request had instead; none if it had nothing of the kind.
    pub had: Option<String>,
}

/// Tells how [`find`](crate::find) decides for this request.
pub fn explain(table: &RouteTable, head: &Head<'_>, word: u64) -> Explanation {
    let host = find_host(table, head);
    Explanation {
        authority: head.authority().map(str::to_owned),
        host: host.map(|host| (table.virtual_hosts[host].name.clone(), host)),
        rules: host
            .map(|host| consider(&table.virtual_hosts[host], head, word))
            .unwrap_or_default(),
    }
}

fn consider(host: &VirtualHost, head: &Head<'_>, word: u64) -> Vec<Considered> {
    let mut considered = Vec::new();
    for (index, rule) in host.rules.iter().enumerate() {
        let failed = unmet(&rule.condition, head, word)
            .map(|predicate| describe(&rule.condition, predicate, head));
        let matched = failed.is_none();
        considered.push(Considered {
            rule: index,
            name: rule.name.clone(),
            failed,
        });
        if matched {
            break;
        }
    }
    considered
}

fn describe(condition: &Condition, predicate: Predicate, head: &Head<'_>) -> Unmet {
    match predicate {
        Predicate::Path => Unmet {
            wanted: path(&condition.path),
            had: match condition.path {
                PathMatch::Connect => Some(head.method().to_string()),
                _ => head.path().map(str::to_owned),
            },
        },
        Predicate::Header(at) => {
            let want = &condition.headers[at];
            Unmet {
                wanted: header(want),
                had: with_value(&want.key, head, |value| {
                    value.map(|value| String::from_utf8_lossy(value).into_owned())
                }),
            }
        }
        Predicate::Query(at) => {
            let want = &condition.query[at];
            Unmet {
                wanted: format!("query {}{}", want.name, value(&want.value)),
                had: query_value(head, &want.name).map(str::to_owned),
            }
        }
        Predicate::Grpc => Unmet {
            wanted: "content-type of gRPC".to_owned(),
            had: head
                .headers()
                .get(http::header::CONTENT_TYPE)
                .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()),
        },
        Predicate::Share => Unmet {
            wanted: condition
                .share
                .map(|share| format!("share of {share}"))
                .unwrap_or_default(),
            had: Some("a draw outside of it".to_owned()),
        },
    }
}

fn path(want: &PathMatch) -> String {
    match want {
        PathMatch::Prefix(text) => format!("path prefix {text:?}"),
        PathMatch::Exact(text) => format!("path exact {text:?}"),
        PathMatch::SeparatedPrefix(text) => format!("path prefix {text:?} (whole segments)"),
        PathMatch::PrefixIgnoreCase(text) => format!("path prefix {text:?} (any case)"),
        PathMatch::ExactIgnoreCase(text) => format!("path exact {text:?} (any case)"),
        PathMatch::SeparatedPrefixIgnoreCase(text) => {
            format!("path prefix {text:?} (whole segments, any case)")
        }
        PathMatch::Regex(pattern) => format!("path regex {:?}", pattern.source()),
        PathMatch::Connect => "method CONNECT".to_owned(),
        _ => "a path match that this version does not know".to_owned(),
    }
}

fn header(want: &HeaderMatch) -> String {
    let mut text = match &want.key {
        HeaderKey::Method => "method".to_owned(),
        HeaderKey::Authority => "authority".to_owned(),
        HeaderKey::Scheme => "scheme".to_owned(),
        HeaderKey::Path => "path and query".to_owned(),
        HeaderKey::Header(name) => format!("header {name}"),
    };
    if want.invert {
        text.push_str(" not");
    }
    // Writing to a String cannot fail.
    let _ = write!(text, "{}", value(&want.value));
    if want.missing_is_empty {
        text.push_str(" (missing counts as empty)");
    }
    text
}

fn value(want: &ValueMatch) -> String {
    match want {
        ValueMatch::Text(text) => format!(": {text}"),
        ValueMatch::Present(true) => " present".to_owned(),
        ValueMatch::Present(false) => " absent".to_owned(),
        ValueMatch::Range(start, end) => format!(": a number from {start} up to but not {end}"),
    }
}

// === impl Explanation ===

impl Explanation {
    /// The places of the virtual host and the rule, as [`find`](crate::find) gives them.
    pub fn found(&self) -> Option<(usize, usize)> {
        let (_, host) = self.host.as_ref()?;
        let last = self.rules.last()?;
        last.failed.is_none().then_some((*host, last.rule))
    }
}

impl fmt::Display for Explanation {
    /// One line for the virtual host and one for each rule.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = self.authority.as_deref().unwrap_or("(none)");
        match &self.host {
            None => return write!(f, "no virtual host serves authority {authority}"),
            Some((name, _)) => write!(f, "virtual host {name} serves authority {authority}")?,
        }
        for considered in &self.rules {
            write!(f, "\n{considered}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Considered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule {}", self.rule)?;
        if !self.name.is_empty() {
            write!(f, " ({})", self.name)?;
        }
        match &self.failed {
            None => f.write_str(": matches"),
            Some(unmet) => write!(f, ": {unmet}"),
        }
    }
}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "wants {}, ", self.wanted)?;
        match &self.had {
            Some(had) => write!(f, "had {had:?}"),
            None => f.write_str("had none"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, Request};
    use mesh_core::model::{Rule, StringMatch};

    #[test]
    fn an_explanation_says_what_failed_and_what_the_request_had() {
        let mut jason = Rule::prefix_to("/", "v2");
        jason.name = "jason".into();
        jason.condition.headers.push(HeaderMatch::text(
            HeaderKey::Header(HeaderName::from_static("end-user")),
            StringMatch::Exact("jason".into()),
        ));
        let host = VirtualHost::new("reviews", ["reviews:9080"])
            .rule(Rule::prefix_to("/admin", "v0"))
            .rule(jason)
            .rule(Rule::prefix_to("/", "v1"))
            .rule(Rule::prefix_to("/", "never"));
        let table = RouteTable::new("t").host(host);
        let request = Request::get("http://reviews:9080/x")
            .header("end-user", "eve")
            .body(())
            .unwrap();
        let explanation = explain(&table, &Head::of(&request), 0);
        assert_eq!(explanation.found(), Some((0, 2)));
        assert_eq!(
            explanation.to_string(),
            "virtual host reviews serves authority reviews:9080\n\
             rule 0: wants path prefix \"/admin\", had \"/x\"\n\
             rule 1 (jason): wants header end-user: exact \"jason\", had \"eve\"\n\
             rule 2: matches"
        );
        let request = Request::get("http://ratings/").body(()).unwrap();
        let explanation = explain(&table, &Head::of(&request), 0);
        assert_eq!(explanation.found(), None);
        assert_eq!(
            explanation.to_string(),
            "no virtual host serves authority ratings"
        );
    }
}
