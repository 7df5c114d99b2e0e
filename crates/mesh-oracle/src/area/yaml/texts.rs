//! Istio's string matches, with texts that they accept and texts that they just do not.

use crate::dice::Dice;
use serde_json::{Value, json};

/// The kind, what is said, texts that meet it, and texts that do not.
type Text = (
    &'static str,
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
);

const TEXTS: &[Text] = &[
    ("exact", "one", &["one"], &["ONE", "one1", "on", "xone"]),
    ("exact", "a=b", &["a=b"], &["a", "a=", "a=bb"]),
    (
        "prefix",
        "tw",
        &["two", "tw", "twelve"],
        &["t", "TWO", "xtw"],
    ),
    ("prefix", "x-", &["x-", "x-1"], &["x", "-x"]),
    ("regex", "o.*", &["o", "one"], &["xo", "O", ""]),
    (
        "regex",
        "[a-c]+\\d{2,3}",
        &["abc12", "a123"],
        &["a1", "abc1234", "d12"],
    ),
    ("regex", "one|two", &["one", "two"], &["onetwo", "on"]),
    ("regex", "(?i)one", &["ONE", "oNe"], &["on", "ones"]),
    ("regex", ".*(x|y)z?", &["abx", "yz"], &["xzz", "abz"]),
    ("regex", "[[:alpha:]]+", &["one"], &["one1", "1"]),
];

/// A match of any kind.
pub(super) fn any(dice: &mut Dice) -> Value {
    let (kind, text, ..) = dice.pick(TEXTS);
    json!({ kind: text })
}

/// One of this kind; nothing is presence.
pub(super) fn of(dice: &mut Dice, kind: &str) -> Value {
    if kind == "present" {
        return json!({});
    }
    let all: Vec<&Text> = TEXTS.iter().filter(|(it, ..)| *it == kind).collect();
    let (kind, text, ..) = dice.pick(&all);
    json!({ *kind: text })
}

/// A text that meets it, or one that may not.
pub(super) fn text(dice: &mut Dice, wanted: &Value, near_miss: bool) -> &'static str {
    let found = TEXTS.iter().find(|(kind, text, ..)| wanted[*kind] == *text);
    match found {
        Some((_, _, hits, misses)) => dice.pick(if near_miss { misses } else { hits }),
        None => dice.pick(&["one", "1", "x-y"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_texts_are_on_the_right_side() {
        for (kind, wanted, hits, misses) in TEXTS {
            let meets = |text: &&&str| match *kind {
                "exact" => **text == *wanted,
                "prefix" => text.starts_with(wanted),
                _ => true,
            };
            assert!(hits.iter().all(|it| meets(&it)), "{wanted}");
            assert!(
                *kind == "regex" || !misses.iter().any(|it| meets(&it)),
                "{wanted}"
            );
        }
    }
}
