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
        // Behind the last `&` there may be nothing; between two there is a parameter without a name.
        let mut pairs: Vec<&str> = query.split('&').collect();
        pairs.pop_if(|last| last.is_empty());
        for pair in pairs {
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

/// Leaves what may be in a query as it is, even where it was an escape, as Envoy does; escapes what
/// may not, which Envoy leaves, too.
fn encode(bytes: &[u8], out: &mut String) {
    use std::fmt::Write;
    for &byte in bytes {
        match byte {
            b'"' | b'#' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' => {
                // Writing to a String cannot fail.
                let _ = write!(out, "%{byte:02X}");
            }
            byte if byte.is_ascii_graphic() => out.push(char::from(byte)),
            byte => {
                // Writing to a String cannot fail.
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without(path: &str, name: &str) -> String {
        let mut query = Query::of(path);
        query.remove(name);
        query.instead(path)
    }

    #[test]
    fn what_is_left_is_sorted_and_its_escapes_are_resolved() {
        assert_eq!(without("/a?t=x", "t"), "/a");
        assert_eq!(without("/a?t=x&b", "t"), "/a?b=");
        assert_eq!(
            without("/?t=1&q=%41%2f%3D&%zz=1&a=+", "t"),
            "/?%zz=1&a=+&q=A/="
        );
        assert_eq!(without("/?a=%20%23&t=1&t=2", "t"), "/?a=%20%23");
        // As Envoy: nothing is a name, too, but behind the last `&`.
        for (path, left) in [
            ("/?&t=1", "/?="),
            ("/?&t=1&&b=2", "/?=&=&b=2"),
            ("/?t=1&", "/"),
            ("/?t=1&&", "/?="),
            ("/?", "/"),
        ] {
            assert_eq!(without(path, "t"), left, "{path}");
        }
        assert_eq!(Query::of("/?t=%41&t=b").first("t"), Some(&b"A"[..]));
        assert_eq!(Query::of("/t=1").first("t"), None);
    }
}
