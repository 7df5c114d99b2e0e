//! Matchers of texts, with values that they accept and values that they just do not.

use super::other_case;
use crate::dice::Dice;
use crate::request::Call;
use serde_json::{Value, json};

const WORDS: &[&str] = &["one", "two", "on", "ONE", "o", "one,two", "1", "a=b", "x y"];

/// Regular expressions of RE2, with texts of which some match whole, some in part, some not.
const PATTERNS: &[(&str, &[&str])] = &[
    ("one|two", &["one", "two", "onetwo", "on", ""]),
    ("o.*", &["o", "one", "two", "xo"]),
    ("[a-c]+\\d{2,3}", &["abc12", "a123", "a1", "abc1234", "d12"]),
    ("(?i)one", &["ONE", "oNe", "on", "one "]),
    ("[[:alpha:]]+", &["one", "one1", "1", "ONE"]),
    ("[[:digit:]]*", &["", "12", "1a"]),
    (
        "\\w+@\\w+\\.test",
        &["a@b.test", "a@bXtest", "@b.test", "a_1@b.test"],
    ),
    ("\\pL+", &["one", "1", "one-two"]),
    ("^one$", &["one", "one\ttwo", "xone"]),
    ("a\\.b", &["a.b", "axb"]),
    (".*(x|y)z?", &["abx", "yz", "xzz", "abz"]),
    ("[^ /]+", &["one", "o/ne", "x y", ""]),
    ("(one)?(two)?", &["", "one", "onetwo", "twoone"]),
    ("\\Qa.b*\\E", &["a.b*", "aXb*", "a.b"]),
    ("[\\d\\-]+\\z", &["1-2", "-", "1_2"]),
    ("(?s).+", &["a", ""]),
];

/// A matcher of strings, as Envoy has it.
pub(super) fn string(dice: &mut Dice) -> Value {
    if dice.chance(30) {
        return json!({"safe_regex": {"regex": dice.pick(PATTERNS).0}});
    }
    let kind = dice.pick(&["exact", "prefix", "suffix", "contains"]);
    let mut out = json!({kind: dice.pick(WORDS)});
    if dice.chance(25) {
        out["ignore_case"] = json!(true);
    }
    out
}

/// A text that the matcher accepts, or one that it may not.
pub(super) fn text_for(dice: &mut Dice, matcher: &Value, near_miss: bool) -> String {
    if let Some(regex) = matcher["safe_regex"]["regex"].as_str() {
        let texts = PATTERNS.iter().find(|(it, _)| *it == regex);
        let texts = texts.map_or(&["one"][..], |(_, texts)| texts);
        // Those that match come first.
        let most = if near_miss { texts.len() } else { 2 };
        return texts[dice.below(most.min(texts.len()))].to_owned();
    }
    let (kind, word) = ["exact", "prefix", "suffix", "contains"]
        .into_iter()
        .find_map(|kind| Some((kind, matcher[kind].as_str()?)))
        .unwrap_or(("exact", ""));
    let mut text = match kind {
        "prefix" if dice.chance(60) => format!("{word}x"),
        "suffix" if dice.chance(60) => format!("x{word}"),
        "contains" if dice.chance(60) => format!("x{word}y"),
        _ => word.to_owned(),
    };
    if matcher["ignore_case"] == true {
        text = other_case(dice, &text);
    }
    if near_miss {
        text = match dice.below(6) {
            0 => other_case(dice, &text),
            1 => format!("{text}x"),
            2 => format!("x{text}"),
            3 => text.chars().skip(1).collect(),
            4 => {
                text.pop();
                text
            }
            _ => dice.pick(WORDS).to_owned(),
        };
    }
    text
}

