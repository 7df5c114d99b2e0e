//! Draws the pages: HTML templates with everything they need inside, filled with escaped text.

use std::time::Duration;

use http::StatusCode;

use self::markup::Markup;
use crate::{
    SERVED_BY,
    caller::CALLED_BY,
    client::Call,
    details::Details,
    reviews::{Color, Rating, Review, Reviews},
};

mod markup;

/// The title of the one book there is.
pub(crate) const TITLE: &str = "The Comedy of Errors";
/// What it is about, in HTML.
pub(crate) const SUMMARY: &str = include_str!("page/summary.html");

/// How much of a failed answer the page shows.
const EXCERPT: usize = 600;
const MOST_STARS: u8 = 5;

/// What the product page shows.
#[derive(Debug)]
pub(crate) struct View<'a> {
    pub(crate) user: Option<&'a str>,
    pub(crate) request_id: Option<&'a str>,
    /// Who asked for the page, as the mesh has verified it.
    pub(crate) caller: Option<&'a str>,
    pub(crate) details: Part<Details>,
    pub(crate) reviews: Part<Reviews>,
    pub(crate) took: Duration,
}

/// One part of the page: its value or an apology, and the calls that were made for it.
#[derive(Debug)]
pub(crate) struct Part<T> {
    pub(crate) value: Result<T, &'static str>,
    pub(crate) calls: Vec<Call>,
}

/// The page that links to everything else.
pub(crate) fn index() -> String {
    Markup::fill(
        include_str!("page/index.html"),
        &[
            ("style", Markup::raw(include_str!("page/style.css"))),
            ("mark", Markup::raw(include_str!("page/mark.svg"))),
        ],
    )
    .into_string()
}

/// The product page.
pub(crate) fn product(view: &View<'_>) -> String {
    Markup::fill(
        include_str!("page/product.html"),
        &[
            ("style", Markup::raw(include_str!("page/style.css"))),
            ("script", Markup::raw(include_str!("page/refresh.js"))),
            ("mark", Markup::raw(include_str!("page/mark.svg"))),
            ("cover", Markup::raw(include_str!("page/cover.svg"))),
            ("title", Markup::raw(TITLE)),
            ("summary", Markup::raw(SUMMARY)),
            ("session", session(view.user)),
            ("details", details(&view.details)),
            ("version", version(&view.reviews)),
            ("reviews", reviews(&view.reviews)),
            ("calls", calls(view)),
            ("took", Markup::text(&milliseconds(view.took))),
            ("request", request(view.request_id)),
            ("caller", caller(view.caller)),
        ],
    )
    .into_string()
}

fn session(user: Option<&str>) -> Markup {
    let Some(user) = user else {
        return Markup::raw(include_str!("page/sign_in.html"));
    };
    let initial = user.chars().take(1).flat_map(char::to_uppercase);
    Markup::fill(
        include_str!("page/signed_in.html"),
        &[
            ("initial", Markup::text(&initial.collect::<String>())),
            ("user", Markup::text(user)),
        ],
    )
}

fn details(part: &Part<Details>) -> Markup {
    let details = match &part.value {
        Ok(details) => details,
        Err(apology) => return trouble("Details", apology, &part.calls),
    };
    let facts = [
        ("Author", &details.author),
        ("Year", &details.year.to_string()),
        ("Binding", &details.binding),
        ("Pages", &details.pages.to_string()),
        ("Publisher", &details.publisher),
        ("Language", &details.language),
        ("ISBN-10", &details.isbn_10),
        ("ISBN-13", &details.isbn_13),
    ];
    let fact = |(name, value): (&'static str, &String)| {
        Markup::fill(
            "<div><dt>{{name}}</dt><dd>{{value}}</dd></div>",
            &[("name", Markup::raw(name)), ("value", Markup::text(value))],
        )
    };
    let facts = facts.into_iter().map(fact).collect();
    Markup::fill("<dl class=\"facts\">{{facts}}</dl>", &[("facts", facts)])
}

/// The badge that says which version of reviews answered.
fn version(part: &Part<Reviews>) -> Markup {
    let Ok(reviews) = &part.value else {
        return Markup::raw("<span class=\"badge badge-bad\">unavailable</span>");
    };
    let class = match reviews.podname.rsplit('-').next() {
        Some("v2") => "badge badge-black",
        Some("v3") => "badge badge-red",
        _ => "badge",
    };
    Markup::fill(
        "<span class=\"{{class}}\" title=\"The pod and the cluster that answered\">{{pod}} \
         <small>{{cluster}}</small></span>",
        &[
            ("class", Markup::raw(class)),
            ("pod", Markup::text(&reviews.podname)),
            ("cluster", Markup::text(&reviews.clustername)),
        ],
    )
}

fn reviews(part: &Part<Reviews>) -> Markup {
    let reviews = match &part.value {
        Ok(reviews) => reviews,
        Err(apology) => return trouble("Reviews", apology, &part.calls),
    };
    let cards = reviews.reviews.iter().map(review).collect();
    Markup::fill("<div class=\"cards\">{{cards}}</div>", &[("cards", cards)])
}

