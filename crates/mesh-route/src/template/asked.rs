//! The request, as far as values of headers are made from it.

use crate::head::Head;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use mesh_core::Exchange;
use mesh_core::model::{HeaderEdits, HeaderKey, HeaderTemplate, Piece};

/// Where values of the request come from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Asked<'a> {
    /// The request is there.
    Request(&'a Method, &'a Uri, &'a HeaderMap),
    /// It is gone, and this was kept of it.
    Kept(&'a Kept),
    #[cfg(test)]
    Nothing,
}

/// What values on the response need of the request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept(Vec<(HeaderKey, HeaderValue)>);

// === impl Asked ===

impl Asked<'_> {
    /// Writes the first value of a header. Whether it is there.
    pub(super) fn header(&self, name: &HeaderName, out: &mut Vec<u8>) -> bool {
        let value = match self {
            Self::Request(_, _, headers) => headers.get(name),
            Self::Kept(kept) => kept.find(|key| matches!(key, HeaderKey::Header(it) if it == name)),
            #[cfg(test)]
            Self::Nothing => None,
        };
        out.extend_from_slice(value.map_or(b"", HeaderValue::as_bytes));
        value.is_some()
    }

    /// Writes a part of the request line. Whether it is there.
    pub(super) fn part(
        &self,
        key: &HeaderKey,
        exchange: Option<&Exchange>,
        out: &mut Vec<u8>,
    ) -> bool {
        match self {
            Self::Request(method, uri, headers) => {
                let text = part(&Head::with(exchange, method, uri, headers), key);
                out.extend_from_slice(text.unwrap_or_default().as_bytes());
                text.is_some()
            }
            Self::Kept(kept) => {
                let value = kept.find(|it| it == key);
                out.extend_from_slice(value.map_or(b"", HeaderValue::as_bytes));
                value.is_some()
            }
            #[cfg(test)]
            Self::Nothing => false,
        }
    }
}

fn part<'a>(head: &Head<'a>, key: &HeaderKey) -> Option<&'a str> {
    match key {
        HeaderKey::Method => Some(head.method().as_str()),
        HeaderKey::Authority => head.authority(),
        HeaderKey::Scheme => Some(head.scheme()),
        HeaderKey::Path => head.path_and_query(),
        // Not made by whoever reads configuration.
        HeaderKey::Header(_) => None,
    }
}

// === impl Kept ===

impl Kept {
    /// What these edits of the response need.
    pub(crate) fn of<'e>(
        edits: impl IntoIterator<Item = &'e HeaderEdits>,
        head: &Head<'_>,
    ) -> Self {
        let mut kept = Self::default();
        for edit in edits.into_iter().flat_map(|edits| &edits.add) {
            if let HeaderTemplate::Pieces(pieces) = &edit.value {
                pieces.iter().for_each(|piece| kept.keep(piece, head));
            }
        }
        kept
    }

    fn keep(&mut self, piece: &Piece, head: &Head<'_>) {
        match piece {
            Piece::RequestHeader(name) => {
                if let Some(value) = head.headers().get(name) {
                    self.push(HeaderKey::Header(name.clone()), value.clone());
                }
            }
            Piece::RequestPart(key) => {
                if let Some(Ok(value)) = part(head, key).map(HeaderValue::from_str) {
                    self.push(key.clone(), value);
                }
            }
            Piece::FirstOf(first, second) => {
                self.keep(first, head);
                self.keep(second, head);
            }
            Piece::Shortened(piece, _) => self.keep(piece, head),
            _ => {}
        }
    }

    fn find(&self, wanted: impl Fn(&HeaderKey) -> bool) -> Option<&HeaderValue> {
        let kept = self.0.iter().find(|(kept, _)| wanted(kept));
        kept.map(|(_, value)| value)
    }

    pub(crate) fn push(&mut self, key: HeaderKey, value: HeaderValue) {
        self.0.push((key, value));
    }

    /// As lines, `name: value`.
    pub(crate) fn lines(&self) -> impl Iterator<Item = HeaderValue> {
        self.0.iter().filter_map(|(key, value)| {
            let line = [name_of(key).as_bytes(), b": ", value.as_bytes()].concat();
            HeaderValue::from_bytes(&line).ok()
        })
    }

    /// Adds what a line says, if it says anything.
    pub(crate) fn read(&mut self, line: &HeaderValue) {
        let line = line.as_bytes();
        let Some(colon) = line.windows(2).position(|pair| pair == b": ") else {
            return;
        };
        if let (Some(key), Ok(value)) = (
            key_of(&line[..colon]),
            HeaderValue::from_bytes(&line[colon + 2..]),
        ) {
            self.push(key, value);
        }
    }
}

