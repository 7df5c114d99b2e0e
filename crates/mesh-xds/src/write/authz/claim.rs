//! Claims of tokens, as what Envoy calls metadata of its filter `jwt_authn`.

use crate::pb::envoy::r#type::matcher::v3::list_matcher::MatchPattern as ListPattern;
use crate::pb::envoy::r#type::matcher::v3::metadata_matcher::{PathSegment, path_segment};
use crate::pb::envoy::r#type::matcher::v3::value_matcher::MatchPattern;
use crate::pb::envoy::r#type::matcher::v3::{
    ListMatcher, MetadataMatcher, OrMatcher, ValueMatcher,
};
use crate::wire::names::{JWT, JWT_PAYLOAD};
use crate::wire::text::to_string_match;
use mesh_core::model::{ClaimMatch, StringMatch};

pub(in crate::write) fn write(claim: &ClaimMatch) -> MetadataMatcher {
    let way = claim.path.iter().map(|name| name.as_str());
    let segment = |key: &str| PathSegment {
        segment: Some(path_segment::Segment::Key(key.to_owned())),
    };
    let single = match &claim.values[..] {
        [one] => text(one),
        all => any(all.iter().map(text).collect()),
    };
    MetadataMatcher {
        filter: JWT.to_owned(),
        path: std::iter::once(JWT_PAYLOAD)
            .chain(way)
            .map(segment)
            .collect(),
        value: Some(match claim.list {
            false => single,
            true => any(vec![one_of(single.clone()), single]),
        }),
        invert: false,
    }
}

fn text(value: &StringMatch) -> ValueMatcher {
    ValueMatcher {
        match_pattern: Some(MatchPattern::StringMatch(to_string_match(value))),
    }
}

fn any(value_matchers: Vec<ValueMatcher>) -> ValueMatcher {
    ValueMatcher {
        match_pattern: Some(MatchPattern::OrMatch(OrMatcher { value_matchers })),
    }
}

fn one_of(value: ValueMatcher) -> ValueMatcher {
    let list = ListMatcher {
        match_pattern: Some(ListPattern::OneOf(Box::new(value))),
    };
    ValueMatcher {
        match_pattern: Some(MatchPattern::ListMatch(Box::new(list))),
    }
}
