//! Requests that ask to go on in another protocol (RFC 9110 §7.8).

use http::header::{self, HeaderMap, HeaderValue};

/// The protocol that a request asks to switch to, if it does: `upgrade`, which `connection` has to
/// name. Nobody switches to `h2c` any more (RFC 9113 §3.1), so that is no such wish.
///
/// # Example
///
/// ```
/// let request = http::Request::get("/chat")
///     .header("connection", "keep-alive, Upgrade")
///     .header("upgrade", "websocket")
///     .body(())
///     .unwrap();
/// assert_eq!(mesh_core::upgrade::of(request.headers()).unwrap(), "websocket");
/// ```
pub fn of(headers: &HeaderMap) -> Option<&HeaderValue> {
    let upgrade = crate::seldom::get(headers, &header::UPGRADE)?;
    let asks = || {
        headers.get_all(header::CONNECTION).iter().any(|value| {
            value
                .as_bytes()
                .split(|byte| *byte == b',')
                .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
        })
    };
    (!upgrade.as_bytes().eq_ignore_ascii_case(b"h2c") && asks()).then_some(upgrade)
}

/// Whether that is WebSocket (RFC 6455): Envoy bounds the time until such a request is answered as
/// that of any other, and of no other upgrade.
pub fn is_websocket(headers: &HeaderMap) -> bool {
    of(headers).is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Details of an answer to a WebSocket that is neither 101 nor an error: nothing of it but its head
/// is passed on, and it counts as no answer of its cluster (as in Envoy, `UpstreamRequest`).
pub const UNSUCCESSFUL: &str = "websocket_handshake_unsuccessful";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_fields_have_to_ask() {
        let asks = |lines: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(*name, HeaderValue::from_static(value));
            }
            let to = of(&headers).map(|to| to.to_str().unwrap().to_owned());
            (to, is_websocket(&headers))
        };
        let (connection, upgrade) = ("connection", "upgrade");
        for (lines, expected) in [
            (vec![(connection, "upgrade"), (upgrade, "foo")], Some("foo")),
            (
                vec![
                    (connection, "close"),
                    (connection, "x , UPGRADE"),
                    (upgrade, "a, b"),
                ],
                Some("a, b"),
            ),
            (vec![(upgrade, "foo")], None),
            (vec![(connection, "upgrade")], None),
            (vec![(connection, "upgrades"), (upgrade, "foo")], None),
            (vec![(connection, "upgrade"), (upgrade, "H2C")], None),
        ] {
            assert_eq!(
                asks(&lines),
                (expected.map(str::to_owned), false),
                "{lines:?}"
            );
        }
        let lines = [(connection, "Upgrade"), (upgrade, "WebSocket")];
        assert!(asks(&lines).1);
    }
}
