//! Makes a failing case as small as it gets while it still fails in the same way.

use crate::config::{self, Config};
use crate::difference::Found;
use crate::run::{Order, Runner};
use serde_json::Value;

/// Candidates that are tried together.
const TOGETHER: usize = 32;
/// The most rounds.
const ROUNDS: usize = 16;

/// A smaller case with the same difference.
pub(crate) async fn shrink(runner: &mut Runner, found: Found) -> anyhow::Result<Found> {
    let mut best = found;
    // One request is enough, mostly.
    if let Some(call) = best.difference.call {
        let mut config = best.config.clone();
        config.calls = vec![config.calls[call].clone()];
        if let Some(smaller) = first_that_fails(runner, &best, &[config]).await? {
            best = smaller;
        }
    }
    for _ in 0..ROUNDS {
        let all = candidates(&best.config);
        let mut smaller = None;
        for some in all.chunks(TOGETHER) {
            smaller = first_that_fails(runner, &best, some).await?;
            if smaller.is_some() {
                break;
            }
        }
        match smaller {
            Some(found) => best = found,
            None => break,
        }
    }
    Ok(best)
}

/// The smallest of those that still fail.
async fn first_that_fails(
    runner: &mut Runner,
    like: &Found,
    candidates: &[Config],
) -> anyhow::Result<Option<Found>> {
    let configs: Vec<&Config> = candidates.iter().collect();
    let outcomes = runner.batch(&configs, Order::InTurn).await?;
    let wanted = like.difference.signature();
    let failing = candidates
        .iter()
        .zip(outcomes)
        .filter_map(|(config, outcome)| {
            let mut same = outcome.differences.into_iter();
            let difference = same.find(|it| it.signature() == wanted)?;
            let config = config.clone();
            Some(Found { config, difference })
        });
    let size = |found: &Found| -> usize {
        let parts = found.config.source.parts();
        parts.iter().map(|part| part.to_string().len()).sum()
    };
    Ok(failing.min_by_key(size))
}

/// Every configuration with one thing less, those with much less first.
fn candidates(config: &Config) -> Vec<Config> {
    let mut out = Vec::new();
    if config.calls.len() > 1 {
        let half = config.calls.len() / 2;
        for keep in [&config.calls[..half], &config.calls[half..]] {
            let mut smaller = config.clone();
            smaller.calls = keep.to_vec();
            out.push(smaller);
        }
        if config.calls.len() <= 16 {
            for at in 0..config.calls.len() {
                let mut smaller = config.clone();
                smaller.calls.remove(at);
                out.push(smaller);
            }
        }
    }
    for part in 0..config.source.parts().len() {
        let mut paths = Vec::new();
        removable(config.source.parts()[part], &mut Vec::new(), &mut paths);
        paths.retain(|path| !path.last().is_some_and(Step::is_needed));
        paths.sort_by_key(Vec::len);
        for path in paths {
            let mut smaller = config.clone();
            remove(smaller.source.parts_mut()[part], &path);
            out.push(smaller);
        }
    }
    for call in 0..config.calls.len().min(2) {
        let of = &config.calls[call];
        for header in 0..of.headers.len() {
            if of.headers[header].0 == "x-judge" {
                continue;
            }
            let mut smaller = config.clone();
            smaller.calls[call].headers.remove(header);
            out.push(smaller);
        }
        let mut change = |edit: &dyn Fn(&mut crate::request::Call)| {
            let mut smaller = config.clone();
            edit(&mut smaller.calls[call]);
            if smaller.calls[call] != *of {
                out.push(smaller);
            }
        };
        change(&|it| it.http2 = false);
        change(&|it| it.method = "GET".into());
        change(&|it| it.body.clear());
        change(&|it| it.host = Some("mesh.test".into()));
        change(&|it| {
            if let Some(at) = it.target.find('?') {
                it.target.truncate(at);
            }
        });
    }
    out
}

/// A step into JSON.
#[derive(Clone, Debug)]
enum Step {
    Field(String),
    Item(usize),
}

impl Step {
    /// Whether nothing works without it.
    fn is_needed(&self) -> bool {
        let needed = [
            "route_config",
            "load_assignment",
            "name",
            "@type",
            "domains",
            "match",
            "header",
            "connect_timeout",
            "type",
            config::ISTIO,
            "apiVersion",
            "kind",
            "metadata",
            "spec",
            "egress",
            "servers",
        ];
        matches!(self, Self::Field(name) if needed.contains(&name.as_str()))
    }
}

fn removable(value: &Value, at: &mut Vec<Step>, out: &mut Vec<Vec<Step>>) {
    let mut visit = |step: Step, inner: &Value| {
        at.push(step);
        out.push(at.clone());
        removable(inner, at, out);
        at.pop();
    };
    match value {
        Value::Array(items) => {
            for (n, item) in items.iter().enumerate().rev() {
                visit(Step::Item(n), item);
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                visit(Step::Field(name.clone()), field);
            }
        }
        _ => {}
    }
}

fn remove(value: &mut Value, path: &[Step]) {
    match (path, value) {
        ([Step::Field(name)], Value::Object(fields)) => {
            fields.remove(name);
        }
        ([Step::Item(at)], Value::Array(items)) if *at < items.len() => {
            items.remove(*at);
        }
        ([Step::Field(name), rest @ ..], Value::Object(fields)) => {
            if let Some(inner) = fields.get_mut(name) {
                remove(inner, rest);
            }
        }
        ([Step::Item(at), rest @ ..], Value::Array(items)) => {
            if let Some(inner) = items.get_mut(*at) {
                remove(inner, rest);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Source;
    use crate::request::Call;
    use serde_json::json;

    #[test]
    fn every_part_is_taken_away_once() {
        let config = Config {
            area: "routes",
            source: Source {
                manager: json!({"a": [1, {"b": 2}]}),
                clusters: json!([]),
            },
            calls: vec![Call::get("/x?y").with("x-a", "1")],
        };
        let found = candidates(&config);
        let managers: Vec<String> = found
            .iter()
            .map(|it| it.source.parts()[0].to_string())
            .collect();
        for wanted in [
            "{}",
            r#"{"a":[1]}"#,
            r#"{"a":[{"b":2}]}"#,
            r#"{"a":[1,{}]}"#,
        ] {
            assert!(
                managers.iter().any(|it| it == wanted),
                "{wanted} in {managers:?}"
            );
        }
        assert!(found.iter().any(|it| it.calls[0].headers.is_empty()));
        assert!(found.iter().any(|it| it.calls[0].target == "/x"));
    }
}
