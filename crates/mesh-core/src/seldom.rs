//! Looking for a header that most messages do not have.

use http::{HeaderMap, HeaderName, HeaderValue};

/// With more names than this, one is searched for.
const FEW: usize = 12;

/// The first value of a header, as [`HeaderMap::get`] has it. Where there are few names it takes less to
/// look at each of them than to compute where the one would be.
///
/// # Example
///
/// ```
/// let request = http::Request::get("/").header("host", "a").body(()).unwrap();
/// let found = mesh_core::seldom::get(request.headers(), &http::header::ORIGIN);
/// assert!(found.is_none());
/// ```
#[inline]
pub fn get<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h HeaderValue> {
    if headers.keys_len() <= FEW && !headers.keys().any(|there| there == name) {
        return None;
    }
    headers.get(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_found_among_few_and_among_many() {
        let name = |at: usize| HeaderName::try_from(format!("x-{at}")).unwrap();
        let mut headers = HeaderMap::new();
        for count in 0..2 * FEW {
            for at in 0..2 * FEW {
                let found = get(&headers, &name(at));
                assert_eq!(found.is_some(), at < count, "{at} of {count}");
                assert!(found.is_none_or(|value| value == "first"));
            }
            headers.append(name(count), HeaderValue::from_static("first"));
            headers.append(name(count), HeaderValue::from_static("second"));
        }
    }
}
