//! Route tables of every shape, in the form in which they are read back.

use http::{HeaderName, HeaderValue, StatusCode};
use mesh_core::model::{
    AbortWith, Action, AddMode, AuthorityRewrite, Cidr, ClustersOnDemand, Condition, CookieMatch,
    Cors, DelayBy, DirectResponse, Draw, Fault, FaultAbort, FaultDelay, FaultSlow,
    FilterObjectMatch, FilterStateMatch, FollowRedirects, Forward, Fraction, HashCookie,
    HashPolicy, HashSource, HeaderAdd, HeaderChanges, HeaderEdits, HeaderKey, HeaderMatch,
    HeaderTemplate, Hedge, HostsOnDemand, Mirror, PathMatch, PathRewrite, PathTemplate, Pattern,
    Piece, Priority, QueryMatch, RateLimit, Redirect, RedirectPath, RedirectTarget, ResetFormat,
    ResetHeader, Retry, RetryOn, RouteSession, RouteTable, Rule, Session, SessionState, SlowBy,
    StringMatch, Target, TemplateRewrite, TlsCondition, ValueMatch, VirtualHost, Weighted,
};
use mesh_core::{Name, Origin};
use proptest::collection::{btree_map, vec};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

pub(crate) fn table() -> impl Strategy<Value = RouteTable> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    // Zero is no limit.
    let on_demand = of(of(some_time()));
    (
        name(),
        vec(host(), 0..3),
        flags,
        edits(),
        edits(),
        on_demand,
    )
        .prop_map(
            |(name, hosts, flags, request_edits, response_edits, on_demand)| {
                let mut table = RouteTable::new(name);
                table.on_demand = on_demand.map(|wait| HostsOnDemand {
                    table: table.name.clone(),
                    wait,
                });
                for (at, mut host) in hosts.into_iter().enumerate() {
                    // Domains are unique over a table.
                    let unique = |domain: &Name| Name::from(format!("{domain}.{at}.example"));
                    host.domains = host.domains.iter().map(unique).collect();
                    table.virtual_hosts.push(Arc::new(host));
                }
                (
                    table.ignore_port,
                    table.validate_clusters,
                    table.most_specific_edits_win,
                ) = flags;
                table.request_edits = request_edits;
                table.response_edits = response_edits;
                table
            },
        )
}

fn host() -> impl Strategy<Value = VirtualHost> {
    let policies = (
        of(retry()),
        of(cors()),
        any::<bool>(),
        any::<bool>(),
        of(on_demand()),
        any::<bool>(),
    );
    (
        name(),
        1..4_usize,
        vec(rule().boxed(), 0..4),
        policies,
        edits(),
        edits(),
    )
        .prop_map(
            |(name, domains, rules, policies, request_edits, response_edits)| {
                let mut host = VirtualHost::new(name, (0..domains).map(|at| format!("*.d{at}")));
                host.rules = rules.into_iter().map(Arc::new).collect();
                host.retry = policies.0.map(Arc::new);
                host.cors = policies.1.map(Arc::new);
                (host.require_tls, host.count_attempts) = (policies.2, policies.3);
                host.count_attempts_in_response = policies.5;
                host.on_demand = policies.4;
                host.request_edits = request_edits;
                host.response_edits = response_edits;
                host
            },
        )
}