fn review(review: &Review) -> Markup {
    let rating = match &review.rating {
        None => Markup::raw("<p class=\"quiet\">Not rated</p>"),
        Some(Rating::Unavailable { error }) => Markup::fill(
            "<p class=\"unrated\" role=\"note\">{{error}}</p>",
            &[("error", Markup::text(error))],
        ),
        Some(Rating::Stars { stars, color }) => stars_of(*stars, *color),
    };
    let initials = review.reviewer.chars().filter(|c| !c.is_lowercase());
    Markup::fill(
        include_str!("page/review.html"),
        &[
            (
                "initials",
                Markup::text(&initials.take(2).collect::<String>()),
            ),
            ("reviewer", Markup::text(&review.reviewer)),
            ("text", Markup::text(&review.text)),
            ("rating", rating),
        ],
    )
}

fn stars_of(stars: u8, color: Color) -> Markup {
    let color = match color {
        Color::Black => "black",
        Color::Red => "red",
    };
    let star = |place| {
        let class = if place < stars {
            "star"
        } else {
            "star star-empty"
        };
        Markup::fill(
            include_str!("page/star.svg"),
            &[("class", Markup::raw(class))],
        )
    };
    Markup::fill(
        "<p class=\"stars stars-{{color}}\" role=\"img\" \
         aria-label=\"{{stars}} of 5 stars, {{color}}\">{{row}}</p>",
        &[
            ("color", Markup::raw(color)),
            ("stars", Markup::text(&stars.to_string())),
            ("row", (0..MOST_STARS).map(star).collect()),
        ],
    )
}

/// What is shown in place of a part that failed: the apology, and what the last call brought.
fn trouble(part: &'static str, apology: &'static str, calls: &[Call]) -> Markup {
    let (status, evidence) = match calls.last().map(|call| &call.outcome) {
        None => ("not asked".to_owned(), String::new()),
        Some(Err(failure)) => ("no answer".to_owned(), failure.to_string()),
        Some(Ok(answer)) => {
            let body = String::from_utf8_lossy(&answer.body);
            (named(answer.status), body.chars().take(EXCERPT).collect())
        }
    };
    let attempts = match calls.len() {
        1 => "asked once".to_owned(),
        2 => "asked twice".to_owned(),
        n => format!("asked {n} times"),
    };
    let evidence = match evidence.trim() {
        "" => "(an empty body)",
        evidence => evidence,
    };
    Markup::fill(
        include_str!("page/trouble.html"),
        &[
            ("part", Markup::raw(part)),
            ("apology", Markup::raw(apology)),
            ("status", Markup::text(&status)),
            ("attempts", Markup::text(&attempts)),
            ("evidence", Markup::text(evidence)),
        ],
    )
}

fn calls(view: &View<'_>) -> Markup {
    let rows = |calls: &[Call]| {
        let count = calls.len();
        let row = |(place, call)| row(call, place + 1, count);
        calls.iter().enumerate().map(row).collect::<Vec<_>>()
    };
    let mut all = rows(&view.details.calls);
    all.extend(rows(&view.reviews.calls));
    all.into_iter().collect()
}

fn row(call: &Call, attempt: usize, of: usize) -> Markup {
    let text = |text: Option<&str>| Markup::text(text.unwrap_or("–"));
    let (class, status) = match call.status() {
        Some(status) if status.is_success() => ("good", named(status)),
        Some(status) => ("bad", named(status)),
        None => ("bad", "no answer".to_owned()),
    };
    let attempt = if of > 1 {
        Markup::text(&format!(" (attempt {attempt})"))
    } else {
        Markup::raw("")
    };
    let upstream = call
        .header("x-envoy-upstream-service-time")
        .map(|time| format!("{time} ms"));
    let served_by = match (&call.outcome, call.header(SERVED_BY.as_str())) {
        (Ok(_), None) => Some("the mesh itself"),
        (_, served_by) => served_by,
    };
    Markup::fill(
        include_str!("page/call.html"),
        &[
            ("authority", Markup::text(call.authority.as_str())),
            ("attempt", attempt),
            ("class", Markup::raw(class)),
            ("status", Markup::text(&status)),
            ("took", Markup::text(&milliseconds(call.took))),
            ("upstream", text(upstream.as_deref())),
            ("server", text(call.header("server"))),
            ("version", text(served_by)),
            ("caller", text(call.header(CALLED_BY.as_str()))),
        ],
    )
}

fn caller(caller: Option<&str>) -> Markup {
    match caller {
        None => Markup::raw("It was asked for without mutual TLS."),
        Some(caller) => {
            let caller = [("caller", Markup::text(caller))];
            Markup::fill(
                "It was asked for over mutual TLS, by <code>{{caller}}</code>.",
                &caller,
            )
        }
    }
}

fn request(id: Option<&str>) -> Markup {
    id.map_or_else(
        || Markup::raw(""),
        |id| {
            let id = [("id", Markup::text(id))];
            Markup::fill(" Request <code>{{id}}</code>.", &id)
        },
    )
}

fn named(status: StatusCode) -> String {
    let reason = status.canonical_reason().unwrap_or_default();
    format!("{} {reason}", status.as_u16())
        .trim_end()
        .to_owned()
}

fn milliseconds(time: Duration) -> String {
    let milliseconds = time.as_secs_f64() * 1000.0;
    match milliseconds {
        0.0..10.0 => format!("{milliseconds:.1} ms"),
        10.0..1000.0 => format!("{milliseconds:.0} ms"),
        _ => format!("{:.2} s", time.as_secs_f64()),
    }
}
