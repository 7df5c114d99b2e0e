//! A format string, compiled once.

use super::entry::{Entry, Line};
use super::operator::{Field, Operator};
use http::HeaderName;
use mesh_core::exchange::Watch;
use mesh_core::{Exchange, Invalid};

/// A compiled access log format: text with `%OPERATOR(argument):length%` in it, as Envoy has it.
///
/// See the [module documentation](super) for the operators.
#[derive(Clone, Debug)]
pub struct Format {
    source: String,
    parts: Vec<Part>,
    wanted: Wanted,
}

/// What formats need to be told of a request and its response, so that nothing else has to be
/// kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    pub(super) request: Vec<HeaderName>,
    pub(super) response: Vec<HeaderName>,
    pub(super) trailers: Vec<HeaderName>,
    pub(super) target: bool,
    pub(super) request_end: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    /// Text of so many bytes, which are copied as one word.
    Short([u8; 8], usize),
    Value(Operator, Option<usize>),
}

/// Istio's format where MeshConfig has none (istio `pilot/pkg/model/telemetry_logging.go`).
const ISTIO: &str = concat!(
    "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" ",
    "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% ",
    "%CONNECTION_TERMINATION_DETAILS% \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" ",
    "%BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% ",
    "\"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" ",
    "\"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% ",
    "%UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% ",
    "%REQUESTED_SERVER_NAME% %ROUTE_NAME%\n",
);

// === impl Format ===

impl Format {
    /// Compiles a format string.
    ///
    /// # Errors
    /// If an operator is unknown or malformed; the message has its place in bytes from 0.
    pub fn parse(source: &str) -> Result<Self, Invalid> {
        let mut parts = Vec::new();
        let mut rest = source;
        while let Some(at) = rest.find('%') {
            text(&mut parts, &rest[..at]);
            let place = source.len() - rest.len() + at;
            let after = &rest[at + 1..];
            if let Some(after) = after.strip_prefix('%') {
                text(&mut parts, "%");
                rest = after;
                continue;
            }
            let (part, after) = operator(after).map_err(|error| {
                Invalid::new("", format!("at byte {place}: {}", error.message()))
            })?;
            parts.push(part);
            rest = after;
        }
        text(&mut parts, rest);
        let wanted = Wanted::of(&parts);
        parts.iter_mut().for_each(Part::shorten);
        Ok(Self {
            source: source.to_owned(),
            parts,
            wanted,
        })
    }

    /// Istio's format where the mesh configuration has none.
    pub fn istio_default() -> Self {
        Self::parse(ISTIO).expect("every operator of Istio's format is known")
    }

    /// The format string.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// What has to be kept of a request for this format.
    pub fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// Appends the line for a request to `out`. Nothing is allocated where `out` has room.
    pub fn write(&self, exchange: &Exchange, entry: &Entry, hostname: &str, out: &mut Vec<u8>) {
        exchange.with_notes(|notes| {
            let line = Line {
                exchange,
                notes,
                entry,
                hostname,
            };
            for part in &self.parts {
                match part {
                    Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                    Part::Short(text, length) => {
                        let end = out.len() + length;
                        out.extend_from_slice(text);
                        out.truncate(end);
                    }
                    Part::Value(operator, length) => {
                        let at = out.len();
                        if !line.write(operator, out) {
                            out.push(b'-');
                        }
                        shorten(out, at, *length);
                    }
                }
            }
        });
    }
}

// === impl Part ===

impl Part {
    /// Makes a short text one that is copied faster.
    fn shorten(&mut self) {
        if let Self::Text(text) = self {
            let mut word = [0; 8];
            let Some(front) = word.get_mut(..text.len()) else {
                return;
            };
            front.copy_from_slice(text.as_bytes());
            *self = Self::Short(word, text.len());
        }
    }
}

fn text(parts: &mut Vec<Part>, more: &str) {
    if more.is_empty() {
        return;
    }
    if let Some(Part::Text(last)) = parts.last_mut() {
        last.push_str(more);
    } else {
        parts.push(Part::Text(more.to_owned()));
    }
}

