//! What backends do at each attempt, near to what a policy tries again for.

use crate::dice::Dice;

/// What ends an attempt that does not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    None,
    /// Until the head is there.
    Head,
    /// Without progress.
    Idle,
    /// Whatever happens.
    Whole,
}

/// A condition, and what meets it.
#[derive(Debug)]
pub(super) struct Condition {
    pub(super) name: &'static str,
    /// Words that meet it in HTTP/1.1.
    plain: &'static [&'static str],
    /// Words that meet it in HTTP/2.
    framed_words: &'static [&'static str],
    /// It is about requests that reach nobody.
    pub(super) unreachable: bool,
    /// It is best met in HTTP/2.
    pub(super) framed: bool,
    /// It is about gRPC.
    pub(super) grpc: bool,
}

const fn condition(
    name: &'static str,
    plain: &'static [&'static str],
    framed_words: &'static [&'static str],
) -> Condition {
    Condition {
        name,
        plain,
        framed_words,
        unreachable: false,
        framed: false,
        grpc: false,
    }
}

const fn grpc(name: &'static str, words: &'static [&'static str]) -> Condition {
    Condition {
        grpc: true,
        ..condition(name, words, words)
    }
}

const fn unreachable(name: &'static str) -> Condition {
    Condition {
        unreachable: true,
        ..condition(name, &["close"], &["refuse"])
    }
}

pub(super) const CONDITIONS: &[Condition] = &[
    condition(
        "5xx",
        &["500", "503", "close", "reset"],
        &["500", "reset", "refuse"],
    ),
    condition(
        "gateway-error",
        &["502", "503", "504", "close", "later"],
        &["502", "cancel"],
    ),
    condition(
        "reset",
        &["close", "reset"],
        &["reset", "cancel", "goaway-cut", "goaway-error"],
    ),
    condition("retriable-4xx", &["409"], &["409"]),
    condition("retriable-status-codes", &["418", "404"], &["418"]),
    condition("retriable-headers", &["retriable"], &["retriable"]),
    condition("envoy-ratelimited", &["ratelimited"], &["ratelimited"]),
    Condition {
        framed: true,
        ..condition("refused-stream", &["close"], &["refuse"])
    },
    unreachable("connect-failure"),
    unreachable("reset-before-request"),
    grpc("cancelled", &["grpc-1"]),
    grpc("deadline-exceeded", &["grpc-4"]),
    grpc("resource-exhausted", &["grpc-8"]),
    grpc("internal", &["grpc-13"]),
    grpc("unavailable", &["grpc-14"]),
];

/// Words of HTTP/1.1 that may meet a condition or not.
const PLAIN: &[&str] = &[
    "200",
    "204",
    "304",
    "404",
    "409",
    "418",
    "429",
    "500",
    "501",
    "502",
    "503",
    "504",
    "close",
    "reset",
    "garbage",
    "head-then-close",
    "head-then-reset",
    "chunked",
    "chunked-cut",
    "ratelimited",
    "ratelimited-503",
    "retriable",
    "later",
    "much-later",
    "grpc-0",
    "grpc-4",
    "grpc-13",
    "grpc-14",
    "slow",
];

/// The same in HTTP/2.
const FRAMED: &[&str] = &[
    "200",
    "404",
    "409",
    "500",
    "502",
    "503",
    "reset",
    "refuse",
    "cancel",
    "head-then-reset",
    "goaway",
    "goaway-cut",
    "goaway-error",
    "trailers",
    "ratelimited",
    "retriable",
    "grpc-0",
    "grpc-1",
    "grpc-14",
    "grpc-late-14",
    "grpc-late-0",
];

/// What does not go on.
const HANGING: &[&str] = &["hang", "hang", "hang", "head-then-hang"];

/// The same before there is a head.
const SILENT: &[&str] = &["hang"];

/// Something moves, now and then.
const MOVING: &[&str] = &["hang", "head-then-hang", "drip", "slow"];

/// Words for the attempts of one request.
pub(super) fn script(
    dice: &mut Dice,
    conditions: &[&Condition],
    http2: bool,
    limit: Limit,
) -> String {
    let number = dice.pick(&[1, 2, 2, 3, 3, 4]);
    let mut words = Vec::new();
    for n in 0..number {
        let last = n + 1 == number && n > 0;
        let word = if last && dice.chance(50) {
            "200"
        } else if limit != Limit::None && dice.chance(25) {
            dice.pick(match limit {
                Limit::Head => SILENT,
                Limit::Idle => MOVING,
                _ => HANGING,
            })
        } else if dice.chance(70) {
            let condition = &conditions[dice.below(conditions.len())];
            dice.pick(if http2 {
                condition.framed_words
            } else {
                condition.plain
            })
        } else {
            dice.pick(if http2 { FRAMED } else { PLAIN })
        };
        words.push(word);
    }
    words.join(",")
}
