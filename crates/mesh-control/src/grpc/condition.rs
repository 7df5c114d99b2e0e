//! Which calls a rule is for, in terms that gRPC has (gRFC A28).

use mesh_core::model::{Condition, HeaderKey, HeaderMatch, PathMatch, StringMatch, ValueMatch};

/// How many routes one rule may become. Header matches beyond keep what istiod sends for them,
/// which misses calls without the header.
const MOST: usize = 16;

/// The conditions that together are this one. None if no gRPC call can meet it.
pub(super) fn split(condition: &Condition) -> Vec<Condition> {
    // gRPC has no word for these, and its calls bring no cookies.
    if !condition.cookies.is_empty() || condition.tls.is_some() {
        return Vec::new();
    }
    let query = condition.query.iter();
    if query
        .filter(|one| one.value != ValueMatch::Present(false))
        .count()
        > 0
    {
        return Vec::new();
    }
    let mut all: Vec<Condition> = paths(&condition.path)
        .into_iter()
        .map(|path| {
            let mut one = Condition::default();
            one.path = path;
            one.share = condition.share;
            one
        })
        .collect();
    for header in &condition.headers {
        let fixed = match &header.key {
            HeaderKey::Method => Some("POST"),
            HeaderKey::Scheme => Some("http"),
            _ => None,
        };
        match fixed {
            Some(value) if holds(header, value.as_bytes()) => {}
            Some(_) => return Vec::new(),
            None => all = with(all, header),
        }
    }
    all
}

fn paths(path: &PathMatch) -> Vec<PathMatch> {
    match path {
        // Nor for templates.
        PathMatch::Connect | PathMatch::Template(_) => Vec::new(),
        PathMatch::SeparatedPrefix(path) => vec![
            PathMatch::Exact(path.clone()),
            PathMatch::Prefix(format!("{path}/")),
        ],
        PathMatch::SeparatedPrefixIgnoreCase(path) => vec![
            PathMatch::ExactIgnoreCase(path.clone()),
            PathMatch::PrefixIgnoreCase(format!("{path}/")),
        ],
        other => vec![other.clone()],
    }
}

/// Adds a header match to each condition, twice where it also takes calls without the header.
fn with(all: Vec<Condition>, header: &HeaderMatch) -> Vec<Condition> {
    let mut plain = header.clone();
    plain.missing_is_empty = false;
    let mut ways = Vec::new();
    if let ValueMatch::Present(present) = header.value {
        // Node takes no notice of the value, but of the inversion.
        plain.value = ValueMatch::Present(true);
        plain.invert = present == header.invert;
    } else if header.missing_is_empty && holds(header, b"") && all.len() * 2 <= MOST {
        ways.push(HeaderMatch {
            key: header.key.clone(),
            value: ValueMatch::Present(true),
            invert: true,
            missing_is_empty: false,
        });
    }
    ways.push(plain);
    let add = |one: &Condition, way: &HeaderMatch| {
        let mut one = one.clone();
        one.headers.push(way.clone());
        one
    };
    let each = all.iter();
    each.flat_map(|one| ways.iter().map(move |way| add(one, way)))
        .collect()
}

