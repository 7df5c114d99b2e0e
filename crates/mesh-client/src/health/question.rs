//! What is asked over HTTP, whether as a plain request or as one of gRPC: one frame for both.

use super::dial::Dialer;
use super::line::{Answered, Line};
use bytes::Bytes;
use http::header::CONNECTION;
use http::uri::Authority;
use http::{HeaderMap, HeaderName, Request, Uri};
use http_body_util::Full;
use mesh_core::model::{AddMode, HeaderEdits, HeaderTemplate};
use mesh_lb::health::Answer;

/// A question, and what its answer means.
pub(super) trait Question {
    /// Whether it is asked over HTTP/2.
    fn is_http2(&self) -> bool;

    /// The host that it names, if it does.
    fn host(&self) -> &str;

    /// How many bytes of an answer's body are looked at.
    fn limit(&self) -> usize;

    fn request(&self, authority: &str, secured: bool) -> Request<Full<Bytes>>;

    fn judge(&self, answered: &Answered, dialer: &Dialer) -> Answer;
}

/// Asks one question, again and again, over one connection while it lasts.
pub(super) struct Asker<Q> {
    dialer: Dialer,
    question: Q,
    line: Option<Line>,
}

// === impl Asker ===

impl<Q: Question> Asker<Q> {
    pub(super) fn new(dialer: Dialer, question: Q) -> Self {
        Self {
            dialer,
            question,
            line: None,
        }
    }

    pub(super) fn hang_up(&mut self) {
        self.line = None;
    }

    pub(super) async fn ask(&mut self) -> Answer {
        let answered = self.asked().await;
        let Some(answered) = answered else {
            self.line = None;
            return Answer::Unreachable;
        };
        if closes(&answered.head.headers) {
            self.line = None;
        }
        self.question.judge(&answered, &self.dialer)
    }

    /// None where the connection failed.
    async fn asked(&mut self) -> Option<Answered> {
        let (question, dialer) = (&self.question, &self.dialer);
        let authority = dialer.authority(question.host());
        let request = question.request(&authority, dialer.is_secured());
        let line = match self.line.take().filter(Line::is_open) {
            Some(line) => line,
            None => Line::to(dialer, question.is_http2()).await?,
        };
        let line = self.line.insert(line);
        line.ask(request, question.limit()).await
    }
}

/// With the authority, as HTTP/2 has it. A cluster's name may be none: then what cannot be part of
/// one becomes `_`.
pub(super) fn absolute(authority: &str, path: &Uri, secured: bool) -> Uri {
    let authority = authority.parse().unwrap_or_else(|_| {
        let plain = |c: char| {
            if c.is_ascii_alphanumeric() || c == '.' {
                c
            } else {
                '_'
            }
        };
        let name: String = authority.chars().map(plain).collect();
        name.parse().unwrap_or(Authority::from_static("mesh"))
    });
    let scheme = if secured { "https" } else { "http" };
    let path = path.path_and_query().map_or("/", |path| path.as_str());
    let made = Uri::builder().scheme(scheme).authority(authority);
    made.path_and_query(path).build().unwrap_or_default()
}

/// Changes headers of a question. Only plain values are read from configuration.
pub(super) fn edit(edits: &HeaderEdits, headers: &mut HeaderMap) {
    for name in &edits.remove {
        headers.remove(name);
    }
    for add in &edits.add {
        let HeaderTemplate::Fixed(value) = &add.value else {
            continue;
        };
        if value.is_empty() && !add.keep_empty {
            continue;
        }
        let there = headers.contains_key(&add.name);
        match add.mode {
            AddMode::Append => {
                headers.append(&add.name, value.clone());
            }
            AddMode::IfAbsent if there => {}
            AddMode::OverwriteIfPresent if !there => {}
            AddMode::IfAbsent | AddMode::Overwrite | AddMode::OverwriteIfPresent => {
                headers.insert(&add.name, value.clone());
            }
        }
    }
}

fn closes(headers: &HeaderMap) -> bool {
    let says = |name: HeaderName| {
        let mut values = headers.get_all(name).into_iter();
        values.any(|value| value.as_bytes().eq_ignore_ascii_case(b"close"))
    };
    says(CONNECTION) || says(HeaderName::from_static("proxy-connection"))
}