/// Timeouts, retries and copies belong to rules that forward.
fn rule() -> impl Strategy<Value = Rule> {
    let action = prop_oneof![
        3 => forwarding().boxed(),
        1 => redirect().prop_map(|to| with_action(Action::Redirect(to))),
        1 => response().prop_map(|with| with_action(Action::Respond(with))),
    ];
    let filters = (
        of(fault()),
        of(cors()),
        of(rate_limit()),
        of(on_demand()),
        of(route_session()),
    );
    let names = (maybe_name(), maybe_name(), maybe_name());
    // Boxed, or they would not fit on the stack of a test.
    (
        action,
        condition().boxed(),
        filters,
        names,
        edits(),
        edits(),
    )
        .prop_map(
            |(mut rule, condition, filters, names, request_edits, response_edits)| {
                rule.condition = condition;
                by_template(&mut rule);
                rule.fault = filters.0.map(Arc::new);
                rule.cors = filters.1.map(Arc::new);
                rule.rate_limit = filters.2.map(Arc::new);
                rule.on_demand = filters.3;
                rule.session = filters.4;
                (rule.name, rule.operation, rule.stat_prefix) = names;
                rule.request_edits = request_edits;
                rule.response_edits = response_edits;
                rule
            },
        )
}

/// Paths of a template are rewritten by its names, and by none other.
fn by_template(rule: &mut Rule) {
    let PathMatch::Template(template) = &rule.condition.path else {
        return;
    };
    let with = TEMPLATES
        .iter()
        .find(|(text, _)| *text == template.as_str());
    let with = TemplateRewrite::new(with.unwrap().1).unwrap();
    if let Action::Forward(forward) = &mut rule.action
        && let PathRewrite::Prefix(_) = forward.path
    {
        forward.path = PathRewrite::Template(with);
    }
}

fn on_demand() -> impl Strategy<Value = ClustersOnDemand> {
    prop_oneof![
        Just(ClustersOnDemand::Off),
        time().prop_map(ClustersOnDemand::Within),
    ]
}

fn with_action(action: Action) -> Rule {
    Rule::new(Condition::default(), action)
}

fn forwarding() -> impl Strategy<Value = Rule> {
    let limits = (of(some_time()), of(time()), of(time()), of(time()), time());
    let further = (of(any::<bool>()), of(follow()));
    (
        forward().boxed(),
        limits,
        of(retry().boxed()),
        vec(mirror(), 0..3),
        further,
    )
        .prop_map(|(forward, limits, retry, mirrors, (hedge, follow))| {
            let mut rule = with_action(Action::Forward(forward));
            (
                rule.timeout,
                rule.idle_timeout,
                rule.max_stream_duration,
                rule.max_grpc_timeout,
                rule.grpc_timeout_offset,
            ) = limits;
            rule.retry = retry.map(Arc::new);
            rule.mirrors = mirrors;
            rule.hedge = hedge.map(|on_try_timeout| Hedge { on_try_timeout });
            rule.follow = follow.map(Arc::new);
            rule
        })
}

fn follow() -> impl Strategy<Value = FollowRedirects> {
    let statuses = subsequence(vec![301_u16, 302, 303, 307, 308], 0..=5);
    let target = prop_oneof![
        Just(RedirectTarget::NotPrevious),
        Just(RedirectTarget::SafeScheme),
        vec("[a-z]{1,5}", 0..3)
            .prop_map(|names| RedirectTarget::Named(names.iter().map(Name::from).collect())),
    ];
    let copied = subsequence(vec!["x-a", "x-b", "cookie"], 0..=3);
    (0..5_u32, statuses, any::<bool>(), vec(target, 0..3), copied).prop_map(
        |(most, statuses, other_scheme, targets, copied)| {
            let status = |code: &u16| StatusCode::from_u16(*code).unwrap();
            let mut follow = FollowRedirects::default();
            follow.most = most;
            follow.statuses = statuses.iter().map(status).collect();
            follow.other_scheme = other_scheme;
            follow.targets = targets;
            follow.copy_headers = copied.into_iter().map(HeaderName::from_static).collect();
            follow
        },
    )
}

fn header_match() -> impl Strategy<Value = HeaderMatch> {
    (header_key(), value(true), any::<bool>(), any::<bool>()).prop_map(
        |(key, value, invert, missing_is_empty)| HeaderMatch {
            key,
            value,
            invert,
            missing_is_empty,
        },
    )
}

