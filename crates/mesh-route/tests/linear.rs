//! The compiled table decides as a scan in order does, on random tables and requests.
//!
//! Each case is a random table with 500 random requests; every strategy aims at another part of
//! the index. The scan here is written from the model's documentation and shares no code with the
//! crate but for conditions other than the path, which tables in the crate's own tests cover.

use http::{HeaderName, HeaderValue, Method, Request};
use mesh_core::Rng;
use mesh_core::model::{
    Action, Condition, Fraction, HeaderKey, HeaderMatch, PathMatch, PathTemplate, Pattern,
    QueryMatch, RouteTable, Rule, StringMatch, ValueMatch, VirtualHost,
};
use mesh_route::{Head, explain, find, prepare};
use proptest::prelude::*;
use proptest::sample::select;
use std::ops::Range;

/// A scan over domains and rules.
fn scan(table: &RouteTable, request: &Request<()>, word: u64) -> Option<(usize, usize)> {
    let host = scan_domains(table, request)?;
    let rules = &table.virtual_hosts[host].rules;
    let rule = rules.iter().position(|rule| {
        path_matches(&rule.condition.path, request) && rest_matches(&rule.condition, request, word)
    })?;
    Some((host, rule))
}

fn scan_domains(table: &RouteTable, request: &Request<()>) -> Option<usize> {
    let authority = request
        .uri()
        .authority()
        .map(|authority| authority.as_str());
    let authority = authority.unwrap_or_default().to_lowercase();
    let host = match authority.split_once(':') {
        Some((host, _)) if table.ignore_port => host.to_owned(),
        _ => authority,
    };
    // The best by (kind, length of what is fixed).
    let mut best: Option<((u8, usize), usize)> = None;
    for (index, virtual_host) in table.virtual_hosts.iter().enumerate() {
        for domain in &virtual_host.domains {
            let rank = match domain.as_str() {
                "*" => (0, 0),
                exact if exact == host => (3, 0),
                domain => match (domain.strip_prefix('*'), domain.strip_suffix('*')) {
                    (Some(suffix), _) if host.ends_with(suffix) && host != suffix => {
                        (2, suffix.len())
                    }
                    (None, Some(prefix)) if host.starts_with(prefix) && host != prefix => {
                        (1, prefix.len())
                    }
                    _ => continue,
                },
            };
            if best.is_none_or(|(known, _)| rank > known) {
                best = Some((rank, index));
            }
        }
    }
    best.map(|(_, index)| index)
}

fn path_matches(want: &PathMatch, request: &Request<()>) -> bool {
    let path = request.uri().path().to_owned();
    let (lower, separated) = (path.to_lowercase(), |prefix: &str, path: &str| {
        path == prefix || path.starts_with(&format!("{prefix}/"))
    });
    match want {
        PathMatch::Prefix(prefix) => path.starts_with(prefix),
        PathMatch::Exact(exact) => path == *exact,
        PathMatch::SeparatedPrefix(prefix) => separated(prefix, &path),
        PathMatch::PrefixIgnoreCase(prefix) => lower.starts_with(&prefix.to_lowercase()),
        PathMatch::ExactIgnoreCase(exact) => lower == exact.to_lowercase(),
        PathMatch::SeparatedPrefixIgnoreCase(prefix) => separated(&prefix.to_lowercase(), &lower),
        PathMatch::Regex(pattern) => pattern.is_match(path.as_bytes()),
        PathMatch::Connect => request.method() == Method::CONNECT,
        PathMatch::Template(template) => is_of(template.as_str().as_bytes(), path.as_bytes()),
        other => panic!("unknown to this test: {other:?}"),
    }
}

/// Tries every length that a wildcard may have.
fn is_of(template: &[u8], path: &[u8]) -> bool {
    let tried = |rest: &[u8], lengths: std::ops::RangeInclusive<usize>| {
        lengths
            .into_iter()
            .any(|length| is_of(rest, &path[length..]))
    };
    let segment = path.iter().take_while(|byte| **byte != b'/').count();
    match template {
        [b'*', b'*', rest @ ..] => tried(rest, 0..=path.len()),
        [b'*', rest @ ..] | [b'{', b'x', b'}', rest @ ..] => tried(rest, 1..=segment),
        [first, rest @ ..] => path.first() == Some(first) && is_of(rest, &path[1..]),
        [] => path.is_empty(),
    }
}

/// The other conditions, by a table whose only rule has them and every path.
fn rest_matches(condition: &Condition, request: &Request<()>, word: u64) -> bool {
    let mut condition = condition.clone();
    condition.path = PathMatch::Prefix(String::new());
    if condition == any_path() {
        return true;
    }
    let rule = Rule::new(condition, Action::default());
    let table = RouteTable::new("one").host(VirtualHost::new("all", ["*"]).rule(rule));
    find(&table, &Head::of(request), word).is_some()
}

fn any_path() -> Condition {
    let mut condition = Condition::default();
    condition.path = PathMatch::Prefix(String::new());
    condition
}

