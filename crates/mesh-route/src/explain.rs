//! Why a request went where it went: the same decision as [`find`](crate::find), told in full.

//!
//! It is the same decision because it is made by the same functions: the virtual host comes from
//! the look-up that serves traffic, and the rules of that host are asked in order, each with the
//! function that tells whether a request meets its condition. Only the index that spares the router
//! most of those questions is left out.

mod words;

use crate::domain::Domains;
use crate::head::Head;
use crate::matches::unmet;
use crate::table::find_host;
use mesh_core::Name;
use mesh_core::model::{RouteTable, VirtualHost};
use std::fmt;

/// How the rule for a request was found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Explanation {
    /// The request's authority.
    pub authority: Option<String>,
    /// The virtual host that serves it, by name and place in the table.
    pub host: Option<(Name, usize)>,
    /// The domain of that virtual host that the authority meets.
    pub domain: Option<Name>,
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
    /// Everything that the rule asks for, e.g. `path prefix "/api"`.
    pub wants: Vec<String>,
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
        domain: host.and_then(|host| domain(table, &table.virtual_hosts[host], head)),
        rules: host
            .map(|host| consider(&table.virtual_hosts[host], head, word))
            .unwrap_or_default(),
    }
}

/// Which domain of a virtual host a request came by: what the look-up finds where each domain has
/// a host of its own.
fn domain(table: &RouteTable, host: &VirtualHost, head: &Head<'_>) -> Option<Name> {
    let mut each = RouteTable::new(table.name.clone());
    each.ignore_port = table.ignore_port;
    for domain in &host.domains {
        each = each.host(VirtualHost::new(domain.clone(), [domain.clone()]));
    }
    let found = Domains::compile(&each).find(head.authority())?;
    Some(host.domains[found].clone())
}

fn consider(host: &VirtualHost, head: &Head<'_>, word: u64) -> Vec<Considered> {
    let mut considered = Vec::new();
    for (index, rule) in host.rules.iter().enumerate() {
        let failed = unmet(&rule.condition, head, word)
            .map(|predicate| words::describe(&rule.condition, predicate, head));
        let matched = failed.is_none();
        considered.push(Considered {
            rule: index,
            name: rule.name.clone(),
            wants: words::all(&rule.condition),
            failed,
        });
        if matched {
            break;
        }
    }
    considered
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
    use mesh_core::model::{HeaderKey, HeaderMatch, Rule, StringMatch};

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
        assert_eq!(explanation.domain.as_deref(), Some("reviews:9080"));
        assert_eq!(
            explanation.rules[1].wants,
            ["path prefix \"/\"", "header end-user: exact \"jason\""]
        );
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

    #[test]
    fn the_domain_is_the_closest_of_its_host_and_long_values_are_cut() {
        let host = VirtualHost::new("shop", ["*", "*.shop.example", "*.eu.shop.example"])
            .rule(Rule::prefix_to("/a", "v1"));
        let mut table = RouteTable::new("t").host(host);
        table.ignore_port = true;
        let request = Request::get(format!("http://x.EU.shop.example:80/{}", "ä".repeat(400)))
            .body(())
            .unwrap();
        let explanation = explain(&table, &Head::of(&request), 0);
        assert_eq!(explanation.domain.as_deref(), Some("*.eu.shop.example"));
        let had = explanation.rules[0].failed.as_ref().unwrap().had.as_ref();
        let had = had.unwrap();
        assert!(had.ends_with('…') && had.len() < 300, "{had}");
    }
}
