//! Header values with Envoy's format operators: `%REQ(x-user)%`, `100%%`.

use http::HeaderValue;
use mesh_core::Invalid;
use mesh_core::model::{HeaderTemplate, Piece};

/// Reads a value. Text without an operator becomes one fixed value.
pub(in crate::read) fn parse(text: &[u8]) -> Result<HeaderTemplate, Invalid> {
    let mut pieces = Vec::new();
    let mut plain = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = split(rest) {
        plain.extend_from_slice(before);
        let Some((operator, after)) = split(after) else {
            return Err(refusal("a lone %; a percent sign is written %%"));
        };
        if operator.is_empty() {
            plain.push(b'%');
        } else {
            flush(&mut plain, &mut pieces)?;
            pieces.push(piece(operator)?);
        }
        rest = after;
    }
    plain.extend_from_slice(rest);
    if pieces.is_empty() {
        return Ok(HeaderTemplate::Fixed(value(&plain)?));
    }
    flush(&mut plain, &mut pieces)?;
    Ok(HeaderTemplate::Pieces(pieces))
}

fn split(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|byte| *byte == b'%')?;
    Some((&text[..at], &text[at + 1..]))
}

fn flush(plain: &mut Vec<u8>, pieces: &mut Vec<Piece>) -> Result<(), Invalid> {
    if plain.is_empty() {
        return Ok(());
    }
    value(plain)?;
    let text = String::from_utf8(std::mem::take(plain))
        .map_err(|_| refusal("text around format operators has to be UTF-8"))?;
    pieces.push(Piece::Text(text));
    Ok(())
}

fn value(text: &[u8]) -> Result<HeaderValue, Invalid> {
    HeaderValue::from_bytes(text)
        .map_err(|_| refusal("not the value of a header: control characters are not allowed"))
}

fn piece(operator: &[u8]) -> Result<Piece, Invalid> {
    let operator = String::from_utf8_lossy(operator);
    Piece::parse(&operator)
        .ok_or_else(|| refusal(format!("format operator %{operator}% is not supported")))
}

fn refusal(message: impl Into<String>) -> Invalid {
    Invalid::new("", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;
    use proptest::prelude::*;

    #[test]
    fn text_and_operators_are_told_apart() {
        let fixed = |text| HeaderTemplate::Fixed(HeaderValue::from_static(text));
        assert_eq!(parse(b"a b"), Ok(fixed("a b")));
        assert_eq!(parse(b"%%REQ(x)%% 100%%"), Ok(fixed("%REQ(x)% 100%")));
        assert_eq!(
            parse(b"from %DOWNSTREAM_REMOTE_ADDRESS%, %REQ(X-User)%!"),
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
    fn what_cannot_be_filled_in_is_refused() {
        for text in [
            &b"50%"[..],
            b"%NO_SUCH%",
            b"%REQ(:nothing)%",
            b"%REQ(x",
            b"%RESP()%",
            b"a\nb",
            b"\xff%PROTOCOL%",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = parse(&text);
        }
    }
}