/// Templates of paths, and a rewrite by the names of each.
const TEMPLATES: [(&str, &str); 4] = [
    ("/", "/x"),
    ("/{a}/*", "/{a}"),
    ("/{a=x/*}/{b=**}", "/{b}/y{a}"),
    ("/img/{n}.png", "/{n}{n}"),
];

fn condition() -> impl Strategy<Value = Condition> {
    let header = header_match();
    let query = (text(), value(false)).prop_map(|(name, value)| QueryMatch { name, value });
    let path = prop_oneof![
        "/[ -~]{0,8}".prop_map(PathMatch::Prefix),
        "/[ -~]{0,8}".prop_map(PathMatch::PrefixIgnoreCase),
        "/[ -~]{0,8}".prop_map(PathMatch::Exact),
        "/[ -~]{0,8}".prop_map(PathMatch::ExactIgnoreCase),
        "/[a-z]{1,8}".prop_map(PathMatch::SeparatedPrefix),
        "/[a-z]{1,8}".prop_map(PathMatch::SeparatedPrefixIgnoreCase),
        pattern().prop_map(PathMatch::Regex),
        Just(PathMatch::Connect),
        select(TEMPLATES.to_vec())
            .prop_map(|(text, _)| PathMatch::Template(PathTemplate::new(text).unwrap())),
    ];
    let cookie = (name(), string_match(), any::<bool>());
    let cookie = cookie.prop_map(|(name, value, invert)| CookieMatch {
        name,
        value,
        invert,
    });
    let flag = || of(any::<bool>());
    let tls = (flag(), flag()).prop_map(|(presented, validated)| TlsCondition {
        presented,
        validated,
    });
    (
        path,
        vec(header, 0..3),
        vec(query, 0..3),
        any::<bool>(),
        of(share()),
        (vec(cookie, 0..3), of(tls), vec(filter_state(), 0..3)),
    )
        .prop_map(
            |(path, headers, query, grpc, share, (cookies, tls, kept))| {
                let mut condition = Condition::default();
                condition.path = path;
                condition.headers = headers;
                condition.query = query;
                condition.cookies = cookies;
                condition.tls = tls;
                condition.filter_state = kept;
                condition.grpc = grpc;
                condition.share = share;
                condition
            },
        )
}

fn filter_state() -> impl Strategy<Value = FilterStateMatch> {
    let block = (any::<IpAddr>(), 0..=32_u8);
    let block = block.prop_map(|(address, length)| Cidr::new(address, length).unwrap());
    let blocks = vec(block, 0..3);
    let value = prop_oneof![
        string_match().prop_map(FilterObjectMatch::Text),
        blocks.clone().prop_map(FilterObjectMatch::In),
        blocks.prop_map(FilterObjectMatch::NotIn),
    ];
    (name(), value).prop_map(|(key, value)| FilterStateMatch { key, value })
}

fn header_key() -> impl Strategy<Value = HeaderKey> {
    prop_oneof![
        Just(HeaderKey::Method),
        Just(HeaderKey::Authority),
        Just(HeaderKey::Scheme),
        Just(HeaderKey::Path),
        header_name().prop_map(HeaderKey::Header),
    ]
}

/// Only headers have ranges.
fn value(ranges: bool) -> impl Strategy<Value = ValueMatch> {
    prop_oneof![
        3 => string_match().prop_map(ValueMatch::Text),
        1 => any::<bool>().prop_map(ValueMatch::Present),
        u32::from(ranges) => (any::<i64>(), any::<i64>())
            .prop_map(|(start, end)| ValueMatch::Range(start, end)),
    ]
}

fn string_match() -> impl Strategy<Value = StringMatch> {
    prop_oneof![
        ".{0,6}".prop_map(StringMatch::Exact),
        ".{0,6}".prop_map(StringMatch::ExactIgnoreCase),
        text().prop_map(StringMatch::Prefix),
        text().prop_map(StringMatch::PrefixIgnoreCase),
        text().prop_map(StringMatch::Suffix),
        text().prop_map(StringMatch::SuffixIgnoreCase),
        text().prop_map(StringMatch::Contains),
        text().prop_map(StringMatch::ContainsIgnoreCase),
        pattern().prop_map(StringMatch::Regex),
    ]
}

