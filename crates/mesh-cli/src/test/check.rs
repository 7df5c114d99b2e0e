//! What was expected against what an explanation says.

use crate::explain::text::text as shown;
use mesh_istio::expect::Expect;
use serde_json::Value;

/// An expectation that is not met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mismatch {
    /// The field of the expectation.
    pub(super) field: String,
    pub(super) expected: String,
    /// What it is instead.
    pub(super) found: String,
}

/// Everything that is not as expected.
pub(super) fn check(expect: &Expect, answer: &Value) -> Vec<Mismatch> {
    let mut all = Checks {
        answer,
        found: Vec::new(),
    };
    all.destinations(expect);
    all.weights(&expect.weights);
    all.text(
        "status",
        expect.status.map(|it| it.to_string()),
        "/answer/status",
    );
    all.text("location", expect.location.clone(), "/answer/location");
    all.text("path", expect.path.clone(), "/sent/path");
    all.text("authority", expect.authority.clone(), "/sent/authority");
    all.text("route", expect.route.clone(), "/route/name");
    for (name, value) in &expect.headers {
        all.header(name, value);
    }
    for (name, words) in &expect.policy {
        all.policy(name, words);
    }
    if let Some(endpoints) = expect.endpoints {
        let eligible = answer.pointer("/clusters/0/eligible").map(shown);
        all.is("endpoints", &endpoints.to_string(), eligible);
    }
    all.found
}

struct Checks<'a> {
    answer: &'a Value,
    found: Vec<Mismatch>,
}

// === impl Checks ===

impl Checks<'_> {
    fn is(&mut self, field: &str, expected: &str, found: Option<String>) {
        if found.as_deref() != Some(expected) {
            self.fails(field, expected, found);
        }
    }

    fn fails(&mut self, field: &str, expected: &str, found: Option<String>) {
        self.found.push(Mismatch {
            field: field.to_owned(),
            expected: expected.to_owned(),
            found: found.unwrap_or_else(|| "nothing".to_owned()),
        });
    }

    fn text(&mut self, field: &str, expected: Option<String>, pointer: &str) {
        if let Some(expected) = expected {
            let found = self
                .answer
                .pointer(pointer)
                .filter(|value| !value.is_null());
            self.is(field, &expected, found.map(shown));
        }
    }

    /// Every destination that gets requests has to be the expected one.
    fn destinations(&mut self, expect: &Expect) {
        let all = self.answer["destinations"].as_array();
        let all = all.into_iter().flatten();
        let used: Vec<&Value> = all.filter(|one| one["weight"] != 0).collect();
        let port = expect.port.map(|port| port.to_string());
        for (field, expected) in [
            ("host", expect.host.as_ref()),
            ("subset", expect.subset.as_ref()),
            ("port", port.as_ref()),
            ("cluster", expect.cluster.as_ref()),
        ] {
            let Some(expected) = expected else {
                continue;
            };
            let fits = |one: &&Value| match (field, shown(&one[field])) {
                ("host", found) => is_host(expected, &found),
                (_, found) => found == *expected,
            };
            if used.is_empty() || !used.iter().all(fits) {
                let names: Vec<String> = used.iter().map(|one| shown(&one[field])).collect();
                let found = (!names.is_empty()).then(|| named(&names));
                self.fails(field, expected, found);
            }
        }
    }

    fn weights(&mut self, expected: &[(String, u32)]) {
        if expected.is_empty() {
            return;
        }
        let all = self.answer["destinations"].as_array();
        let all: Vec<&Value> = all.into_iter().flatten().collect();
        let is_for = |name: &str, one: &Value| {
            one["subset"] == name || one["cluster"] == name || is_host(name, &shown(&one["host"]))
        };
        let fits = |(name, weight): &(String, u32)| {
            let mut of_name = all.iter().filter(|one| is_for(name, one));
            of_name.any(|one| one["weight"] == *weight)
        };
        if !expected.iter().all(fits) || expected.len() != all.len() {
            let say = |name: &str, weight: &str| format!("{name}: {weight}");
            let wanted: Vec<String> = expected
                .iter()
                .map(|(name, weight)| say(name, &weight.to_string()))
                .collect();
            let found: Vec<String> = all
                .iter()
                .map(|one| {
                    let name = match one["subset"].as_str() {
                        Some(subset) => subset.to_owned(),
                        None => shown(&one["cluster"]),
                    };
                    say(&name, &shown(&one["weight"]))
                })
                .collect();
            let found = (!found.is_empty()).then(|| found.join(", "));
            self.fails("weights", &wanted.join(", "), found);
        }
    }

    fn header(&mut self, name: &str, value: &str) {
        let set = self.answer["sent"]["headers_set"].as_array();
        let set = set.into_iter().flatten();
        let values = set.filter(|one| {
            one[0]
                .as_str()
                .is_some_and(|it| it.eq_ignore_ascii_case(name))
        });
        let values: Vec<String> = values.map(|one| shown(&one[1])).collect();
        if !values.iter().any(|one| one == value) {
            let found = (!values.is_empty()).then(|| values.join(", "));
            self.fails(&format!("header {name}"), value, found);
        }
    }

    fn policy(&mut self, name: &str, words: &str) {
        let route = self.answer["policies"].as_array();
        let cluster = self
            .answer
            .pointer("/clusters/0/policies")
            .and_then(Value::as_array);
        let all = route
            .into_iter()
            .flatten()
            .chain(cluster.into_iter().flatten());
        let of_name = all.filter(|one| one["policy"] == name);
        let values: Vec<String> = of_name.map(|one| shown(&one["value"])).collect();
        let is_met = match words {
            "none" => values.iter().all(|value| value == "none"),
            words => values.iter().any(|value| has_words(value, words)),
        };
        if !is_met {
            let found = (!values.is_empty()).then(|| values.join("; "));
            self.fails(name, words, found);
        }
    }
}

