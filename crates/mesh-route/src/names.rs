//! Which headers cannot be there: a bit for the name of each that is, so that most conditions on others
//! cost no search.

use http::header::HOST;
use http::{HeaderMap, HeaderName};
use mesh_core::model::{HeaderKey, HeaderMatch, ValueMatch};

/// The names of a request's headers, as far as 64 bits can tell them apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names(u64);

// === impl Names ===

impl Names {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        Self(headers.keys().fold(0, |names, name| names | bit(name)))
    }

    /// Whether one of these conditions is not met because its header is missing. If not, they have to
    /// be looked at.
    pub(crate) fn lack_one(self, wanted: &[HeaderMatch]) -> bool {
        wanted.iter().any(|want| self.lack(want))
    }

    fn lack(self, want: &HeaderMatch) -> bool {
        // The authority has two names.
        let HeaderKey::Header(name) = &want.key else {
            return false;
        };
        self.0 & bit(name) == 0
            && !want.missing_is_empty
            && want.value != ValueMatch::Present(want.invert)
            && *name != HOST
    }
}

/// By length and ends: names that begin alike end differently.
fn bit(name: &HeaderName) -> u64 {
    let name = name.as_str().as_bytes();
    let (first, last) = (name.first(), name.last());
    let [first, last] = [first, last].map(|byte| byte.copied().map_or(0, usize::from));
    1 << ((name.len() + 5 * first + 17 * last) % 64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::Head;
    use crate::matches::unmet_beside_path;
    use http::{HeaderValue, Request};
    use mesh_core::model::{Condition, StringMatch};

    #[test]
    fn what_is_lacking_is_never_what_would_be_met() {
        let names = ["host", "x-a", "x-b", "user-agent", "te", "x-long-name"];
        let values = [
            ValueMatch::Text(StringMatch::Exact("1".into())),
            ValueMatch::Text(StringMatch::Exact(String::new())),
            ValueMatch::Range(0, 9),
            ValueMatch::Present(true),
            ValueMatch::Present(false),
        ];
        let mut lacking = 0;
        for there in 0..1 << names.len() {
            let mut request = Request::get("/").body(()).unwrap();
            for (at, name) in names.iter().enumerate() {
                if there & (1 << at) != 0 {
                    let one = HeaderValue::from_static("1");
                    request.headers_mut().insert(*name, one);
                }
            }
            for (name, value) in names
                .iter()
                .flat_map(|name| values.iter().map(move |it| (name, it)))
            {
                for (invert, missing_is_empty) in
                    [(false, false), (false, true), (true, false), (true, true)]
                {
                    let mut condition = Condition::default();
                    condition.headers.push(HeaderMatch {
                        key: HeaderKey::Header(HeaderName::from_static(name)),
                        value: value.clone(),
                        invert,
                        missing_is_empty,
                    });
                    let lack = Names::of(request.headers()).lack_one(&condition.headers);
                    let met = unmet_beside_path(&condition, &Head::of(&request), 0).is_none();
                    assert!(!(lack && met), "{condition:?} {request:?}");
                    lacking += usize::from(lack);
                }
            }
        }
        assert!(lacking > 1000, "{lacking}");
    }
}