fn name_of(key: &HeaderKey) -> &str {
    match key {
        HeaderKey::Method => ":method",
        HeaderKey::Authority => ":authority",
        HeaderKey::Scheme => ":scheme",
        HeaderKey::Path => ":path",
        HeaderKey::Header(name) => name.as_str(),
    }
}

fn key_of(name: &[u8]) -> Option<HeaderKey> {
    Some(match name {
        b":method" => HeaderKey::Method,
        b":authority" => HeaderKey::Authority,
        b":scheme" => HeaderKey::Scheme,
        b":path" => HeaderKey::Path,
        name => HeaderKey::Header(HeaderName::from_bytes(name).ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::{Facts, Response};
    use http::{Request, Version};
    use mesh_core::WallClock;
    use mesh_core::model::{AddMode, HeaderAdd};

    fn edit(piece: Piece) -> HeaderAdd {
        HeaderAdd {
            name: HeaderName::from_static("x-out"),
            value: HeaderTemplate::Pieces(vec![piece]),
            mode: AddMode::Append,
            keep_empty: false,
        }
    }

    fn header(name: &'static str) -> Box<Piece> {
        Box::new(Piece::RequestHeader(HeaderName::from_static(name)))
    }

    /// The value that a piece has while the request is there, and after it is gone.
    fn both(piece: Piece) -> [Option<String>; 2] {
        let request = Request::get("http://a.test:81/p?q=1")
            .header("x-a", "one")
            .header("x-empty", "")
            .body(())
            .unwrap();
        let facts = Facts {
            exchange: None,
            version: Version::HTTP_11,
            clock: &WallClock::default(),
            response: Response::None,
        };
        let edit = edit(piece);
        let mut edits = HeaderEdits::default();
        edits.add.push(edit.clone());
        let kept = Kept::of([&edits], &Head::of(&request));
        // By way of lines, as the router hands it to whoever answers.
        let mut again = Kept::default();
        kept.lines().for_each(|line| again.read(&line));
        let there = Asked::Request(request.method(), request.uri(), request.headers());
        [there, Asked::Kept(&again)].map(|asked| {
            let value = facts.value(&edit, asked, None)?;
            value.to_str().ok().map(str::to_owned)
        })
    }

    #[test]
    fn the_request_line_is_told_whether_the_request_is_still_there_or_not() {
        for (key, expected) in [
            (HeaderKey::Method, "GET"),
            (HeaderKey::Authority, "a.test:81"),
            (HeaderKey::Scheme, "http"),
            (HeaderKey::Path, "/p?q=1"),
        ] {
            let told = both(Piece::RequestPart(key));
            assert_eq!(told, [Some(expected.to_owned()), Some(expected.to_owned())]);
        }
    }

    #[test]
    fn the_second_of_two_is_taken_where_the_first_is_not_there_at_all() {
        let first_of = |first, second| both(Piece::FirstOf(header(first), header(second)));
        let one = || [Some("one".to_owned()), Some("one".to_owned())];
        assert_eq!(first_of("x-none", "x-a"), one());
        assert_eq!(first_of("x-a", "x-none"), one());
        // Seen of Envoy: what is there and empty is there.
        assert_eq!(first_of("x-empty", "x-a"), [None, None]);
        assert_eq!(first_of("x-none", "x-none"), [None, None]);
    }

    #[test]
    fn only_the_first_bytes_of_a_value_are_written_if_asked_so() {
        let shortened = |length| both(Piece::Shortened(header("x-a"), length));
        assert_eq!(shortened(2), [Some("on".to_owned()), Some("on".to_owned())]);
        assert_eq!(
            shortened(9),
            [Some("one".to_owned()), Some("one".to_owned())]
        );
        assert_eq!(shortened(0), [None, None]);
        let nested = Piece::FirstOf(header("x-none"), header("x-a"));
        let nested = both(Piece::Shortened(Box::new(nested), 1));
        assert_eq!(nested, [Some("o".to_owned()), Some("o".to_owned())]);
    }
}