fn forward() -> impl Strategy<Value = Forward> {
    let to = prop_oneof![
        name().prop_map(|name| Target::Cluster(name, Origin::NONE)),
        header_name().prop_map(Target::Header),
        // The sum of the weights is not zero.
        (weighted(1).boxed(), vec(weighted(0).boxed(), 0..3)).prop_map(|(first, mut rest)| {
            rest.push(first);
            Target::Weighted(rest)
        }),
    ];
    let path = prop_oneof![
        Just(PathRewrite::Keep),
        text().prop_map(PathRewrite::Prefix),
        (pattern(), maybe_text()).prop_map(|(pattern, with)| PathRewrite::Regex(pattern, with)),
    ];
    let authority = prop_oneof![
        name().prop_map(AuthorityRewrite::Literal),
        Just(AuthorityRewrite::FromEndpoint),
        header_name().prop_map(AuthorityRewrite::FromHeader),
        (pattern(), maybe_text()).prop_map(|(it, with)| AuthorityRewrite::FromPath(it, with)),
    ];
    let not_found = select(vec![
        StatusCode::NOT_FOUND,
        StatusCode::INTERNAL_SERVER_ERROR,
    ]);
    let priority = select(vec![Priority::Default, Priority::High]);
    let upgrades = btree_map("[a-z]{1,6}", any::<bool>(), 0..3);
    let balanced = (
        vec(hash_policy(), 0..3),
        subset(),
        any::<bool>(),
        draw(),
        priority,
        upgrades,
    );
    (to, path, of(authority), of(not_found), balanced).prop_map(
        |(to, path, authority, not_found, balanced)| {
            let mut forward = Forward::default();
            forward.to = to;
            forward.path = path;
            forward.authority = authority.map(Box::new);
            forward.not_found = not_found;
            (
                forward.hash,
                forward.subset,
                forward.append_forwarded_host,
                forward.draw,
                forward.priority,
                _,
            ) = balanced.clone();
            let upgrades = balanced.5.into_iter();
            forward.upgrades = upgrades.map(|(name, on)| (name.into(), on)).collect();
            if !matches!(forward.to, Target::Weighted(_)) {
                forward.draw = Draw::Random;
            }
            // Refused together: the balancer's name for a host comes after that is done.
            let by_endpoint = Some(AuthorityRewrite::FromEndpoint);
            forward.append_forwarded_host &= forward.authority.as_deref() != by_endpoint.as_ref();
            forward
        },
    )
}

fn draw() -> impl Strategy<Value = Draw> {
    prop_oneof![
        Just(Draw::Random),
        header_name().prop_map(|name| Draw::Header(name.into())),
        Just(Draw::Hash),
    ]
}

fn cookie() -> impl Strategy<Value = HashCookie> {
    let attribute = (name(), maybe_name());
    (name(), of(time()), maybe_name(), vec(attribute, 0..3)).prop_map(
        |(name, ttl, path, attributes)| {
            let mut cookie = HashCookie::default();
            cookie.name = name;
            cookie.ttl = ttl;
            cookie.path = path;
            cookie.attributes = attributes;
            cookie
        },
    )
}

fn route_session() -> impl Strategy<Value = RouteSession> {
    prop_oneof![
        Just(RouteSession::Off),
        session().prop_map(|session| RouteSession::Instead(Arc::new(session))),
    ]
}