/// Reads one operator, whose opening `%` is already gone, and returns what follows it.
fn operator(text: &str) -> Result<(Part, &str), Invalid> {
    let wrong = |message: String| Err(Invalid::new("", message));
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let end = text.find(|c| !is_name(c)).unwrap_or(text.len());
    let (name, mut rest) = text.split_at(end);
    let mut argument = None;
    if let Some(inside) = rest.strip_prefix('(') {
        let Some((found, after)) = inside.split_once(')') else {
            return wrong(format!("the argument of {name} is not closed"));
        };
        argument = Some(found);
        rest = after;
    }
    let mut length = None;
    if let Some(inside) = rest.strip_prefix(':') {
        let end = inside
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(inside.len());
        let (digits, after) = inside.split_at(end);
        let Ok(number) = digits.parse() else {
            return wrong(format!("the length of {name} is not a number"));
        };
        length = Some(number);
        rest = after;
    }
    let Some(rest) = rest.strip_prefix('%') else {
        return wrong(format!("operator {name:?} is not closed with %"));
    };
    Ok((Part::Value(Operator::parse(name, argument)?, length), rest))
}

/// Cuts what was written from `at` on to `length` bytes, not through a character.
fn shorten(out: &mut Vec<u8>, at: usize, length: Option<usize>) {
    let Some(end) = length.and_then(|length| at.checked_add(length)) else {
        return;
    };
    if out.len() <= end {
        return;
    }
    let mut end = end;
    // 10xxxxxx continues a character of UTF-8.
    while end > at && out[end] & 0xc0 == 0x80 {
        end -= 1;
    }
    out.truncate(end);
}

// === impl Wanted ===

impl Wanted {
    /// Nothing but what costs nothing.
    pub const NOTHING: Self = Self {
        request: Vec::new(),
        response: Vec::new(),
        trailers: Vec::new(),
        target: false,
        request_end: false,
    };

    /// What has to be kept of a request's head when it changes; none if nothing has.
    pub(crate) fn watch(&self) -> Option<Watch> {
        (self.target || !self.request.is_empty()).then(|| Watch {
            target: self.target,
            headers: self.request.clone(),
        })
    }

    /// Whether the time of the request's end is wanted.
    pub fn request_end(&self) -> bool {
        self.request_end
    }

    fn of(parts: &[Part]) -> Self {
        let mut wanted = Self::default();
        for part in parts {
            let Part::Value(operator, _) = part else {
                continue;
            };
            match operator {
                Operator::Request(first, second) => {
                    for field in [Some(first), second.as_ref()].into_iter().flatten() {
                        match field {
                            Field::Header(name) => add(&mut wanted.request, name),
                            _ => wanted.target = true,
                        }
                    }
                }
                Operator::Response(first, second) => {
                    for field in [Some(first), second.as_ref()].into_iter().flatten() {
                        if let Field::Header(name) = field {
                            add(&mut wanted.response, name);
                        }
                    }
                }
                Operator::Trailer(first, second) => {
                    for name in [Some(first), second.as_ref()].into_iter().flatten() {
                        add(&mut wanted.trailers, name);
                    }
                }
                Operator::RequestDuration => wanted.request_end = true,
                _ => {}
            }
        }
        wanted
    }

    /// Adds what another format needs.
    pub fn join(&mut self, other: &Self) {
        for (ours, theirs) in [
            (&mut self.request, &other.request),
            (&mut self.response, &other.response),
            (&mut self.trailers, &other.trailers),
        ] {
            for name in theirs {
                add(ours, name);
            }
        }
        self.target |= other.target;
        self.request_end |= other.request_end;
    }
}

fn add(names: &mut Vec<HeaderName>, name: &HeaderName) {
    if !names.contains(name) {
        names.push(name.clone());
    }
}

#[cfg(test)]
mod tests;
