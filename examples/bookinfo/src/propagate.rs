//! The headers that every service hands on to the services it calls.
//!
//! A proxy cannot know which call belongs to which request: unless the application copies these,
//! traces fall apart at each hop and routes that match a user do so only on the first.

use http::{HeaderMap, HeaderName};

/// Handed on as they are, besides everything that begins with [`B3`].
const PROPAGATED: [&str; 9] = [
    "x-request-id",
    "b3",
    "traceparent",
    "tracestate",
    "x-ot-span-context",
    "user-agent",
    "cookie",
    "authorization",
    "end-user",
];
const B3: &str = "x-b3-";

/// The headers of `incoming` to send along with the calls made to answer it.
pub(crate) fn propagated(incoming: &HeaderMap) -> HeaderMap {
    let handed_on = |name: &HeaderName| {
        let name = name.as_str();
        PROPAGATED.contains(&name) || name.starts_with(B3)
    };
    incoming
        .iter()
        .filter(|(name, _)| handed_on(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn hands_on_what_traces_and_routes_need_and_nothing_else() {
        let mut incoming = HeaderMap::new();
        for name in PROPAGATED.into_iter().chain(["x-b3-traceid", "x-b3-new"]) {
            incoming.insert(name, HeaderValue::from_static("kept"));
        }
        let kept = incoming.clone();
        for name in ["host", "connection", "content-length", "x-b3", "accept"] {
            incoming.insert(name, HeaderValue::from_static("dropped"));
        }
        assert_eq!(propagated(&incoming), kept);
    }

    #[test]
    fn keeps_every_value_of_a_header_that_came_twice() {
        let mut incoming = HeaderMap::new();
        incoming.append("tracestate", HeaderValue::from_static("a=1"));
        incoming.append("tracestate", HeaderValue::from_static("b=2"));
        let out = propagated(&incoming);
        let values = out.get_all("tracestate").iter().collect::<Vec<_>>();
        assert_eq!(values, ["a=1", "b=2"]);
    }
}
