//! Which virtual host serves an authority.
//!
//! Exact domains first, then `*.suffix` (longest first), then `prefix.*` (longest first), then
//! `*`. A wildcard stands for at least one character. Case is ignored; a trailing dot is not
//! special; a port is part of the domain unless the table ignores ports (Envoy
//! `VirtualHost.domains`).

use crate::head::port_start;
use foldhash::fast::RandomState;
use mesh_core::model::RouteTable;
use std::collections::HashMap;

/// Which host has this name. Requests add none, so no hash has to be safe from them.
type Names = HashMap<Box<str>, usize, RandomState>;

/// The domains of a table, by kind and length.
#[derive(Debug, Default)]
pub(crate) struct Domains {
    ignore_port: bool,
    exact: Names,
    /// What follows the `*`, by length, longest first.
    suffixes: Vec<(usize, Names)>,
    /// What precedes the `*`, by length, longest first.
    prefixes: Vec<(usize, Names)>,
    any: Option<usize>,
}

/// Longest authority that is lower-cased without allocating: a DNS name with a port fits.
const LOWERED: usize = 264;

// === impl Domains ===

impl Domains {
    pub(crate) fn compile(table: &RouteTable) -> Self {
        let mut domains = Self {
            ignore_port: table.ignore_port,
            ..Self::default()
        };
        for (index, host) in table.virtual_hosts.iter().enumerate() {
            for domain in &host.domains {
                domains.add(&domain.to_ascii_lowercase(), index);
            }
        }
        for by_length in [&mut domains.suffixes, &mut domains.prefixes] {
            by_length.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
        }
        domains
    }

    /// Domains are unique in a checked table; in an unchecked one the first host keeps its own.
    fn add(&mut self, domain: &str, index: usize) {
        if domain == "*" {
            self.any.get_or_insert(index);
        } else if let Some(suffix) = domain.strip_prefix('*') {
            add_wildcard(&mut self.suffixes, suffix, index);
        } else if let Some(prefix) = domain.strip_suffix('*') {
            add_wildcard(&mut self.prefixes, prefix, index);
        } else {
            self.exact.entry(domain.into()).or_insert(index);
        }
    }

    /// The place of the virtual host that serves this authority. Without an authority it is the
    /// one for `*`.
    pub(crate) fn find(&self, authority: Option<&str>) -> Option<usize> {
        let Some(authority) = authority else {
            return self.any;
        };
        let host = match port_start(authority) {
            Some(port) if self.ignore_port => &authority[..port],
            _ => authority,
        };
        if !host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return self.find_lower(host);
        }
        let mut lowered = [0; LOWERED];
        if let Some(lowered) = lowered.get_mut(..host.len()) {
            lowered.copy_from_slice(host.as_bytes());
            lowered.make_ascii_lowercase();
            if let Ok(host) = std::str::from_utf8(lowered) {
                return self.find_lower(host);
            }
        }
        self.find_lower(&host.to_ascii_lowercase())
    }

    fn find_lower(&self, host: &str) -> Option<usize> {
        if let Some(index) = self.exact.get(host) {
            return Some(*index);
        }
        let suffix = |length| host.get(host.len() - length..);
        let prefix = |length| host.get(..length);
        find_wildcard(&self.suffixes, host.len(), suffix)
            .or_else(|| find_wildcard(&self.prefixes, host.len(), prefix))
            .or(self.any)
    }
}

fn add_wildcard(by_length: &mut Vec<(usize, Names)>, fixed: &str, index: usize) {
    let known = by_length
        .iter()
        .position(|(length, _)| *length == fixed.len());
    let at = known.unwrap_or_else(|| {
        by_length.push((fixed.len(), Names::default()));
        by_length.len() - 1
    });
    by_length[at].1.entry(fixed.into()).or_insert(index);
}

fn find_wildcard<'a>(
    by_length: &[(usize, Names)],
    host: usize,
    part: impl Fn(usize) -> Option<&'a str>,
) -> Option<usize> {
    by_length
        .iter()
        // `*.a.b` does not stand for `.a.b` itself.
        .filter(|(length, _)| *length < host)
        .find_map(|(length, fixed)| fixed.get(part(*length)?).copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_core::model::VirtualHost;

    fn table(ignore_port: bool, domains: &[&str]) -> RouteTable {
        let mut table = domains.iter().fold(RouteTable::new("t"), |table, domain| {
            table.host(VirtualHost::new(*domain, [*domain]))
        });
        table.ignore_port = ignore_port;
        table
    }

    fn find<'a>(domains: &[&'a str], ignore_port: bool, authority: &str) -> Option<&'a str> {
        let compiled = Domains::compile(&table(ignore_port, domains));
        compiled.find(Some(authority)).map(|index| domains[index])
    }

    #[test]
    fn domains_are_tried_in_envoys_order() {
        // Read off a running Envoy 1.40 with `ignore_port_in_host_matching`.
        let domains = [
            "a.ex.com",
            "*.ex.com",
            "*-b.ex.com",
            "www.*",
            "*",
            "[::1]",
            "*x",
        ];
        for (authority, expected) in [
            ("a.ex.com", "a.ex.com"),
            ("A.EX.com:90", "a.ex.com"),
            ("b.ex.com", "*.ex.com"),
            ("x-b.ex.com", "*-b.ex.com"),
            (".ex.com", "*"),
            ("ex.com", "*"),
            ("www.z", "www.*"),
            ("www.", "*"),
            ("www.a.ex.com", "*.ex.com"),
            ("q", "*"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
            ("a.ex.com.", "*"),
            ("ax", "*x"),
            ("x", "*"),
            ("a.ex.com:", "a.ex.com"),
            ("a.ex.com:abc", "a.ex.com"),
            (":80", "*"),
        ] {
            assert_eq!(
                find(&domains, true, authority),
                Some(expected),
                "{authority}"
            );
        }
    }

    #[test]
    fn a_port_counts_unless_the_table_ignores_ports() {
        let domains = ["a:80", "a"];
        assert_eq!(find(&domains, false, "a:80"), Some("a:80"));
        assert_eq!(find(&domains, false, "a:81"), None);
        assert_eq!(find(&domains, true, "a:81"), Some("a"));
    }

    #[test]
    fn a_request_without_authority_goes_to_the_host_for_everything() {
        let compiled = Domains::compile(&table(false, &["a", "*"]));
        assert_eq!(compiled.find(None), Some(1));
        assert_eq!(Domains::compile(&table(false, &["a"])).find(None), None);
    }

    #[test]
    fn names_longer_than_dns_allows_are_still_compared_without_case() {
        let long = format!("{}.ex.com", "A".repeat(400));
        assert_eq!(find(&["*.ex.com"], false, &long), Some("*.ex.com"));
    }
}