fn session() -> impl Strategy<Value = Session> {
    let state = prop_oneof![
        cookie().prop_map(SessionState::Cookie),
        header_name().prop_map(SessionState::Header),
        header_name().prop_map(SessionState::Envelope),
    ];
    let status = of(200_u16..600);
    (of(state), status, any::<bool>(), maybe_name()).prop_map(
        |(state, status, strict, stat_prefix)| {
            let mut session = Session::default();
            session.state = state;
            session.strict = strict;
            session.stat_prefix = stat_prefix;
            if let Some(status) = status.filter(|_| strict) {
                session.missing_status = StatusCode::from_u16(status).unwrap();
            }
            session
        },
    )
}

fn hash_policy() -> impl Strategy<Value = HashPolicy> {
    let rewrite = of((pattern(), maybe_text()));
    let cookie = cookie().prop_map(HashSource::Cookie);
    let source = prop_oneof![
        (header_name(), rewrite).prop_map(|(name, rewrite)| HashSource::Header(name, rewrite)),
        cookie,
        Just(HashSource::SourceIp),
        name().prop_map(HashSource::Query),
        name().prop_map(HashSource::FilterState),
    ];
    (source, any::<bool>()).prop_map(|(source, terminal)| {
        let mut policy = HashPolicy::new(source);
        policy.terminal = terminal;
        policy
    })
}

/// Names and values as JSON in its one form.
fn subset() -> impl Strategy<Value = BTreeMap<Name, Name>> {
    let value = select(vec!["\"v1\"", "true", "-0.5", "[1,{\"a\":null}]"]);
    btree_map(name(), value.prop_map(Name::from), 0..3)
}

fn weighted(least: u32) -> impl Strategy<Value = Weighted> {
    let host = of("[a-z.]{1,8}(:80)?");
    let named = prop_oneof![
        3 => name().prop_map(|name| (name, None)),
        1 => header_name().prop_map(|header| (Name::default(), Some(header))),
    ];
    (named, least..1000, edits(), edits(), host, subset()).prop_map(
        |(named, weight, request_edits, response_edits, host, subset)| {
            let mut part = Weighted::default();
            (part.cluster, part.cluster_header) = named;
            part.weight = weight;
            part.subset = subset;
            part.request_edits = request_edits;
            part.response_edits = response_edits;
            if let Some(host) = host {
                part.request_edits.add.push(HeaderAdd {
                    name: http::header::HOST,
                    value: HeaderTemplate::Fixed(HeaderValue::try_from(host).unwrap()),
                    mode: AddMode::Overwrite,
                    keep_empty: false,
                });
            }
            part
        },
    )
}

fn redirect() -> impl Strategy<Value = Redirect> {
    let path = prop_oneof![
        Just(RedirectPath::Keep),
        text().prop_map(RedirectPath::Full),
        text().prop_map(RedirectPath::Prefix),
        (pattern(), maybe_text()).prop_map(|(pattern, with)| RedirectPath::Regex(pattern, with)),
    ];
    let code = select(vec![301_u16, 302, 303, 307, 308]);
    let place = (of(name()), of(name()), of(1..=u16::MAX));
    (code, place, path, any::<bool>()).prop_map(|(code, place, path, strip_query)| {
        let mut redirect = Redirect::default();
        redirect.code = code;
        (redirect.scheme, redirect.host, redirect.port) = place;
        redirect.path = path;
        redirect.strip_query = strip_query;
        redirect
    })
}

fn response() -> impl Strategy<Value = DirectResponse> {
    let body = prop_oneof![
        20 => ".{0,8}".prop_map(String::into_bytes),
        20 => vec(any::<u8>(), 0..8),
        // More than istiod's limit, and so more than a table allows unless it says so.
        1 => Just(vec![b'a'; (1 << 20) + 1]),
    ];
    (status(200), body).prop_map(|(status, body)| {
        let mut answer = DirectResponse::default();
        answer.status = status;
        answer.body = body.into();
        answer
    })
}