/// A matcher of a header.
pub(super) fn header(dice: &mut Dice) -> Value {
    let name = dice.pick(&["x-a", "x-b", "x-c", "X-Upper"]);
    let mut out = match dice.below(13) {
        0..=7 => json!({"string_match": string(dice)}),
        8 | 9 => json!({"present_match": dice.chance(60)}),
        10 | 11 => {
            let start = dice.between(0, 20) as i64 - 10;
            json!({"range_match": {"start": start, "end": start + dice.between(1, 10) as i64}})
        }
        _ => json!({}),
    };
    out["name"] = json!(name);
    if dice.chance(15) {
        out["name"] = json!(dice.pick(&[":method", ":authority", ":path", ":scheme"]));
        if out["string_match"].is_null() || dice.chance(50) {
            let word = dice.pick(&["GET", "POST", "http", "/a", "mesh", "test"]);
            out = json!({"name": out["name"], "string_match": {"contains": word}});
        }
    }
    if dice.chance(30) {
        out["invert_match"] = json!(true);
    }
    if dice.chance(25) {
        out["treat_missing_header_as_empty"] = json!(true);
    }
    out
}

/// A value for a header that is matched so.
pub(super) fn header_value(dice: &mut Dice, matcher: &Value, near_miss: bool) -> String {
    if let Some(range) = matcher["range_match"].as_object() {
        let start = range["start"].as_i64().unwrap_or(0);
        let end = range["end"].as_i64().unwrap_or(0);
        let value = if near_miss {
            dice.pick(&[start - 1, end, end + 1])
        } else {
            dice.pick(&[start, end - 1])
        };
        return match dice.below(12) {
            0 => format!("{value}x"),
            1 => format!("+{value}"),
            2 => format!("0{value}"),
            3 => "9223372036854775808".into(),
            _ => value.to_string(),
        };
    }
    text_for(dice, &matcher["string_match"], near_miss)
}

/// A matcher of a query parameter.
pub(super) fn query(dice: &mut Dice) -> Value {
    let name = dice.pick(&["q", "r", "Q"]);
    match dice.below(8) {
        0..=5 => {
            let mut text = string(dice);
            // Nothing is decoded, so what has a space could never be met.
            while text.to_string().contains(' ') {
                text = string(dice);
            }
            json!({"name": name, "string_match": text})
        }
        6 => json!({"name": name, "present_match": true}),
        _ => json!({"name": name}),
    }
}

/// A matcher of a cookie.
pub(super) fn cookie(dice: &mut Dice) -> Value {
    let name = dice.pick(&["c", "d", "C"]);
    json!({"name": name, "string_match": string(dice), "invert_match": dice.chance(35)})
}

/// Puts a cookie on a request that the matcher may accept, in one of the ways to write it.
pub(super) fn give_cookie(dice: &mut Dice, matcher: &Value, near_miss: bool, call: &mut Call) {
    if dice.chance(if near_miss { 25 } else { 10 }) {
        return;
    }
    let name = matcher["name"].as_str().unwrap_or("c");
    let value = text_for(dice, &matcher["string_match"], near_miss);
    let value = value.trim().to_owned();
    let mut put = |line: String| call.headers.push(("cookie".to_owned(), line));
    match dice.below(12) {
        0 => put(format!("x=1; {name}={value}")),
        1 => put(format!("x=1;{name}={value};y=2")),
        2 => put(format!("{name}=\"{value}\"")),
        3 => put(format!("{name}={value}; {name}=other")),
        4 => {
            put("x=1".to_owned());
            put(format!("{name}={value}"));
        }
        5 if near_miss => put(format!("{name}=other; {name}={value}")),
        6 if near_miss => {
            put(format!("{name}=other"));
            put(format!("{name}={value}"));
        }
        7 if near_miss => put(format!("{}={value}", other_case(dice, name))),
        8 if near_miss => put(format!("{name} ={value}; {name}")),
        9 if near_miss => put(format!("{name}= {value} ; =; ;")),
        10 if near_miss => put(format!("{name}=\"{value}")),
        _ => put(format!("{name}={value}")),
    }
}

/// What the caller has to show of itself. It has no certificate.
pub(super) fn certificate(dice: &mut Dice) -> Value {
    let mut out = json!({});
    for field in ["presented", "validated"] {
        if dice.chance(60) {
            out[field] = json!(dice.chance(35));
        }
    }
    out
}
