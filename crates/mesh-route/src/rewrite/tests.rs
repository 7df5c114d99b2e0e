use super::*;
use http::{Method, Request};
use proptest::prelude::*;

fn pattern(source: &str) -> Pattern {
    Pattern::new(source).unwrap()
}

fn prefix_match(text: &str) -> PathMatch {
    PathMatch::Prefix(text.into())
}

#[test]
fn a_prefix_rewrite_replaces_what_matched_and_keeps_the_query() {
    let rewrite = |new: &str, matched: PathMatch, path_and_query: &str| {
        path(&PathRewrite::Prefix(new.into()), &matched, path_and_query)
    };
    let rewritten = |new, matched, target| rewrite(new, matched, target).unwrap();
    assert_eq!(
        rewritten("/new", prefix_match("/pfy"), "/pfya?q=1"),
        "/newa?q=1"
    );
    assert_eq!(
        rewritten("bare", prefix_match("/pfx/"), "/pfx/a?q=1"),
        "barea?q=1"
    );
    let exact = PathMatch::Exact("/exact".into());
    assert_eq!(rewritten("/whole", exact, "/exact?q=1"), "/whole?q=1");
    let regex = PathMatch::Regex(pattern("/re/.*"));
    assert_eq!(rewritten("/whole", regex, "/re/a/b?q=1"), "/whole?q=1");
    let any_case = PathMatch::PrefixIgnoreCase("/ci".into());
    assert_eq!(rewritten("/low", any_case, "/CiAB"), "/lowAB");
    assert_eq!(rewrite("", prefix_match("/a"), "/ab"), None);
    assert_eq!(path(&PathRewrite::Keep, &prefix_match("/a"), "/ab"), None);
}

#[test]
fn a_regex_rewrite_replaces_every_match_in_the_path_and_none_in_the_query() {
    let rewrite = PathRewrite::Regex(pattern("x(.)"), "<\\1>".into());
    assert_eq!(
        path(&rewrite, &prefix_match("/rx"), "/rx/xy?xz").as_deref(),
        Some("/r</><y>?xz")
    );
}

fn redirect(change: impl FnOnce(&mut Redirect)) -> Redirect {
    let mut redirect = Redirect::default();
    change(&mut redirect);
    redirect
}

fn to(redirect: &Redirect, matched: &PathMatch, host: &str, target: &str, tls: bool) -> String {
    let proto = if tls { "https" } else { "http" };
    let request = Request::get(target)
        .header(HOST, host)
        .header("x-forwarded-proto", proto)
        .body(())
        .unwrap();
    location(redirect, matched, &Head::of(&request))
}

