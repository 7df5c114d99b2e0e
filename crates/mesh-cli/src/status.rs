//! How far proxies are: `/debug/syncz` of a control plane.
//!
//! The list is istiod's, with an entry per stream, and `types` beside it, which mesh-control adds:
//! without it only what was sent and what was acknowledged can be compared.

use anyhow::{Context, bail};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Where the list is.
pub(crate) const SYNCZ: &str = "/debug/syncz";

/// istiod's names for the types, and everybody's.
const TYPES: [(&str, &str); 5] = [
    ("cluster", "CDS"),
    ("endpoint", "EDS"),
    ("extensionconfig", "ECDS"),
    ("listener", "LDS"),
    ("route", "RDS"),
];

/// A proxy, on all its streams.
#[derive(Clone, Debug, Default)]
pub(crate) struct Proxy {
    /// `NAME.NAMESPACE`, or its id if that is of another form.
    pub(crate) name: String,
    /// As it calls itself.
    pub(crate) id: String,
    /// `sidecar`, `router` and so on; empty if not known.
    pub(crate) kind: String,
    /// The version of Istio that it understands.
    pub(crate) version: String,
    types: BTreeMap<String, Progress>,
}

/// How far it is with one type.
#[derive(Clone, Debug)]
struct Progress {
    state: State,
    /// The newest response, by its nonce.
    sent: String,
    nack: Option<Nack>,
}

/// The words of `istioctl proxy-status`, and one more; the worst is the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    Synced,
    NotSent,
    Stale,
    Nacked,
}

/// Why a proxy rejected something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Nack {
    /// What it said.
    pub(crate) reason: String,
    /// The objects that it is about: `VirtualService reviews.default (mesh/reviews.yaml:14:7)`.
    pub(crate) origins: Vec<String>,
}

// === impl Proxy ===

impl Proxy {
    /// Every proxy in an answer, by name.
    ///
    /// # Errors
    /// If it is not such a list.
    pub(crate) fn read_all(answer: &Value) -> anyhow::Result<Vec<Self>> {
        // istiod answers null when nobody is connected.
        let entries = match answer {
            Value::Null => &[],
            Value::Array(entries) => entries.as_slice(),
            _ => bail!("{SYNCZ} does not answer a list of proxies"),
        };
        let mut all: BTreeMap<String, Self> = BTreeMap::new();
        for entry in entries {
            let one = Self::read(entry).with_context(|| format!("an entry of {SYNCZ}"))?;
            // One that does not aggregate has a stream for each type.
            match all.get_mut(&one.id) {
                Some(known) => known.join(one),
                None => {
                    all.insert(one.id.clone(), one);
                }
            }
        }
        let mut all: Vec<Self> = all.into_values().collect();
        all.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        Ok(all)
    }

    fn read(entry: &Value) -> anyhow::Result<Self> {
        let text = |key: &str| text(entry, key).to_owned();
        let name = text("proxy");
        if name.is_empty() {
            bail!("there is no `proxy`");
        }
        let id = Some(text("id")).filter(|id| !id.is_empty());
        let types = match entry.get("types") {
            Some(Value::Object(types)) => {
                let types = types.iter();
                let types = types.map(|(kind, about)| Ok((kind.clone(), Progress::read(about)?)));
                types.collect::<anyhow::Result<_>>()?
            }
            _ => compared(entry),
        };
        Ok(Self {
            id: id.unwrap_or_else(|| name.clone()),
            name,
            kind: text("proxy_type"),
            version: text("istio_version"),
            types,
        })
    }

    fn join(&mut self, other: Self) {
        for (kind, progress) in other.types {
            match self.types.get_mut(&kind) {
                Some(known) => known.join(progress),
                None => {
                    self.types.insert(kind, progress);
                }
            }
        }
    }

    /// Whether this is meant: its id, `NAME.NAMESPACE`, or just its name in namespace `default`.
    pub(crate) fn is(&self, said: &str) -> bool {
        self.id == said
            || self.name == said
            || (!said.contains('.') && self.name.strip_suffix(".default") == Some(said))
    }

    /// How far it is with a type; nothing, if it did not ask for that.
    pub(crate) fn state(&self, kind: &str) -> Option<State> {
        self.types.get(kind).map(|progress| progress.state)
    }

    /// Each type that it asked for.
    pub(crate) fn states(&self) -> impl Iterator<Item = (&str, State)> {
        let types = self.types.iter();
        types.map(|(kind, progress)| (kind.as_str(), progress.state))
    }

    /// What it rejected, by type.
    pub(crate) fn nacks(&self) -> impl Iterator<Item = (&str, &Nack)> {
        let types = self.types.iter();
        types.filter_map(|(kind, progress)| Some((kind.as_str(), progress.nack.as_ref()?)))
    }

    /// Why it rejected the newest response of a type.
    pub(crate) fn nack(&self, kind: &str) -> Option<&Nack> {
        self.types.get(kind)?.nack.as_ref()
    }

    /// Whether it has asked for something and acknowledged everything.
    pub(crate) fn is_synced(&self) -> bool {
        !self.types.is_empty() && self.states().all(|(_, state)| state == State::Synced)
    }

    /// A text that changes when something is sent.
    pub(crate) fn sent(&self) -> String {
        let mut out = self.id.clone();
        for (kind, progress) in &self.types {
            // Writing to a String cannot fail.
            let _ = write!(out, " {kind}={}", progress.sent);
        }
        out
    }
}

// === impl Progress ===

