//! A match block as a condition. Parts are sorted by name, as istiod sorts them.

use mesh_core::model::{
    ClaimCondition, ClaimMatch, Condition, HeaderKey, HeaderMatch, PathMatch, QueryMatch,
    StringMatch, ValueMatch,
};

use crate::spec::virtual_service::HttpMatch;

pub(super) fn condition(block: &HttpMatch) -> Condition {
    let mut condition = Condition::default();
    if let Some(uri) = &block.uri {
        condition.path = path(uri, block.ignore_uri_case);
    }
    let mut headers: Vec<HeaderMatch> = block
        .headers
        .iter()
        .map(|(name, value)| HeaderMatch {
            key: HeaderKey::Header(name.clone()),
            value: value_match(value.as_ref()),
            invert: false,
            missing_is_empty: false,
        })
        .collect();
    headers.extend(
        block
            .without_headers
            .iter()
            .map(|(name, value)| HeaderMatch {
                key: HeaderKey::Header(name.clone()),
                value: match value {
                    Some(text) => ValueMatch::Text(text.clone()),
                    None => ValueMatch::Present(false),
                },
                invert: value.is_some(),
                // A header that is not there differs from every value.
                missing_is_empty: value.is_some(),
            }),
    );
    headers.sort_by_key(|header| match &header.key {
        HeaderKey::Header(name) => name.to_string(),
        _ => String::new(),
    });
    let pseudo = [
        (HeaderKey::Method, &block.method),
        (HeaderKey::Authority, &block.authority),
        (HeaderKey::Scheme, &block.scheme),
    ];
    headers.extend(pseudo.into_iter().filter_map(|(key, value)| {
        value
            .as_ref()
            .map(|value| HeaderMatch::text(key, value.clone()))
    }));
    condition.headers = headers;
    let claim = |(way, value): &(Vec<String>, StringMatch), invert| {
        let mut claim = ClaimMatch::new(way, [value.clone()]);
        claim.list = true;
        ClaimCondition { claim, invert }
    };
    let with = block.claims.iter().map(|one| claim(one, false));
    let without = block.without_claims.iter().map(|one| claim(one, true));
    condition.claims = with.chain(without).collect();
    condition
        .claims
        .sort_by(|a, b| a.claim.path.cmp(&b.claim.path));
    condition.query = block
        .query
        .iter()
        .map(|(name, value)| QueryMatch {
            name: name.clone(),
            value: value_match(value.as_ref()),
        })
        .collect();
    condition
        .query
        .sort_by(|one, other| one.name.cmp(&other.name));
    condition
}

fn value_match(value: Option<&StringMatch>) -> ValueMatch {
    value.map_or(ValueMatch::Present(true), |text| {
        ValueMatch::Text(text.clone())
    })
}

fn path(uri: &StringMatch, ignore_case: bool) -> PathMatch {
    match (uri, ignore_case) {
        (StringMatch::Exact(text), false) => PathMatch::Exact(text.clone()),
        (StringMatch::Exact(text), true) => PathMatch::ExactIgnoreCase(text.clone()),
        (StringMatch::Prefix(text), true) => PathMatch::PrefixIgnoreCase(text.clone()),
        (StringMatch::Prefix(text), false) => PathMatch::Prefix(text.clone()),
        (StringMatch::Regex(pattern), _) => PathMatch::Regex(pattern.clone()),
        // The YAML has no word for the others.
        _ => PathMatch::default(),
    }
}
