//! Paths: what routes say of them, and targets that hit them or just miss them.

use super::other_case;
use crate::dice::Dice;
use serde_json::{Value, json};

const SEGMENTS: &[&str] = &["a", "b", "ab", "A", "api", "v1", "a-b", "x.y"];

/// Regular expressions for paths, with paths of which some match.
const PATTERNS: &[(&str, &[&str])] = &[
    ("/a/.*", &["/a/b", "/a/", "/a", "/b/a/x"]),
    (
        "/(api|v1)/[^/]+",
        &["/api/x", "/v1/ab", "/api/x/y", "/api/"],
    ),
    ("/[a-z]+\\d*", &["/abc1", "/a", "/A", "/1"]),
    (".*\\.y", &["/x.y", "/a/x.y", "/x.yz"]),
    ("(?i)/API", &["/api", "/Api", "/api/"]),
    ("/[[:word:]]+/?", &["/a_1", "/ab/", "/a-b", "/"]),
    ("/a%2[fF]b", &["/a%2fb", "/a%2Fb", "/a/b"]),
];

/// Targets that few think of.
const ODD: &[&str] = &[
    "//",
    "//a",
    "/a//b",
    "/a/./b",
    "/a/../b",
    "/../a",
    "/a/..",
    "/a/.",
    "/a%2fb",
    "/a%2Fb",
    "/a%5cb",
    "/a\\b",
    "/%61",
    "/a%",
    "/a%zz",
    "/a;x=1",
    "/a;x=1/b",
    "/a,b",
    "/a+b",
    "/a%20b",
    "/a?",
    "/a??x",
    "/a?q=/../b",
    "/a/?q",
    "/%2e%2e/a",
    "/a/%2e/b",
    "/a/%2E%2E/b",
    "/a...",
    "/~a",
    "/a:b",
    "/a@b",
    "/a'b",
    "/a|b",
    "/a[b]",
    "/{a}",
    "/a^b",
    "/a$b",
    "/a%00b",
    "/*",
];

/// Templates of paths, what may be made of their names, and paths of which the first two match.
pub(super) const TEMPLATES: &[(&str, &str, &[&str])] = &[
    ("/a/*", "/x", &["/a/b", "/a/x.y", "/a/", "/a/b/c", "/a"]),
    ("/{n}/b", "/n/{n}", &["/a/b", "/x*y/b", "/a/b/", "/a%2Fc/b"]),
    ("/api/**", "/", &["/api/", "/api/v1//x", "/api", "/API/v1"]),
    ("/{v=v1}/a", "/{v}", &["/v1/a", "/v1/a?", "/v/a", "/v1"]),
    (
        "/{v=v1/*}/{r=**}",
        "/{r}/{v}",
        &["/v1/a/b/c", "/v1/b/", "/v1/a", "/v1//b"],
    ),
    (
        "/{r=**}/x.y",
        "/of/{r}",
        &["/a/b/x.y", "//x.y", "/x.y", "/a/x-y"],
    ),
    (
        "/img/{n}.png",
        "/{n}-{n}.webp",
        &["/img/a.png", "/img/a.png.png", "/img/.png", "/img/a.jpg"],
    ),
    (
        "/a;x/{k}=1",
        "/{k}",
        &["/a;x/b=1", "/a;x/b=2=1", "/a;x/b=2"],
    ),
    (
        "/{a}/{b}/{c}",
        "/{c}{b}{a}",
        &["/a/b/c", "/1/2/@3", "/a/b/", "/a/b/c/d"],
    ),
    ("/", "/root", &["/", "/?q", "/a"]),
];

pub(super) fn template(text: &str) -> Value {
    json!({"path_match_policy": {
        "name": "envoy.path.match.uri_template.uri_template_matcher",
        "typed_config": {
            "@type": "type.googleapis.com/\
                      envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig",
            "path_template": text,
        },
    }})
}

/// What a new path is made of.
pub(super) fn template_rewrite(text: &str) -> Value {
    json!({
        "name": "envoy.path.rewrite.uri_template.uri_template_rewriter",
        "typed_config": {
            "@type": "type.googleapis.com/\
                      envoy.extensions.path.rewrite.uri_template.v3.UriTemplateRewriteConfig",
            "path_template_rewrite": text,
        },
    })
}

/// The text of a matcher that is a template.
pub(super) fn template_of(matcher: &Value) -> Option<&str> {
    matcher["path_match_policy"]["typed_config"]["path_template"].as_str()
}

pub(super) fn path(dice: &mut Dice, most: usize) -> String {
    let number = dice.between(0, most);
    if number == 0 {
        return "/".into();
    }
    let parts: Vec<&str> = (0..number).map(|_| dice.pick(SEGMENTS)).collect();
    format!("/{}", parts.join("/"))
}

/// What a route says of the path.
pub(super) fn matcher(dice: &mut Dice) -> Value {
    let mut out = match dice.below(12) {
        10 | 11 => return template(dice.pick(TEMPLATES).0),
        0..=2 => {
            let slash = if dice.chance(30) { "/" } else { "" };
            let path = path(dice, 3);
            json!({"prefix": if path == "/" { path } else { path + slash }})
        }
        3..=5 => json!({"path": path(dice, 3)}),
        6 | 7 => {
            let parts = path(dice, 2);
            let parts = if parts == "/" { "/a".into() } else { parts };
            json!({"path_separated_prefix": parts})
        }
        _ => return json!({"safe_regex": {"regex": dice.pick(PATTERNS).0}}),
    };
    if dice.chance(45) {
        out["case_sensitive"] = json!(false);
    }
    out
}

/// A path that the matcher accepts, or one that it may not.
pub(super) fn path_for(dice: &mut Dice, matcher: &Value, near_miss: bool) -> String {
    if let Some(regex) = matcher["safe_regex"]["regex"].as_str() {
        let paths = PATTERNS.iter().find(|(it, _)| *it == regex);
        let paths = paths.map_or(&["/a"][..], |(_, paths)| paths);
        let most = if near_miss { paths.len() } else { 2 };
        return paths[dice.below(most.min(paths.len()))].to_owned();
    }
    if let Some(text) = template_of(matcher) {
        let paths = TEMPLATES.iter().find(|(it, ..)| *it == text);
        let paths = paths.map_or(&["/a"][..], |(.., paths)| paths);
        let most = if near_miss { paths.len() } else { 2 };
        return paths[dice.below(most.min(paths.len()))].to_owned();
    }
    let (kind, word) = ["prefix", "path", "path_separated_prefix"]
        .into_iter()
        .find_map(|kind| Some((kind, matcher[kind].as_str()?)))
        .unwrap_or(("prefix", "/"));
    let mut out = match kind {
        "prefix" if dice.chance(60) => format!("{word}{}", dice.pick(SEGMENTS)),
        "path_separated_prefix" if dice.chance(60) => format!("{word}{}", path(dice, 2)),
        _ => word.to_owned(),
    };
    if matcher["case_sensitive"] == false {
        out = other_case(dice, &out);
    }
    if near_miss {
        out = match dice.below(7) {
            0 => other_case(dice, &out),
            1 => format!("{out}/"),
            2 => format!("{out}x"),
            3 => out.replacen('/', "//", 1),
            4 if out.len() > 1 => {
                out.pop();
                out
            }
            5 => format!("{out}{}", path(dice, 2)),
            _ => dice.pick(ODD).to_owned(),
        };
    }
    out
}
