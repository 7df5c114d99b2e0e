//! What one proxy did with a request, and how that differs from what the other did.

use super::cases::{Call, Group};
use super::wire::Message;
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

/// Facts by name: `status`, `body`, `header x`, `upstream 0 header x`, `log` and so on.
#[derive(Debug)]
pub struct Facts {
    facts: BTreeMap<String, String>,
    /// Text that differs for no interesting reason, and what is compared instead.
    masks: Vec<(String, &'static str)>,
}

/// One fact that is not the same.
#[derive(Debug)]
pub struct Difference {
    pub group: &'static str,
    pub label: String,
    pub fact: String,
    pub envoy: String,
    pub ours: String,
    request: String,
}

// === impl Facts ===

impl Facts {
    pub fn new(
        request: &[u8],
        reply: Message,
        seen: Vec<(&'static str, Message)>,
        caller: &str,
        listener: SocketAddr,
    ) -> Self {
        let masks = vec![
            (caller.to_owned(), "CALLER"),
            (listener.to_string(), "LISTENER"),
        ];
        let mut facts = Self {
            facts: BTreeMap::new(),
            masks,
        };
        // The phrase after the status says nothing (RFC 9112 §4) and is compared by itself.
        let (status, reason) = reply
            .line
            .split_at(reply.line.len().min("HTTP/1.1 200".len()));
        facts.put("status", status.to_owned());
        facts.put("reason", reason.to_owned());
        facts.put("end", reply.end.to_owned());
        facts.put("interim", reply.interim.join(" "));
        facts.put("body", String::from_utf8_lossy(&reply.body).into_owned());
        facts.headers("", request, &reply);
        facts.put("upstream count", seen.len().to_string());
        for (n, (backend, message)) in seen.iter().enumerate() {
            facts.put(
                &format!("upstream {n} line"),
                format!("{backend}: {}", message.line),
            );
            let body = String::from_utf8_lossy(&message.body).into_owned();
            facts.put(&format!("upstream {n} body"), body);
            facts.put(&format!("upstream {n} end"), message.end.to_owned());
            facts.headers(&format!("upstream {n} "), request, message);
        }
        facts
    }

    pub fn put(&mut self, fact: &str, mut value: String) {
        for (text, mask) in &self.masks {
            value = value.replace(text.as_str(), mask);
        }
        self.facts.insert(fact.to_owned(), value);
    }

    pub fn log(&mut self, line: &str) {
        self.put("log", line.to_owned());
    }

    fn headers(&mut self, prefix: &str, request: &[u8], message: &Message) {
        let mut named = BTreeMap::<&str, Vec<&str>>::new();
        for (name, value) in &message.headers {
            named.entry(name).or_default().push(value);
        }
        for (name, values) in named {
            let mut value = values.join(" | ");
            let was_sent = || String::from_utf8_lossy(request).contains(value.as_str());
            match name {
                // Of no backend of ours but one, and of the clock.
                "date" if !value.contains("1970") => continue,
                "x-request-id" if value.len() == 36 && !was_sent() => {
                    "(a new one)".clone_into(&mut value)
                }
                // Envoy writes its host's address in place of a loopback peer's.
                "x-forwarded-for" if !was_sent() => {
                    let before = value.rfind(',').map_or(0, |at| at + 1);
                    value.replace_range(before.., "(the peer)");
                }
                // What is left of the timeout at a further attempt.
                "x-envoy-expected-rq-timeout-ms"
                    if prefix.starts_with("upstream ") && prefix != "upstream 0 " =>
                {
                    "(what is left)".clone_into(&mut value);
                }
                "x-envoy-upstream-service-time" => "(a time)".clone_into(&mut value),
                _ => {}
            }
            self.put(&format!("{prefix}header {name}"), value);
        }
    }
}

// === impl Difference ===

impl Difference {
    pub fn between(
        group: &Group,
        call: &Call,
        envoy: &Facts,
        ours: &Facts,
        backends: &BTreeMap<&'static str, SocketAddr>,
    ) -> Vec<Self> {
        let mut names: Vec<&String> = envoy.facts.keys().chain(ours.facts.keys()).collect();
        names.sort();
        names.dedup();
        let value = |facts: &Facts, name: &str| {
            let mut value = facts
                .facts
                .get(name)
                .cloned()
                .unwrap_or_else(|| "(none)".into());
            for (backend, address) in backends {
                value = value.replace(&address.to_string(), &format!("BACKEND-{backend}"));
            }
            value
        };
        // What only follows from another difference is not told again.
        let same = |fact| value(envoy, fact) == value(ours, fact);
        let (same_status, same_count) = (same("status"), same("upstream count"));
        let told = |name: &str| {
            (same_status || !(name.starts_with("header ") || name == "reason"))
                && (same_count || !name.starts_with("upstream ") || name == "upstream count")
        };
        names
            .into_iter()
            .filter(|name| told(name))
            .filter_map(|name| {
                let (envoy, ours) = (value(envoy, name), value(ours, name));
                (envoy != ours).then(|| Self {
                    group: group.name,
                    label: call.label.clone(),
                    fact: name.clone(),
                    envoy,
                    ours,
                    request: String::from_utf8_lossy(&call.bytes)
                        .chars()
                        .take(400)
                        .collect(),
                })
            })
            .collect()
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            group,
            label,
            fact,
            envoy,
            ours,
            request,
        } = self;
        writeln!(f, "--- {group}: {label}: {fact}")?;
        writeln!(f, "  request: {request:?}")?;
        writeln!(f, "  envoy:   {envoy:?}")?;
        write!(f, "  ours:    {ours:?}")
    }
}