/// Paths over a small alphabet, so that they often share prefixes.
fn path() -> impl Strategy<Value = String> {
    "(/[abAB]{0,2}){0,4}"
}

fn path_match() -> impl Strategy<Value = PathMatch> {
    prop_oneof![
        4 => path().prop_map(PathMatch::Prefix),
        4 => path().prop_map(PathMatch::Exact),
        2 => path().prop_map(PathMatch::SeparatedPrefix),
        1 => path().prop_map(PathMatch::PrefixIgnoreCase),
        1 => path().prop_map(PathMatch::ExactIgnoreCase),
        1 => path().prop_map(PathMatch::SeparatedPrefixIgnoreCase),
        1 => regex(),
        1 => template(),
        1 => Just(PathMatch::Connect),
    ]
}

fn template() -> impl Strategy<Value = PathMatch> {
    "(/([abAB]{1,2}|\\*)){0,3}(/\\{x\\}|/\\*\\*|/\\*\\*/a|/\\*b|/)"
        .prop_map(|text| PathMatch::Template(PathTemplate::new(text).unwrap()))
}

fn regex() -> impl Strategy<Value = PathMatch> {
    let known = select(vec![
        "/a.*", "/[ab]+/b", "(/a)*", ".*b", "(?i)/a", "/a|/b", "",
    ]);
    let known = known.prop_map(str::to_owned);
    prop_oneof![known, "(/[ab]{0,2}|/[ab]\\+|/\\.\\*){0,4}"]
        .prop_map(|source| PathMatch::Regex(Pattern::new(&source).unwrap()))
}

fn header_match() -> impl Strategy<Value = HeaderMatch> {
    let key = select(vec![
        HeaderKey::Method,
        HeaderKey::Authority,
        HeaderKey::Path,
        HeaderKey::Header(HeaderName::from_static("x-a")),
    ]);
    let value = prop_oneof![
        "[ab]{1,2}".prop_map(|text| ValueMatch::Text(StringMatch::Exact(text))),
        "[ab]".prop_map(|text| ValueMatch::Text(StringMatch::Contains(text))),
        any::<bool>().prop_map(ValueMatch::Present),
    ];
    (key, value, any::<bool>(), any::<bool>()).prop_map(|(key, value, invert, missing_is_empty)| {
        HeaderMatch {
            key,
            value,
            invert,
            missing_is_empty,
        }
    })
}

fn conditions() -> impl Strategy<Value = Condition> {
    let query = prop::option::weighted(0.1, "[ab]?").prop_map(|value| {
        let name = "q".to_owned();
        value.map(|value| QueryMatch {
            name,
            value: ValueMatch::Text(StringMatch::Exact(value)),
        })
    });
    (
        path_match(),
        prop::collection::vec(header_match(), 0..2),
        query,
        prop::option::weighted(0.2, (0..=1_000_000_u32).prop_map(Fraction::millionths)),
        prop::bool::weighted(0.05),
    )
        .prop_map(|(path, headers, query, share, grpc)| {
            let mut condition = Condition::default();
            condition.path = path;
            condition.headers = headers;
            condition.query = query.into_iter().collect();
            condition.share = share;
            condition.grpc = grpc;
            condition
        })
}

fn host(name: String, domains: Vec<String>, conditions: Vec<Condition>) -> VirtualHost {
    conditions
        .into_iter()
        .map(|condition| Rule::new(condition, Action::default()))
        .fold(VirtualHost::new(name, domains), VirtualHost::rule)
}

/// Requests that follow from a seed. Strategies of their own would take most of the time.
fn requests(seed: u64) -> Vec<(Request<()>, u64)> {
    let rng = Rng::with_seed(seed);
    (0..500).map(|_| (request(&rng), rng.word())).collect()
}

fn request(rng: &Rng) -> Request<()> {
    let below = |limit: u64| rng.word() % limit;
    let word = |most: u64, letters: &str| -> String {
        let letters: Vec<char> = letters.chars().collect();
        (0..below(most + 1))
            .map(|_| letters[below(letters.len() as u64) as usize])
            .collect()
    };
    let mut authority = format!("a{}", word(2, "abAB"));
    for _ in 0..below(3) {
        authority = format!(
            "{}{}{authority}",
            word(2, "abA"),
            [".", "-"][below(2) as usize]
        );
    }
    // A label may not begin with a dash for every reader of URIs.
    authority.insert_str(0, ["a", "b"][below(2) as usize]);
    if below(3) == 0 {
        authority.push_str(":80");
    }
    let path: String = (0..below(5))
        .map(|_| format!("/{}", word(2, "abAB")))
        .collect();
    let query = match below(3) {
        0 => format!("?{}{}", ["", "q="][below(2) as usize], word(3, "ab&q")),
        _ => String::new(),
    };
    let method = if below(10) == 0 {
        Method::CONNECT
    } else {
        Method::GET
    };
    let uri = format!("http://{authority}/{}{query}", path.trim_start_matches('/'));
    let mut request = Request::builder().method(method).uri(uri).body(()).unwrap();
    for _ in 0..below(3) {
        let value = HeaderValue::try_from(word(2, "ab")).unwrap();
        request.headers_mut().append("x-a", value);
    }
    request
}

