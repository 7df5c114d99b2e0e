//! Claims of tokens, from what Envoy calls metadata of its filter `jwt_authn`.

use crate::pb::envoy::r#type::matcher::v3::list_matcher::MatchPattern as ListPattern;
use crate::pb::envoy::r#type::matcher::v3::metadata_matcher::{PathSegment, path_segment};
use crate::pb::envoy::r#type::matcher::v3::value_matcher::MatchPattern;
use crate::pb::envoy::r#type::matcher::v3::{ListMatcher, MetadataMatcher, ValueMatcher};
use crate::wire::names::{JWT, JWT_PAYLOAD};
use crate::wire::text::string_match;
use crate::wire::{At, each, refuse, required};
use mesh_core::model::{ClaimMatch, StringMatch};
use mesh_core::{Invalid, Name};

pub(super) fn read(value: &MetadataMatcher) -> Result<ClaimMatch, Invalid> {
    let MetadataMatcher { invert, .. } = value;
    refuse!(invert);
    let (claim, _) = inverted(value)?;
    Ok(claim)
}

/// The same where it may be asked for the opposite.
pub(in crate::read) fn inverted(value: &MetadataMatcher) -> Result<(ClaimMatch, bool), Invalid> {
    let MetadataMatcher {
        filter,
        path,
        value,
        invert,
    } = value;
    if filter != JWT {
        let message = format!("{filter:?} is not supported: only {JWT} is");
        return Err(Invalid::new("filter", message));
    }
    let path = each("path", path, segment)?;
    let [first, way @ ..] = &path[..] else {
        return Err(Invalid::new("path", "required, but missing"));
    };
    if **first != *JWT_PAYLOAD || way.is_empty() {
        let message = format!("not supported: a claim is under {JWT_PAYLOAD:?}");
        return Err(Invalid::new("path", message));
    }
    let value = required("value", value)?;
    let (values, list) = match listed(value) {
        Some(inner) => (values(inner).at("value")?, true),
        None => (values(value).at("value")?, false),
    };
    let mut claim = ClaimMatch::new(way.iter().cloned(), values);
    claim.list = list;
    Ok((claim, *invert))
}

fn segment(value: &PathSegment) -> Result<Name, Invalid> {
    let path_segment::Segment::Key(key) = required("segment", &value.segment)?;
    Ok(key.into())
}

/// What is asked of a value, or of one of a list alike.
fn listed(value: &ValueMatcher) -> Option<&ValueMatcher> {
    let Some(MatchPattern::OrMatch(both)) = &value.match_pattern else {
        return None;
    };
    let [list, single] = &both.value_matchers[..] else {
        return None;
    };
    let Some(MatchPattern::ListMatch(list)) = &list.match_pattern else {
        return None;
    };
    let ListMatcher { match_pattern } = &**list;
    let Some(ListPattern::OneOf(one)) = match_pattern else {
        return None;
    };
    (**one == *single).then_some(single)
}

fn values(value: &ValueMatcher) -> Result<Vec<StringMatch>, Invalid> {
    match &value.match_pattern {
        Some(MatchPattern::StringMatch(text)) => Ok(vec![string_match(text).at("string_match")?]),
        Some(MatchPattern::OrMatch(all)) if !all.value_matchers.is_empty() => {
            let one = |value: &ValueMatcher| match &value.match_pattern {
                Some(MatchPattern::StringMatch(text)) => string_match(text).at("string_match"),
                _ => Err(Invalid::new("", "only string_match is supported")),
            };
            each("or_match.value_matchers", &all.value_matchers, one)
        }
        _ => {
            let message = "only string_match, and one alike of a list, are supported";
            Err(Invalid::new("", message))
        }
    }
}