fn retry() -> impl Strategy<Value = Retry> {
    let names = RetryOn::NAMES.map(|(_, bit)| bit).to_vec();
    let on = subsequence(names, 0..=RetryOn::NAMES.len())
        .prop_map(|bits| bits.into_iter().fold(RetryOn::default(), RetryOn::with));
    let times = (of(some_time()), of(some_time()));
    let back_off = prop_oneof![
        Just((Duration::from_millis(25), Duration::from_millis(250))),
        some_time().prop_map(|base| (base, base * 10)),
        (some_time(), time()).prop_map(|(base, more)| (base, base + more)),
    ];
    let hosts = (any::<bool>(), 1_u32.., any::<bool>());
    (
        any::<u32>(),
        on,
        vec(any::<u16>(), 0..3),
        times,
        back_off,
        hosts,
        of_headers(),
        (any::<bool>(), vec(subset(), 0..3)),
    )
        .prop_map(
            |(attempts, on, status_codes, times, back_off, hosts, headers, avoided)| {
                let mut retry = Retry::default();
                retry.attempts = attempts;
                retry.on = on;
                retry.status_codes = status_codes;
                (retry.per_try_timeout, retry.per_try_idle_timeout) = times;
                (retry.backoff_base, retry.backoff_max) = back_off;
                (
                    retry.avoid_previous_hosts,
                    retry.host_attempts,
                    retry.other_priorities,
                ) = hosts;
                (
                    retry.headers,
                    retry.request_headers,
                    retry.resets,
                    retry.reset_max,
                ) = headers;
                (retry.avoid_canaries, retry.avoid_metadata) = avoided;
                retry
            },
        )
}

type OfHeaders = (
    Vec<HeaderMatch>,
    Vec<HeaderMatch>,
    Vec<ResetHeader>,
    Duration,
);

/// What a policy says of headers.
fn of_headers() -> impl Strategy<Value = OfHeaders> {
    let of_answers = vec((header_name(), header_match()), 0..3).prop_map(|all| {
        let named = |(name, header)| HeaderMatch {
            key: HeaderKey::Header(name),
            ..header
        };
        all.into_iter().map(named).collect::<Vec<_>>()
    });
    let format = prop_oneof![Just(ResetFormat::Seconds), Just(ResetFormat::UnixTimestamp)];
    let reset = (header_name(), format).prop_map(|(name, format)| ResetHeader { name, format });
    let resets = prop_oneof![
        Just((Vec::new(), Duration::from_secs(300))),
        (vec(reset, 1..3), some_time()),
    ];
    (of_answers, vec(header_match(), 0..3), resets)
        .prop_map(|(answers, requests, (resets, most))| (answers, requests, resets, most))
}

fn fault() -> impl Strategy<Value = Fault> {
    // A share is as many of the unit as there are, and of nothing else.
    let of_unit = || {
        let unit = select(vec![10_000_u32, 100, 1]);
        unit.prop_flat_map(|unit| {
            let share = (0..=1_000_000 / unit).prop_map(move |n| Fraction::millionths(n * unit));
            (Just(Fraction::millionths(unit)), share)
        })
    };
    let delay = prop_oneof![
        (some_time().prop_map(DelayBy::Fixed), share()),
        of_unit().prop_map(|(unit, share)| (DelayBy::Header(unit), share)),
    ];
    let delay = delay.prop_map(|(by, share)| FaultDelay { by, share });
    let abort = prop_oneof![
        (status(200).prop_map(AbortWith::Http), share()),
        (any::<u32>().prop_map(AbortWith::Grpc), share()),
        of_unit().prop_map(|(unit, share)| (AbortWith::Header(unit), share)),
    ];
    let abort = abort.prop_map(|(with, share)| FaultAbort { with, share });
    let slow = prop_oneof![
        ((1..=u64::MAX).prop_map(fixed_rate), share()),
        of_unit().prop_map(|(unit, share)| (SlowBy::Header(unit), share)),
    ];
    let slow = slow.prop_map(|(by, share)| FaultSlow { by, share });
    let slow = (of(slow.boxed()), of(any::<u32>().boxed()));
    let only = (maybe_name(), vec(header_match(), 0..2), vec(name(), 0..2));
    let all = (of(delay.boxed()), of(abort.boxed()), slow, only);
    all.prop_map(|(delay, abort, slow, only)| {
        let mut fault = Fault::default();
        fault.delay = delay;
        fault.abort = abort;
        (fault.slow, fault.max_active) = slow;
        (fault.upstream, fault.headers, fault.nodes) = only;
        fault
    })
}

