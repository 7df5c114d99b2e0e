//! What one subject did with a request, as facts that can be compared one by one.

use crate::backend::is_copy;
use crate::request::Call;
use crate::wire::Message;
use mesh_core::base64;
use mesh_core::protobuf::{Fields, Value};
use std::collections::BTreeMap;

/// Facts by name: `status`, `body`, `header x`, `upstream 0 header x`, `log code` and so on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) facts: BTreeMap<String, String>,
    /// Text that differs for no interesting reason, and what is compared instead.
    masks: Vec<(String, &'static str)>,
    /// The endpoint or the answer, where chance decides which.
    pub(crate) drawn: Option<String>,
    /// The request, or one before it, was not in time.
    pub(crate) late: bool,
}

/// What stands for a time that depends on how many attempts there were.
pub(crate) const LEFT: &str = "(what is left)";

// === impl Facts ===

impl Facts {
    pub(crate) fn with_masks(masks: Vec<(String, &'static str)>) -> Self {
        Self {
            facts: BTreeMap::new(),
            masks,
            drawn: None,
            late: false,
        }
    }

    pub(crate) fn get(&self, fact: &str) -> &str {
        self.facts.get(fact).map_or("(none)", String::as_str)
    }

    pub(crate) fn put(&mut self, fact: &str, mut value: String) {
        for (text, mask) in &self.masks {
            if !text.is_empty() {
                value = value.replace(text.as_str(), mask);
            }
        }
        self.facts.insert(fact.to_owned(), value);
    }

    /// The answer that came back.
    pub(crate) fn reply(&mut self, call: &Call, reply: &Message) {
        self.put("status", reply.status().to_string());
        // "HTTP/1.1 200 " and what follows.
        self.put(
            "version",
            reply.line.split(' ').next().unwrap_or("").to_owned(),
        );
        self.put(
            "reason",
            reply.line.split(' ').skip(2).collect::<Vec<_>>().join(" "),
        );
        self.put("end", reply.end.to_owned());
        self.put("interim", reply.interim.join(" "));
        self.put("body", String::from_utf8_lossy(&reply.body).into_owned());
        self.put("trailers", format!("{:?}", reply.trailers));
        self.headers("", call, reply);
        for (n, then) in reply.then.iter().enumerate() {
            self.put(&format!("then {n} status"), then.status().to_string());
            self.put(&format!("then {n} end"), then.end.to_owned());
            let body = String::from_utf8_lossy(&then.body).into_owned();
            self.put(&format!("then {n} body"), body);
            self.headers(&format!("then {n} "), call, then);
        }
    }

    /// What the backends saw.
    pub(crate) fn upstream(&mut self, call: &Call, mut seen: Vec<(&'static str, Message)>) {
        // A copy comes at any time.
        seen.sort_by_key(|(backend, message)| is_copy(backend, message));
        let copies = seen.iter().filter(|(at, it)| is_copy(at, it)).count();
        self.put("upstream count", (seen.len() - copies).to_string());
        self.put("upstream copies", copies.to_string());
        for (n, (backend, message)) in seen.iter().enumerate() {
            self.put(
                &format!("upstream {n} line"),
                format!("{backend}: {}", message.line),
            );
            let body = String::from_utf8_lossy(&message.body).into_owned();
            self.put(&format!("upstream {n} body"), body);
            self.put(&format!("upstream {n} end"), message.end.to_owned());
            self.put(
                &format!("upstream {n} trailers"),
                format!("{:?}", message.trailers),
            );
            self.headers(&format!("upstream {n} "), call, message);
        }
    }

    /// The lines of the access log without their number: one for a request, and one more for each
    /// redirect of its that was followed.
    pub(crate) fn log(&mut self, lines: &[String]) {
        let Some((last, before)) = lines.split_last() else {
            self.put("log", "no line".into());
            return;
        };
        self.line("log", last);
        for (n, line) in before.iter().enumerate() {
            self.line(&format!("log before {n}"), line);
        }
    }

    fn line(&mut self, prefix: &str, line: &str) {
        for field in line.split('\t') {
            let (name, value) = field.split_once('=').unwrap_or((field, ""));
            self.put(&format!("{prefix} {name}"), value.to_owned());
        }
    }

    fn headers(&mut self, prefix: &str, call: &Call, message: &Message) {
        let mut named = BTreeMap::<&str, Vec<&str>>::new();
        for (name, value) in &message.headers {
            named.entry(name).or_default().push(value);
        }
        for (name, values) in named {
            let mut value = values.join(" | ");
            if name == "x-forwarded-for" {
                // One list on however many lines (RFC 9110 §5.3).
                let said: Vec<&str> = values.into_iter().filter(|it| !it.is_empty()).collect();
                value = said.join(",");
            }
            let was_sent = || {
                call.headers
                    .iter()
                    .any(|(_, sent)| sent.contains(value.as_str()))
            };
            match name {
                // Of no backend of ours but one, and of the clock.
                "date" if !value.contains("1970") => continue,
                // Which endpoint answers such a request is left to chance.
                _ if name.starts_with("endpoint-load-metrics") => continue,
                "x-request-id" if value.len() == 36 && !was_sent() => {
                    "(a new one)".clone_into(&mut value);
                }
                // Envoy writes its host's address in place of a loopback peer's.
                "x-forwarded-for" if !was_sent() => {
                    let by_caller = |part: &str| {
                        let mut sent = call.headers.iter().map(|(_, sent)| sent);
                        sent.any(|sent| sent.split(',').any(|it| it.trim() == part.trim()))
                    };
                    let parts: Vec<&str> = value
                        .split(',')
                        .map(|part| if by_caller(part) { part } else { "(the peer)" })
                        .collect();
                    value = parts.join(",");
                }
                // What is left of the timeout at a further attempt.
                "x-envoy-expected-rq-timeout-ms" | "grpc-timeout"
                    if prefix.starts_with("upstream ")
                        && (prefix != "upstream 0 " || self.unseen_attempts()) =>
                {
                    LEFT.clone_into(&mut value);
                }
                // What a made cookie says depends on the connection.
                "set-cookie" if call.header("x-judge").is_some() => value = without_hash(&value),
                // When a session ends depends on when it began.
                "set-cookie" => value = without_end(&value),
                "x-envoy-upstream-service-time" => "(a time)".clone_into(&mut value),
                _ => {}
            }
            self.put(&format!("{prefix}header {name}"), value);
        }
    }

    /// Whether there were attempts that reached no backend.
    fn unseen_attempts(&self) -> bool {
        self.get("log attempts") != self.get("upstream count")
    }

    /// The facts that are not the same: name, theirs, ours. What only follows from another
    /// difference is not told again.
    pub(crate) fn unlike(&self, ours: &Self) -> Vec<(String, String, String)> {
        let mut names: Vec<&String> = self.facts.keys().chain(ours.facts.keys()).collect();
        names.sort();
        names.dedup();
        let same = |fact| self.get(fact) == ours.get(fact);
        let same_status = same("status");
        let same_count = same("upstream count");
        let same_backend = same("upstream 0 line");
        let told = |name: &str| {
            let answer = name.starts_with("header ") || matches!(name, "reason" | "body");
            let seen = name.starts_with("upstream ");
            (same_status || !(answer || name.starts_with("log ")))
                && (same_count || name == "upstream count" || !seen)
                && (same_backend || !(seen && name.contains("header")))
        };
        names
            .into_iter()
            .filter(|name| told(name) && !same(name))
            .map(|name| {
                (
                    name.clone(),
                    self.get(name).to_owned(),
                    ours.get(name).to_owned(),
                )
            })
            .collect()
    }
}

/// A value in which the message of a session's cookie has no time.
fn without_end(value: &str) -> String {
    let ends = |text: &&str| {
        let message = base64::decode(text.as_bytes())?;
        let mut fields = Fields::new(&message);
        match (fields.next()??, fields.next()??, fields.next()) {
            ((1, Value::Bytes(address)), (2, Value::Number(_)), None) => {
                let address = String::from_utf8_lossy(address);
                Some(format!("({address} for a time)"))
            }
            _ => None,
        }
    };
    let parts = value.split('"');
    let parts = parts.map(|it| ends(&it).unwrap_or_else(|| it.to_owned()));
    parts.collect::<Vec<_>>().join("\"")
}

/// A value with the hash that Envoy puts into cookies taken out.
fn without_hash(value: &str) -> String {
    let hash = |text: &&str| text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let parts = value
        .split('"')
        .map(|it| if hash(&it) { "(a hash)" } else { it });
    parts.collect::<Vec<_>>().join("\"")
}