/// Whether a header with this value matches.
fn holds(header: &HeaderMatch, value: &[u8]) -> bool {
    let matches = match &header.value {
        ValueMatch::Text(text) => StringMatch::matches(text, value),
        ValueMatch::Present(present) => *present,
        ValueMatch::Range(start, end) => std::str::from_utf8(value)
            .ok()
            .and_then(|text| text.parse::<i64>().ok())
            .is_some_and(|number| (*start..*end).contains(&number)),
    };
    matches != header.invert
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_core::model::{Fraction, QueryMatch};
    use proptest::prelude::*;
    use proptest::sample::select;

    fn header(name: &str) -> HeaderKey {
        HeaderKey::Header(name.parse().unwrap())
    }

    fn of(headers: Vec<HeaderMatch>) -> Condition {
        let mut condition = Condition::default();
        condition.headers = headers;
        condition
    }

    #[test]
    fn gives_a_separated_prefix_as_a_path_and_a_prefix() {
        let mut condition = Condition::default();
        condition.path = PathMatch::SeparatedPrefix("/a.B".to_owned());
        condition.share = Some(Fraction::millionths(7));
        let split = split(&condition);
        let paths: Vec<_> = split.iter().map(|one| one.path.clone()).collect();
        let expected = [
            PathMatch::Exact("/a.B".to_owned()),
            PathMatch::Prefix("/a.B/".to_owned()),
        ];
        assert_eq!(paths, expected);
        assert!(split.iter().all(|one| one.share == condition.share));
    }

    #[test]
    fn leaves_out_what_no_call_can_meet() {
        let mut connect = Condition::default();
        connect.path = PathMatch::Connect;
        let mut query = Condition::default();
        query.query = vec![QueryMatch {
            name: "a".to_owned(),
            value: ValueMatch::Present(true),
        }];
        let get = StringMatch::Exact("GET".to_owned());
        let method = of(vec![HeaderMatch::text(HeaderKey::Method, get)]);
        for condition in [connect, query, method] {
            assert_eq!(split(&condition), Vec::new(), "{condition:?}");
        }
    }

    #[test]
    fn one_rule_does_not_become_any_number_of_routes() {
        let other = |index: usize| HeaderMatch {
            key: header(&format!("x-{index}")),
            value: ValueMatch::Text(StringMatch::Exact("a".to_owned())),
            invert: true,
            missing_is_empty: true,
        };
        let split = split(&of((0..100).map(other).collect()));
        assert_eq!(split.len(), MOST);
        assert!(split.iter().all(|one| one.headers.len() == 100));
    }

    /// What a header match says of a header, as gRPC's clients agree on it: nothing is taken for
    /// an empty value, and presence is asked for by `true`.
    fn in_grpc(header: &HeaderMatch, value: Option<&[u8]>) -> Option<bool> {
        if header.missing_is_empty || header.value == ValueMatch::Present(false) {
            return None;
        }
        match (value, &header.value) {
            (value, ValueMatch::Present(_)) => Some(value.is_some() != header.invert),
            (Some(value), _) => Some(holds(header, value)),
            (None, _) => Some(false),
        }
    }

    /// The same as Envoy sees it.
    fn in_envoy(header: &HeaderMatch, value: Option<&[u8]>) -> bool {
        match (value, &header.value) {
            (value, ValueMatch::Present(present)) => (value.is_some() == *present) != header.invert,
            (None, _) if !header.missing_is_empty => false,
            (value, _) => holds(header, value.unwrap_or_default()),
        }
    }

    fn header_match() -> impl Strategy<Value = HeaderMatch> {
        let text = select(vec!["", "a", "b"]).prop_map(str::to_owned);
        let value = prop_oneof![
            text.clone()
                .prop_map(StringMatch::Exact)
                .prop_map(ValueMatch::Text),
            text.prop_map(StringMatch::Prefix)
                .prop_map(ValueMatch::Text),
            any::<bool>().prop_map(ValueMatch::Present),
            Just(ValueMatch::Range(0, 5)),
        ];
        let name = select(vec!["x", "y", "z"]);
        (name, value, any::<bool>(), any::<bool>()).prop_map(
            |(name, value, invert, missing_is_empty)| HeaderMatch {
                key: header(name),
                value,
                invert,
                missing_is_empty,
            },
        )
    }

    proptest! {
        #[test]
        fn the_parts_take_the_calls_that_the_whole_takes(
            headers in prop::collection::vec(header_match(), 0..5),
            values in prop::array::uniform3(select(vec![None, Some(""), Some("a"), Some("3")])),
        ) {
            let value = |one: &HeaderMatch| -> Option<&[u8]> {
                let at = ["x", "y", "z"].iter().position(|name| one.key == header(name));
                values[at.unwrap()].map(str::as_bytes)
            };
            let whole = headers.iter().all(|one| in_envoy(one, value(one)));
            let parts = split(&of(headers));
            let takes = |part: &Condition| {
                let mut each = part.headers.iter();
                each.try_fold(true, |all, one| Some(all & in_grpc(one, value(one))?))
            };
            let parts: Option<Vec<bool>> = parts.iter().map(takes).collect();
            prop_assert_eq!(parts.map(|parts| parts.contains(&true)), Some(whole));
        }
    }
}