fn fixed_rate(rate: u64) -> SlowBy {
    SlowBy::Fixed(std::num::NonZeroU64::new(rate).expect("no 0 is generated"))
}

fn mirror() -> impl Strategy<Value = Mirror> {
    let named = prop_oneof![
        3 => name().prop_map(|name| (name, None)),
        1 => header_name().prop_map(|header| (Name::default(), Some(header))),
    ];
    // A header is changed once.
    let edits = edits().prop_map(|mut edits| {
        let mut seen = BTreeSet::new();
        edits.add.retain(|edit| seen.insert(edit.name.to_string()));
        edits.remove.retain(|name| seen.insert(name.to_string()));
        edits
    });
    (named, share(), any::<bool>(), edits, of(name())).prop_map(
        |((cluster, cluster_header), share, shadow_host, edits, authority)| Mirror {
            cluster_header,
            share,
            shadow_host,
            edits,
            authority,
            ..Mirror::to(cluster)
        },
    )
}

fn cors() -> impl Strategy<Value = Cors> {
    // Every origin is the empty prefix in the model, `*` in Envoy.
    let every = Just(StringMatch::Prefix(String::new()));
    let origin = prop_oneof![3 => string_match(), 1 => every]
        .prop_filter("is read as the empty prefix", |it| {
            *it != StringMatch::Exact("*".into())
        });
    let headers = (".{0,6}", ".{0,6}", ".{0,6}", "[0-9]{0,3}");
    let flag = || of(any::<bool>());
    (vec(origin, 0..3), headers, flag(), flag()).prop_map(
        |(origins, headers, credentials, unmatched)| {
            let mut cors = Cors::default();
            cors.allow_origins = origins;
            (
                cors.allow_methods,
                cors.allow_headers,
                cors.expose_headers,
                cors.max_age,
            ) = headers;
            cors.allow_credentials = credentials;
            cors.forward_unmatched_preflights = unmatched;
            cors
        },
    )
}

fn rate_limit() -> impl Strategy<Value = RateLimit> {
    // Envoy has a list of statuses for this field.
    let refusal = select(vec![
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::SERVICE_UNAVAILABLE,
    ]);
    (any::<u32>(), 1_u32.., some_time(), refusal).prop_map(
        |(max_tokens, tokens_per_fill, fill_interval, status)| {
            let mut limit = RateLimit::new(max_tokens, tokens_per_fill, fill_interval);
            limit.status = status;
            limit
        },
    )
}

fn edits() -> impl Strategy<Value = HeaderEdits> {
    let mode = select(vec![
        AddMode::Append,
        AddMode::Overwrite,
        AddMode::IfAbsent,
        AddMode::OverwriteIfPresent,
    ]);
    let add = (header_name(), template(), mode, any::<bool>()).prop_map(
        |(name, value, mode, keep_empty)| HeaderAdd {
            name,
            value,
            mode,
            keep_empty,
        },
    );
    (vec(header_name(), 0..2), vec(add, 0..2))
        .prop_map(|(remove, add)| HeaderChanges { remove, add }.into())
}