impl Progress {
    fn read(about: &Value) -> anyhow::Result<Self> {
        let word = text(about, "status");
        let state = State::ALL.into_iter().find(|state| state.words() == word);
        let state = state.with_context(|| format!("the status {word:?} is not known"))?;
        let nack = about
            .get("nacked")
            .filter(|nacked| nacked.is_object())
            .map(|nacked| {
                let origins = nacked.get("origins").and_then(Value::as_array);
                let origins = origins.into_iter().flatten().filter_map(Value::as_str);
                Nack {
                    reason: text(nacked, "message").to_owned(),
                    origins: origins.map(ToOwned::to_owned).collect(),
                }
            });
        let sent = about.get("sent").map(|sent| text(sent, "nonce"));
        Ok(Self {
            state,
            sent: sent.unwrap_or_default().to_owned(),
            nack: nack.filter(|_| state == State::Nacked),
        })
    }

    fn join(&mut self, other: Self) {
        self.state = self.state.max(other.state);
        let _ = write!(self.sent, ",{}", other.sent);
        self.nack = self.nack.take().or(other.nack);
    }
}

/// What istiod tells: a nonce that was sent and one that was acknowledged.
fn compared(entry: &Value) -> BTreeMap<String, Progress> {
    let types = TYPES.into_iter().filter_map(|(key, kind)| {
        let sent = text(entry, &format!("{key}_sent"));
        let acked = text(entry, &format!("{key}_acked"));
        // It does not tell whether the proxy asked for what it was not sent.
        if sent.is_empty() {
            return None;
        }
        let progress = Progress {
            state: match sent == acked {
                true => State::Synced,
                false => State::Stale,
            },
            sent: sent.to_owned(),
            nack: None,
        };
        Some((kind.to_owned(), progress))
    });
    types.collect()
}

// === impl State ===

impl State {
    const ALL: [Self; 4] = [Self::Synced, Self::NotSent, Self::Stale, Self::Nacked];

    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Synced => "SYNCED",
            Self::NotSent => "NOT SENT",
            Self::Stale => "STALE",
            Self::Nacked => "NACKED",
        }
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    /// Two proxies, one of which rejects something, as mesh-control tells it.
    pub(crate) const SOME: &str = include_str!("../data/syncz.json");

    /// A proxy that was sent one nonce of CDS and acknowledged another.
    pub(crate) fn proxy(name: &str, sent: &str, acked: &str) -> Proxy {
        let entry = json!({"proxy": name, "cluster_sent": sent, "cluster_acked": acked});
        Proxy::read(&entry).unwrap()
    }

    #[test]
    fn what_istiod_tells_is_compared() {
        let answer = json!([{
            "proxy": "a.b", "proxy_type": "router", "istio_version": "1.30.3",
            "cluster_sent": "1", "cluster_acked": "1",
            "listener_sent": "2", "listener_acked": "1",
            "route_sent": "3",
        }]);
        let proxies = Proxy::read_all(&answer).unwrap();
        let one = &proxies[0];
        assert_eq!(one.state("CDS"), Some(State::Synced));
        assert_eq!(one.state("LDS"), Some(State::Stale));
        assert_eq!(one.state("RDS"), Some(State::Stale));
        assert_eq!(one.state("EDS"), None);
        assert!(!one.is_synced());
        assert_eq!(
            (one.kind.as_str(), one.version.as_str()),
            ("router", "1.30.3")
        );
    }

    #[test]
    fn streams_of_one_proxy_are_one_row_with_the_worst_of_each_type() {
        let stream = |types: Value| json!({"proxy": "a.b", "id": "x~1~a.b~d", "types": types});
        let of = |state: &str| json!({"status": state, "sent": {"nonce": state}});
        let answer = json!([
            stream(json!({"CDS": of("SYNCED"), "LDS": of("SYNCED")})),
            stream(json!({"CDS": of("STALE"), "RDS": of("SYNCED")})),
            {"proxy": "a.b", "id": "x~2~a.b~d", "types": {}},
        ]);
        let proxies = Proxy::read_all(&answer).unwrap();
        assert_eq!(proxies.len(), 2);
        let states: Vec<_> = proxies[0].states().collect();
        let expected = [
            ("CDS", State::Stale),
            ("LDS", State::Synced),
            ("RDS", State::Synced),
        ];
        assert_eq!(states, expected);
        assert!(proxies[0].is("x~1~a.b~d") && proxies[0].is("a.b") && !proxies[0].is("a"));
        assert!(!proxies[1].is_synced(), "it has asked for nothing");
        assert!(proxy("a.default", "", "").is("a"));
    }

    #[test]
    fn a_reason_belongs_to_the_newest_response_only() {
        let nacked = json!({"message": "no", "origins": ["X y.z (f:1:2)"]});
        let entry = |state: &str| {
            let about = json!({"status": state, "nacked": nacked});
            Proxy::read(&json!({"proxy": "a.b", "types": {"RDS": about}})).unwrap()
        };
        let nack = entry("NACKED").nack("RDS").cloned().unwrap();
        assert_eq!((nack.reason.as_str(), nack.origins.len()), ("no", 1));
        assert_eq!(entry("STALE").nack("RDS"), None);
    }

    #[test]
    fn what_is_no_list_of_proxies_is_refused() {
        assert!(Proxy::read_all(&Value::Null).unwrap().is_empty());
        for wrong in [
            json!({}),
            json!("x"),
            json!([1]),
            json!([{}]),
            json!([{"proxy": "a", "types": {"CDS": {"status": "FINE"}}}]),
        ] {
            assert!(Proxy::read_all(&wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_in_sync_with_a_response_that_it_did_not_acknowledge(
            sent in "[0-9]{0,2}", acked in "[0-9]{0,2}"
        ) {
            let one = proxy("a.b", &sent, &acked);
            prop_assert_eq!(one.is_synced(), !sent.is_empty() && sent == acked);
        }
    }
}
