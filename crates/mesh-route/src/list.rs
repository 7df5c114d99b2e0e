//! Headers that are one list on however many lines (RFC 9110 §5.3).

use http::{HeaderMap, HeaderName, HeaderValue};
use std::borrow::Cow;

/// All lines of a header as one, with `separator` between them; lines without anything on them are
/// left out. Allocates only where there are several.
pub fn whole<'a>(headers: &'a HeaderMap, name: &HeaderName, separator: &str) -> Cow<'a, [u8]> {
    let lines = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    let mut lines = lines.filter(|line| !line.is_empty());
    let Some(first) = lines.next() else {
        return Cow::Borrowed(b"");
    };
    let mut all = Cow::Borrowed(first);
    for line in lines {
        let all = all.to_mut();
        all.extend_from_slice(separator.as_bytes());
        all.extend_from_slice(line);
    }
    all
}

/// Appends an item to a list, which has one line from then on.
pub fn append(headers: &mut HeaderMap, name: HeaderName, item: &HeaderValue, separator: &str) {
    let before = whole(headers, &name, separator);
    if before.is_empty() {
        headers.insert(name, item.clone());
        return;
    }
    let mut all = before.into_owned();
    all.extend_from_slice(separator.as_bytes());
    all.extend_from_slice(item.as_bytes());
    if let Ok(all) = HeaderValue::from_maybe_shared(bytes::Bytes::from(all)) {
        headers.insert(name, all);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::VIA;

    fn headers(lines: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(VIA, HeaderValue::from_static(line));
        }
        headers
    }

    #[test]
    fn lines_are_one_list_without_the_empty_ones() {
        let whole = |lines: &[&'static str]| {
            let headers = headers(lines);
            String::from_utf8(whole(&headers, &VIA, ",").into_owned()).unwrap()
        };
        assert_eq!(whole(&[]), "");
        assert_eq!(whole(&["", ""]), "");
        assert_eq!(whole(&["a, b"]), "a, b");
        assert_eq!(whole(&["", "a, b", "", "c"]), "a, b,c");
    }

    #[test]
    fn one_line_is_left_when_an_item_was_appended() {
        let appended = |lines: &[&'static str], item: &'static str| {
            let mut headers = headers(lines);
            append(&mut headers, VIA, &HeaderValue::from_static(item), ", ");
            let lines = headers.get_all(VIA).iter();
            let lines = lines.map(|line| line.to_str().unwrap().to_owned());
            lines.collect::<Vec<_>>()
        };
        assert_eq!(appended(&[], "x"), ["x"]);
        assert_eq!(appended(&["a", "", "b"], "x"), ["a, b, x"]);
    }
}
