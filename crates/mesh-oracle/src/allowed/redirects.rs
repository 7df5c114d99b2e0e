//! Differences about requests that go on: redirects of upstreams that a route follows, and attempts
//! beside others.

use super::Case;
use crate::difference::Difference;
use crate::request::Call;
use serde_json::Value;

/// Whether the first answer redirects the request as its route follows it.
pub(super) fn is_sent_elsewhere(case: &Case<'_>) -> bool {
    case.is(|call| {
        let script = call.header("x-script").unwrap_or_default();
        let first = script.split(',').next().unwrap_or_default();
        let status: Option<u64> = first.strip_prefix("to-").and_then(|it| it.parse().ok());
        let to = &route(case, &call.target)["route"];
        let policy = &to["internal_redirect_policy"];
        let follows = !policy.is_null() || !to["internal_redirect_action"].is_null();
        let statuses = policy["redirect_response_codes"].as_array();
        follows
            && status.is_some_and(|status| match statuses {
                Some(statuses) => statuses.iter().any(|it| *it == status),
                None => status == 302,
            })
    })
}

/// Whether Envoy's log or edit tells of where the request went on, or would have gone on.
pub(super) fn tells_of_the_next(it: &Difference, case: &Case<'_>) -> bool {
    let place = case.call.and_then(place);
    let Some((authority, path)) = place.filter(|_| is_sent_elsewhere(case)) else {
        return false;
    };
    let next = route(case, path);
    let is_next = |fact: &str| match fact {
        "route" => it.envoy == "-" || next["name"] == *it.envoy,
        "cluster" => it.envoy == "-" || leads_to(next, &it.envoy),
        _ => false,
    };
    if it.fact.starts_with("header x-") {
        // An edit that would write nothing leaves what the backend wrote.
        let left = it.fact == "header x-multi" && it.envoy == "one | two";
        return rest(&it.ours) == rest(&it.envoy) || left && rest(&it.ours).is_empty();
    }
    if let Some(fact @ ("route" | "cluster")) = it.fact.strip_prefix("log ") {
        return is_next(fact);
    }
    let before = it.fact.strip_prefix("log before ");
    match before.and_then(|before| before.split_once(' ')) {
        Some((_, "authority")) => it.envoy == authority,
        Some((_, "path" | "sent-path")) => it.envoy == path,
        // What 303 makes of others.
        Some((_, "method")) => it.envoy == "GET",
        // A header of the answer that the request takes along, or loses to an answer without it.
        Some((_, "x-a")) => matches!(&*it.envoy, "moved" | "-"),
        Some((_, "received")) => is_several_times(&it.envoy, &it.ours),
        Some((_, fact)) => is_next(fact),
        None => false,
    }
}

/// Whether Envoy has the scheme twice: it puts it back beside itself where a redirect led nowhere.
pub(super) fn has_scheme_twice(it: &Difference, case: &Case<'_>) -> bool {
    let twice = |scheme: &&str| {
        it.ours.ends_with(&format!(" {scheme}")) && it.envoy == format!("{},{scheme}", it.ours)
    };
    it.fact.starts_with("header x-")
        && ["http", "https"].iter().any(twice)
        && is_sent_elsewhere(case)
}

/// The route for a path of this kind, by its number.
fn route<'a>(case: &Case<'a>, path: &str) -> &'a Value {
    let host = &case.config.source.manager["route_config"]["virtual_hosts"][0];
    let path = path.strip_prefix("/r").unwrap_or_default();
    let digits = path.chars().take_while(char::is_ascii_digit).count();
    let number = path[..digits].parse().unwrap_or(usize::MAX);
    &host["routes"][number]
}

/// Where the answers of a script lead.
fn place(call: &Call) -> Option<(&str, &str)> {
    let (_, rest) = call.header("x-location")?.split_once("://")?;
    let (authority, path) = rest.split_at(rest.find('/')?);
    Some((authority, path.split('#').next().unwrap_or(path)))
}

/// Whether a route names this cluster, or leaves it to a header.
fn leads_to(route: &Value, cluster: &str) -> bool {
    let to = &route["route"];
    let name = cluster.rsplit('.').next().unwrap_or(cluster);
    let by_header = |to: &Value| !to["cluster_header"].is_null();
    let parts = to["weighted_clusters"]["clusters"].as_array();
    by_header(to)
        || parts.into_iter().flatten().any(by_header)
        || to.to_string().contains(&format!("\"${name}\""))
}

/// The values of a header without those that are a route or a cluster.
fn rest(values: &str) -> Vec<&str> {
    let tells = |it: &str| it.starts_with("v0r") || it.starts_with("c0");
    let tells = |it: &&str| it.is_empty() || tells(it) || *it == "(none)";
    values.split(" | ").filter(|it| !tells(it)).collect()
}

fn is_several_times(more: &str, once: &str) -> bool {
    let numbers = more.parse::<u64>().ok().zip(once.parse::<u64>().ok());
    numbers.is_some_and(|(more, once)| once > 0 && more > once && more % once == 0)
}