/// Pieces never have two texts side by side, nor texts only.
fn template() -> impl Strategy<Value = HeaderTemplate> {
    let byte = prop_oneof![9 => 0x20_u8..0x7f, 1 => 0x80_u8..=0xff, 1 => Just(b'%')];
    let fixed = vec(byte, 0..8)
        .prop_map(|text| HeaderTemplate::Fixed(HeaderValue::from_bytes(&text).unwrap()));
    let plain = || of("[ -~é%]{1,4}".prop_map(Piece::Text));
    let pieces = (vec((plain(), operator()), 1..4), plain()).prop_map(|(pairs, last)| {
        let pairs = pairs.into_iter();
        let pieces = pairs.flat_map(|(text, operator)| text.into_iter().chain([operator]));
        HeaderTemplate::Pieces(pieces.chain(last).collect())
    });
    prop_oneof![fixed, pieces]
}

/// A header or pseudo-header of the request.
fn asked() -> impl Strategy<Value = Piece> {
    let parts = [
        HeaderKey::Method,
        HeaderKey::Authority,
        HeaderKey::Scheme,
        HeaderKey::Path,
    ];
    prop_oneof![
        header_name().prop_map(Piece::RequestHeader),
        select(parts.to_vec()).prop_map(Piece::RequestPart),
    ]
}

fn operator() -> impl Strategy<Value = Piece> {
    let first_of = |(first, second)| Piece::FirstOf(Box::new(first), Box::new(second));
    let answered = || header_name().prop_map(Piece::ResponseHeader);
    let field = || {
        prop_oneof![
            asked(),
            answered(),
            (asked(), asked()).prop_map(first_of),
            (answered(), answered()).prop_map(first_of),
        ]
    };
    prop_oneof![
        field(),
        (field(), 0_usize..100).prop_map(|(it, length)| Piece::Shortened(Box::new(it), length)),
        select(vec![
            Piece::DownstreamRemoteAddress,
            Piece::DownstreamRemoteAddressWithoutPort,
            Piece::DownstreamLocalAddress,
            Piece::Protocol,
            Piece::ResponseCode,
            Piece::ResponseFlags,
            Piece::ResponseCodeDetails,
            Piece::RouteName,
            Piece::UpstreamHost,
            Piece::UpstreamCluster,
            Piece::UpstreamRequestAttemptCount,
            Piece::StartTime,
        ]),
    ]
}

fn header_name() -> impl Strategy<Value = HeaderName> {
    "x-[a-z0-9_-]{1,6}".prop_map(|name| HeaderName::try_from(name).unwrap())
}

fn name() -> impl Strategy<Value = Name> {
    "[a-z][a-z0-9.|_-]{0,8}".prop_map(Name::from)
}

fn maybe_name() -> impl Strategy<Value = Name> {
    prop_oneof![Just(Name::default()), name()]
}

/// Any text that may stand in a header.
fn text() -> impl Strategy<Value = String> {
    "[^\\x00\\r\\n]{1,6}"
}

fn maybe_text() -> impl Strategy<Value = String> {
    "[^\\x00\\r\\n]{0,6}"
}

fn pattern() -> impl Strategy<Value = Pattern> {
    let known = ["a+", "/v(\\d+)", "[a-z]*", "^(.*?;)?(x=1)(;.*)?$", "(?i)é"];
    select(known.to_vec()).prop_map(|source| Pattern::new(source).unwrap())
}

fn status(least: u16) -> impl Strategy<Value = StatusCode> {
    (least..600).prop_map(|code| StatusCode::from_u16(code).unwrap())
}

fn share() -> impl Strategy<Value = Fraction> {
    (0..=1_000_000_u32).prop_map(Fraction::millionths)
}

fn time() -> impl Strategy<Value = Duration> {
    prop_oneof![
        Just(Duration::ZERO),
        (0..1_000_000_u64, 0..1_000_000_000_u32)
            .prop_map(|(seconds, nanos)| Duration::new(seconds, nanos)),
    ]
}

/// A limit of zero is none, so those are left out.
fn some_time() -> impl Strategy<Value = Duration> {
    time().prop_map(|time| time + Duration::from_nanos(1))
}
