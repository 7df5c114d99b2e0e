//! Parameters of a query, as Envoy reads and writes them (`Utility::QueryParamsMulti`).

use std::collections::BTreeMap;

/// Parameters by their names, in the order of these.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Query(BTreeMap<Vec<u8>, Vec<Vec<u8>>>);

// === impl Query ===

impl Query {
    /// The parameters of a path, their escapes resolved.
    pub(super) fn of(path: &str) -> Self {
        let mut all = Self::default();
        let Some((_, query)) = path.split_once('?') else {
            return all;
        };
        let query = query.split('#').next().unwrap_or_default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let values = all.0.entry(decoded(name)).or_default();
            values.push(decoded(value));
        }
        all
    }

    /// The first value of a parameter.
    pub(super) fn first(&self, name: &str) -> Option<&[u8]> {
        let values = self.0.get(name.as_bytes())?;
        values.first().map(|value| &**value)
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.0.remove(name.as_bytes());
    }

    /// A path with these parameters instead of its own.
    pub(super) fn instead(&self, path: &str) -> String {
        let path = path.split_once('?').map_or(path, |(path, _)| path);
        let mut out = path.to_owned();
        let mut before = '?';
        for (name, values) in &self.0 {
            for value in values {
                out.push(before);
                before = '&';
                encode(name, &mut out);
                out.push('=');
                encode(value, &mut out);
            }
        }
        out
    }
}

/// With escapes resolved; what is none stays.
fn decoded(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digit = |at: usize| bytes.get(at).and_then(|it| char::from(*it).to_digit(16));
        match (bytes[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high << 4 | low).to_le_bytes()[0]);
                at += 3;
            }
            (byte, ..) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

/// Escapes what is neither a letter, a digit nor one of `-_.~`.
fn encode(bytes: &[u8], out: &mut String) {
    use std::fmt::Write;
    for &byte in bytes {
        match byte {
            b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => out.push(char::from(byte)),
            byte => {
                // Writing to a String cannot fail.
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
}