/// Whether `reviews` or `reviews.default` stands for `reviews.default.svc.cluster.local`.
fn is_host(expected: &str, found: &str) -> bool {
    found
        .strip_prefix(expected)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Whether a text holds these words, and not only as parts of others.
fn has_words(text: &str, words: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
    text.match_indices(words).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + words.len()..].chars().next();
        // A host may be named by its first labels.
        !before.is_some_and(is_part) && !after.is_some_and(|c| is_part(c) && c != '.')
    })
}

fn named(names: &[String]) -> String {
    let say = |name: &String| match name.as_str() {
        "" => "none".to_owned(),
        name => name.to_owned(),
    };
    let names: Vec<String> = names.iter().map(say).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_istio::expect::Suite;
    use serde_json::json;

    fn answer() -> Value {
        json!({
            "route": {"name": "split"},
            "destinations": [
                {"cluster": "c1", "host": "reviews.default.svc.cluster.local", "port": 9080,
                 "subset": "v1", "weight": 90},
                {"cluster": "c2", "host": "reviews.default.svc.cluster.local", "port": 9080,
                 "subset": "v2", "weight": 10},
            ],
            "answer": null,
            "sent": {"path": "/new", "authority": "reviews:9080", "headers_set": [["x", "1"]]},
            "policies": [
                {"policy": "timeout", "value": "3s"},
                {"policy": "retries", "value": "5 on connect-failure"},
                {"policy": "mirror", "value": "100% to outbound|9080||ratings.default.svc.cluster.local"},
            ],
            "clusters": [{"eligible": 2, "policies": [{"policy": "limits", "value": "none"}]}],
        })
    }

    fn mismatches(expect: &str) -> Vec<(String, String)> {
        let text = format!("tests: [{{request: http://a/, expect: {expect}}}]");
        let suite = Suite::read("e.yaml", &text).unwrap();
        check(&suite.tests[0].expect, &answer())
            .into_iter()
            .map(|one| (one.field, one.found))
            .collect()
    }

    #[test]
    fn what_is_met_is_not_mentioned() {
        for expect in [
            "{host: reviews, port: 9080, route: split, path: /new, endpoints: 2}",
            "{host: reviews.default.svc.cluster.local, authority: 'reviews:9080'}",
            "{weights: {v1: 90, v2: 10}, headers: {X: 1}}",
            "{policy: {timeout: 3s, retries: 5, mirror: ratings, limits: none, fault: none}}",
        ] {
            assert_eq!(mismatches(expect), [], "{expect}");
        }
    }

    #[test]
    fn what_is_not_met_says_what_is_there_instead() {
        for (expect, field, found) in [
            (
                "{host: review}",
                "host",
                "reviews.default.svc.cluster.local, reviews.default.svc.cluster.local",
            ),
            ("{subset: v1}", "subset", "v1, v2"),
            ("{weights: {v1: 90}}", "weights", "v1: 90, v2: 10"),
            ("{weights: {v1: 80, v2: 20}}", "weights", "v1: 90, v2: 10"),
            ("{status: 404}", "status", "nothing"),
            ("{path: /old}", "path", "/new"),
            ("{headers: {y: 1}}", "header y", "nothing"),
            ("{policy: {timeout: 13s}}", "timeout", "3s"),
            ("{policy: {timeout: none}}", "timeout", "3s"),
            ("{policy: {fault: abort}}", "fault", "nothing"),
            ("{endpoints: 1}", "endpoints", "2"),
        ] {
            assert_eq!(
                mismatches(expect),
                [(field.to_owned(), found.to_owned())],
                "{expect}"
            );
        }
    }

    #[test]
    fn words_are_whole() {
        assert!(has_words("5 on x; each try 2s", "2s"));
        assert!(!has_words("12s", "2s"));
        assert!(!has_words("2s5", "2s"));
        assert!(!has_words("ratings-v2", "ratings"));
        assert!(has_words("to ratings.default", "ratings"));
    }
}
