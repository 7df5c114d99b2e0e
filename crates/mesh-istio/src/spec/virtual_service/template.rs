//! Header values with Envoy's format operators: `%REQ(x-user)%`, `100%%`.

use http::HeaderValue;
use mesh_core::model::{HeaderTemplate, Piece};

use crate::cursor::Cursor;

/// A header value. Text without an operator becomes one fixed value.
pub(super) fn template(cursor: &Cursor<'_>) -> Option<HeaderTemplate> {
    match parse(&cursor.string()?) {
        Ok(template) => Some(template),
        Err(message) => {
            cursor.error(message);
            None
        }
    }
}

fn parse(text: &str) -> Result<HeaderTemplate, String> {
    let mut pieces = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        plain.push_str(before);
        let Some((operator, after)) = after.split_once('%') else {
            return Err("a lone %; write %% for a percent sign".to_owned());
        };
        if operator.is_empty() {
            plain.push('%');
        } else {
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            pieces.push(piece(operator)?);
        }
        rest = after;
    }
    plain.push_str(rest);
    let legal = |text: &str| HeaderValue::from_str(text).is_ok();
    let texts = pieces.iter().filter_map(|piece| match piece {
        Piece::Text(text) => Some(text.as_str()),
        _ => None,
    });
    if !texts.chain([plain.as_str()]).all(legal) {
        return Err("not a header value: control characters are not allowed".to_owned());
    }
    if !pieces.is_empty() {
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        return Ok(HeaderTemplate::Pieces(pieces));
    }
    HeaderValue::from_str(&plain)
        .map(HeaderTemplate::Fixed)
        .map_err(|_| "not a header value".to_owned())
}

fn piece(operator: &str) -> Result<Piece, String> {
    Piece::parse(operator).ok_or_else(|| format!("not supported: format operator %{operator}%"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;

    #[test]
    fn reads_plain_text_and_operators() {
        assert_eq!(
            parse("a b"),
            Ok(HeaderTemplate::Fixed(HeaderValue::from_static("a b")))
        );
        assert_eq!(
            parse("100%%"),
            Ok(HeaderTemplate::Fixed(HeaderValue::from_static("100%")))
        );
        assert_eq!(
            parse("from %DOWNSTREAM_REMOTE_ADDRESS%, %REQ(X-User)%!"),
            Ok(HeaderTemplate::Pieces(vec![
                Piece::Text("from ".to_owned()),
                Piece::DownstreamRemoteAddress,
                Piece::Text(", ".to_owned()),
                Piece::RequestHeader(HeaderName::from_static("x-user")),
                Piece::Text("!".to_owned()),
            ])),
        );
    }

    #[test]
    fn refuses_what_it_cannot_fill_in() {
        for text in [
            "50%",
            "%NO_SUCH%",
            "%REQ(a?b?c)%",
            "%REQ(x",
            "%REQ(x%",
            "a\nb",
            "%RESP()%",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