fn agree(table: &RouteTable, requests: &[(Request<()>, u64)]) -> Result<(), TestCaseError> {
    for (request, word) in requests {
        let head = Head::of(request);
        let found = find(table, &head, *word);
        let context = || format!("{} {} in {table:#?}", request.method(), request.uri());
        prop_assert_eq!(found, scan(table, request, *word), "{}", context());
        let explanation = explain(table, &head, *word);
        prop_assert_eq!(explanation.found(), found, "{}\n{}", explanation, context());
        let considered: Vec<usize> = explanation.rules.iter().map(|rule| rule.rule).collect();
        let expected: Vec<usize> = (0..considered.len()).collect();
        prop_assert_eq!(considered, expected, "every rule up to the last, in order");
    }
    Ok(())
}

/// How many tables: `PROPTEST_CASES` for a longer run.
fn tables(number: u32) -> ProptestConfig {
    match std::env::var("PROPTEST_CASES") {
        Ok(_) => ProptestConfig::default(),
        Err(_) => ProptestConfig::with_cases(number),
    }
}

proptest! {
    #![proptest_config(tables(250))]

    #[test]
    fn rules_with_all_kinds_of_conditions(
        conditions in prop::collection::vec(conditions(), 0..20),
        seed: u64,
    ) {
        let table = RouteTable::new("t").host(host("all".into(), vec!["*".into()], conditions));
        agree(&table, &requests(seed))?;
    }

    #[test]
    fn many_rules_with_paths_alone(
        paths in prop::collection::vec(path_match(), 50..120),
        seed: u64,
    ) {
        let conditions = paths.into_iter().map(|path| {
            let mut condition = Condition::default();
            condition.path = path;
            condition
        });
        let all = host("all".into(), vec!["*".into()], conditions.collect());
        agree(&RouteTable::new("t").host(all), &requests(seed))?;
    }

    #[test]
    fn many_domains(
        domains in prop::collection::hash_set(
            prop_oneof![
                "[ab]{1,2}(\\.[ab]{1,2}){0,2}(:80)?",
                "\\*(\\.|-)?[ab]{1,2}(\\.[ab]{1,2})?(:80)?",
                "[ab]{1,2}(\\.[ab]{1,2})?\\.?\\*",
                Just("*".to_owned()),
            ],
            1..24,
        ),
        ignore_port: bool,
        seed: u64,
    ) {
        let mut table = RouteTable::new("t");
        for domain in domains {
            table = table.host(host(domain.clone(), vec![domain], vec![any_path()]));
        }
        table.ignore_port = ignore_port;
        agree(&table, &requests(seed))?;
    }

    #[test]
    fn nested_prefixes_beyond_what_is_merged(
        depths in prop::collection::vec(0_usize..40, 1..60),
        requested in prop::collection::vec(0_usize..50, 1..20),
    ) {
        let conditions = depths.iter().map(|depth| {
            let mut condition = Condition::default();
            condition.path = PathMatch::Prefix("/a".repeat(*depth));
            condition
        });
        let table = RouteTable::new("t")
            .host(host("all".into(), vec!["*".into()], conditions.collect()));
        let requests: Vec<(Request<()>, u64)> = requested
            .iter()
            .map(|depth| {
                let uri = format!("http://a{}", "/a".repeat(*depth));
                (Request::get(uri).body(()).unwrap(), 0)
            })
            .collect();
        agree(&table, &requests)?;
    }
}

#[test]
fn preparing_a_snapshot_compiles_every_table() {
    let mut builder = mesh_core::model::SnapshotBuilder::new();
    let all = VirtualHost::new("all", ["*"]).rule(Rule::prefix_to("/", "a"));
    builder.routes(RouteTable::new("t").host(all));
    let (snapshot, _) = builder.build().unwrap();
    prepare(&snapshot);
    let table = &snapshot.tables()[0];
    assert_eq!(format!("{:?}", table.slot), "Slot(made)");
    assert_eq!(format!("{:?}", table.virtual_hosts[0].slot), "Slot(made)");
}

/// So many that they are tried together, in one group or in several.
fn mostly_regexes(number: Range<usize>) -> impl Strategy<Value = Vec<PathMatch>> {
    prop::collection::vec(prop_oneof![4 => regex(), 1 => path_match()], number)
}

proptest! {
    #![proptest_config(tables(40))]

    #[test]
    fn regular_expressions_that_are_tried_together(
        paths in prop_oneof![3 => mostly_regexes(4..60), 1 => mostly_regexes(150..260)],
        seed: u64,
    ) {
        let conditions = paths.into_iter().map(|path| {
            let mut condition = Condition::default();
            condition.path = path;
            condition
        });
        let all = host("all".into(), vec!["*".into()], conditions.collect());
        agree(&RouteTable::new("t").host(all), &requests(seed))?;
    }
}