#[test]
fn redirects_go_where_envoy_sends_them() {
    let https = redirect(|r| r.scheme = Some("https".into()));
    let to_443 = redirect(|r| {
        r.scheme = Some("https".into());
        r.port = Some(443);
    });
    let host = redirect(|r| r.host = Some("h.example".into()));
    let port = redirect(|r| r.port = Some(8443));
    let full = redirect(|r| r.path = RedirectPath::Full("/new".into()));
    let full_query = redirect(|r| r.path = RedirectPath::Full("/new?q=1".into()));
    let full_stripped = redirect(|r| {
        r.path = RedirectPath::Full("/new?q=1".into());
        r.strip_query = true;
    });
    let stripped = redirect(|r| r.strip_query = true);
    let prefixed = redirect(|r| r.path = RedirectPath::Prefix("/zz".into()));
    let regex = redirect(|r| r.path = RedirectPath::Regex(pattern("a"), "b".into()));
    let bare = redirect(|r| r.path = RedirectPath::Full("noslash".into()));
    let foreign = redirect(|r| r.scheme = Some("foo".into()));
    let host_80 = redirect(|r| {
        r.host = Some("h".into());
        r.port = Some(80);
    });
    // Read off a running Envoy 1.40: the redirect, host, target, TLS, and the location.
    let table = [
        (&https, "h.ex", "/r/a?x=1", false, "https://h.ex/r/a?x=1"),
        (&https, "h.ex:80", "/r", false, "https://h.ex/r"),
        (&https, "h.ex:443", "/r", false, "https://h.ex:443/r"),
        (&https, "h.ex:8080", "/r", false, "https://h.ex:8080/r"),
        (&https, "[::1]:80", "/r", false, "https://[::1]/r"),
        (&https, "[::1]", "/r", false, "https://[::1]/r"),
        (&https, "h.ex:80", "/r", true, "https://h.ex:80/r"),
        (&https, "h.ex:443", "/r", true, "https://h.ex:443/r"),
        (&to_443, "h.ex:8080", "/r", false, "https://h.ex:443/r"),
        (&to_443, "[::1]", "/r", false, "https://[::1]:443/r"),
        (
            &host,
            "h.ex:8080",
            "/r/a?x=1",
            false,
            "http://h.example/r/a?x=1",
        ),
        (&port, "h.ex:80", "/r", false, "http://h.ex:8443/r"),
        (&full, "h.ex", "/r/a?x=1", false, "http://h.ex/new?x=1"),
        (&full, "h.ex:443", "/r", true, "https://h.ex:443/new"),
        (
            &full_query,
            "h.ex",
            "/r/a?x=1",
            false,
            "http://h.ex/new?q=1",
        ),
        (
            &full_stripped,
            "h.ex",
            "/r/a?x=1",
            false,
            "http://h.ex/new?q=1",
        ),
        (&stripped, "h.ex", "/r/a?x=1", false, "http://h.ex/r/a"),
        (
            &prefixed,
            "h.ex",
            "/r/a?x=/r",
            false,
            "http://h.ex/zz/a?x=/r",
        ),
        (&regex, "h.ex", "/r/a?x=a", false, "http://h.ex/r/b?x=a"),
        (&bare, "h.ex", "/r/a?x=1", false, "http://h.ex/noslash?x=1"),
        (&foreign, "h.ex:80", "/r", false, "foo://h.ex/r"),
        (&foreign, "h.ex:443", "/r", false, "foo://h.ex:443/r"),
        (&host_80, "h.ex", "/r", false, "http://h:80/r"),
    ];
    for (redirect, host, target, tls, expected) in table {
        let found = to(redirect, &prefix_match("/r"), host, target, tls);
        assert_eq!(found, expected, "{redirect:?} {host} {target} {tls}");
    }
    let whole = to(
        &prefixed,
        &PathMatch::Exact("/r".into()),
        "h.ex",
        "/r?q=1",
        false,
    );
    assert_eq!(whole, "http://h.ex/zz?q=1");
}

#[test]
fn a_redirect_to_tls_keeps_authority_and_path() {
    let request = Request::get("/x?q=1")
        .header(HOST, "TLS.ex:80")
        .body(())
        .unwrap();
    assert_eq!(
        location_with_tls(&Head::of(&request)),
        "https://TLS.ex:80/x?q=1"
    );
}

#[test]
fn a_path_that_no_server_understands_is_made_into_one_that_it_does() {
    let mut uri = Uri::from_static("http://a.example/old?q");
    set_path(&mut uri, "bare/a b<#>?x=|").unwrap();
    assert_eq!(uri.path(), "/bare/a%20b%3C%23%3E");
    assert_eq!(uri.host(), Some("a.example"));
    assert!(set_path(&mut uri, &"/a".repeat(40_000)).is_err());
    assert_eq!(uri.path(), "/bare/a%20b%3C%23%3E", "unchanged");
}

#[test]
fn an_authority_goes_where_the_request_has_one() {
    let mut headers = HeaderMap::new();
    let mut uri = Uri::from_static("/x");
    assert!(set_authority(&mut uri, &mut headers, "new:80"));
    assert_eq!(
        (uri.authority(), &headers[HOST]),
        (None, &"new:80".parse().unwrap())
    );

    let mut uri = Uri::from_static("http://old/x?y");
    assert!(set_authority(&mut uri, &mut headers, "newer"));
    assert_eq!(uri, "http://newer/x?y");
    assert_eq!(headers[HOST], "newer");

    headers.clear();
    assert!(set_authority(&mut uri, &mut headers, "newest"));
    assert!(
        headers.is_empty(),
        "HTTP/2 has its authority in the URI alone"
    );
    assert!(!set_authority(&mut uri, &mut headers, "no host"));
    assert_eq!(uri, "http://newest/x?y");
}

