//! How long an answer may get.

use http::HeaderValue;
use serde_json::Value;

/// How much is listed of what there may be thousands of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bound {
    /// Rules that did not match, besides the one that did.
    pub(super) rules: usize,
    /// Hosts of each cluster.
    pub(super) hosts: usize,
    /// Destinations and listeners.
    pub(super) others: usize,
    /// Policies, and clusters that copies and other parts of a split go to.
    pub(super) whole: bool,
}

/// For the admin interface and the command line.
pub(super) const FULL: Bound = Bound {
    rules: 1_000,
    hosts: 1_000,
    others: 100,
    whole: true,
};

/// What a header may hold, from much to little.
const HEADERS: [Bound; 3] = [
    Bound {
        rules: 20,
        hosts: 10,
        others: 10,
        whole: true,
    },
    Bound {
        rules: 3,
        hosts: 3,
        others: 3,
        whole: false,
    },
    Bound {
        rules: 0,
        hosts: 0,
        others: 1,
        whole: false,
    },
];

/// The longest header, in bytes: half of what common servers and clients take for a whole head.
const LONGEST_HEADER: usize = 8 << 10;

/// The most complete answer that a header may hold. None where even the shortest is too long.
pub(super) fn as_header(answer: impl Fn(Bound) -> Value) -> Option<HeaderValue> {
    HEADERS.iter().find_map(|bound| {
        let text = ascii(&answer(*bound).to_string());
        let fits = text.len() <= LONGEST_HEADER;
        fits.then(|| HeaderValue::try_from(text).ok())?
    })
}

/// JSON of plain ASCII: everything else is inside of strings, where it can be escaped.
fn ascii(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_ascii() && c != '\x7f' {
            out.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            out.push_str(&format!("\\u{unit:04x}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_header_holds_what_fits_and_is_the_same_json_in_ascii() {
        let text = "é\u{7f}𝄞\"\n";
        let value = as_header(|_| json!({"a": text})).unwrap();
        let back: Value = serde_json::from_slice(value.as_bytes()).unwrap();
        assert_eq!(back["a"], text);
        assert!(value.as_bytes().iter().all(|byte| (32..127).contains(byte)));
        let value = as_header(|bound| json!(vec!["0123456789"; bound.rules * 100])).unwrap();
        let back: Vec<String> = serde_json::from_slice(value.as_bytes()).unwrap();
        assert_eq!(back.len(), 300);
        assert!(as_header(|_| json!("x".repeat(LONGEST_HEADER))).is_none());
    }
}