#[test]
fn a_shadow_host_is_named_before_its_port() {
    let hosts = ["h.ex:8080", "h.ex", "[::1]:80", "[::1]"].map(shadow_authority);
    assert_eq!(
        hosts,
        [
            "h.ex-shadow:8080",
            "h.ex-shadow",
            "[::1]-shadow:80",
            "[::1]-shadow"
        ]
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_rewrite_never_touches_the_query(
        before in "(/[a-z]{0,3}){0,3}",
        after in "[a-z/]{0,6}",
        query in prop::option::of("[a-z=&?/]{0,8}"),
        new in "/[a-z/]{0,6}",
    ) {
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        let target = format!("/{before}{after}{query}");
        let matched = prefix_match(&format!("/{before}"));
        let rewrites = [
            (PathRewrite::Prefix(new.clone()), format!("{new}{after}{query}")),
            (
                PathRewrite::Regex(pattern("^.*$"), new.clone()),
                format!("{new}{query}"),
            ),
        ];
        for (rewrite, expected) in rewrites {
            prop_assert_eq!(path(&rewrite, &matched, &target), Some(expected));
        }
    }

    #[test]
    fn any_text_can_be_made_the_path_of_a_request(text in ".{0,40}", absolute: bool) {
        let mut uri = Uri::from_static(if absolute { "http://a/b?c" } else { "/b?c" });
        set_path(&mut uri, &text).unwrap();
        prop_assert!(uri.path().starts_with('/'));
        prop_assert_eq!(uri.authority().is_some(), absolute);
        let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~%".contains(&b));
        if plain && text.starts_with('/') {
            prop_assert_eq!(uri.path(), text);
        }
    }

    #[test]
    fn a_new_authority_is_what_routing_sees(
        authority in "[a-z]{1,8}(\\.[a-z]{1,3})?(:[0-9]{1,4})?",
        uri in prop::sample::select(vec!["/x", "http://old:1/x?y", "https://old/"]),
        host: bool,
    ) {
        let mut headers = HeaderMap::new();
        if host {
            headers.insert(HOST, HeaderValue::from_static("old:1"));
        }
        let before = Uri::from_static(uri);
        let mut uri = before.clone();
        prop_assert!(set_authority(&mut uri, &mut headers, &authority));
        let head = Head::new(&Method::GET, &uri, &headers);
        prop_assert_eq!(head.authority(), Some(&*authority));
        prop_assert_eq!(uri.path_and_query(), before.path_and_query());
        if let Some(host) = headers.get(HOST) {
            prop_assert_eq!(host.to_str().unwrap(), authority);
        }
    }

    #[test]
    fn every_redirect_of_a_good_request_is_a_uri(
        host in "[a-z]{1,5}(:[0-9]{1,4})?",
        target in "/[a-z/]{0,6}(\\?[a-z=]{0,4})?",
        scheme in prop::option::of(prop::sample::select(vec!["http", "https"])),
        port in prop::option::of(1_u16..),
        new_host in prop::option::of("[a-z]{1,5}"),
        strip_query: bool,
        tls: bool,
    ) {
        let redirect = redirect(|r| {
            r.scheme = scheme.map(Into::into);
            r.port = port;
            r.host = new_host.clone().map(Into::into);
            r.strip_query = strip_query;
        });
        let uri: Uri = to(&redirect, &prefix_match("/"), &host, &target, tls).parse().unwrap();
        let old = if tls { "https" } else { "http" };
        prop_assert_eq!(uri.scheme_str(), Some(scheme.unwrap_or(old)));
        if let Some(port) = port {
            prop_assert_eq!(uri.port_u16(), Some(port));
        }
        let old_host = host.split(':').next().unwrap();
        prop_assert_eq!(uri.host(), Some(new_host.as_deref().unwrap_or(old_host)));
        prop_assert_eq!(uri.query().is_some(), target.contains('?') && !strip_query);
    }
}

#[test]
fn the_names_of_a_template_make_a_new_path_and_the_query_stays() {
    use mesh_core::model::PathTemplate;
    let matched = PathMatch::Template(PathTemplate::new("/{a}/of/{b=**}").unwrap());
    let with = PathRewrite::Template(TemplateRewrite::new("/{b}-{a}").unwrap());
    let new = |from: &str| path(&with, &matched, from);
    assert_eq!(new("/1/of/x/y?q=/").as_deref(), Some("/x/y-1?q=/"));
    assert_eq!(new("/1/of/").as_deref(), Some("/-1"));
    // Changed in between: it stays, as in Envoy, which says what it was nevertheless.
    assert_eq!(new("/elsewhere?q").as_deref(), Some("/elsewhere?q"));
}

#[test]
fn a_redirect_takes_the_length_of_the_template_for_that_of_what_matched() {
    use mesh_core::model::PathTemplate;
    let matched = PathMatch::Template(PathTemplate::new("/a/*").unwrap());
    let mut redirect = Redirect::default();
    redirect.path = RedirectPath::Prefix("/new".into());
    let new = |from: &str| redirected(&redirect, &matched, from);
    assert_eq!(new("/a/long").as_deref(), Some("/newong"));
    assert_eq!(new("/a/b").as_deref(), Some("/new"));
}
