//! What a service wants changed of a request that it allows.

use http::header::HOST;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use mesh_core::exchange::ReplyEdit;
use std::collections::BTreeMap;

/// What a service wants changed, in the order in which Envoy does it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Edits {
    /// Set, each in place of any of the same name.
    pub set: Vec<(Part, HeaderValue)>,
    /// Put beside those of the same name.
    pub add: Vec<(HeaderName, HeaderValue)>,
    /// Put behind the value of those that are there, after a comma; nothing where there is none.
    pub append: Vec<(HeaderName, HeaderValue)>,
    /// Taken out.
    pub remove: Vec<HeaderName>,
    /// Parameters of the query set. Those of a query that is changed are put in order, as in Envoy.
    pub query_set: Vec<(String, String)>,
    /// Parameters of the query taken out.
    pub query_remove: Vec<String>,
    /// Changes of the response.
    pub reply: Vec<ReplyEdit>,
}

/// A part of the head of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// A header.
    Header(HeaderName),
    /// `:method`.
    Method,
    /// `:path`, with the query.
    Path,
    /// `:authority`, or `host`.
    Authority,
    /// `:scheme`, which is left as it is.
    Scheme,
}

/// What cannot be put into a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unusable;

// === impl Part ===

impl Part {
    pub(super) fn named(name: &str) -> Result<Self, Unusable> {
        match name {
            ":method" => Ok(Self::Method),
            ":path" => Ok(Self::Path),
            ":authority" => Ok(Self::Authority),
            ":scheme" => Ok(Self::Scheme),
            name if name.eq_ignore_ascii_case("host") => Ok(Self::Authority),
            name => {
                let name = HeaderName::try_from(name).map_err(|_| Unusable)?;
                Ok(Self::Header(name))
            }
        }
    }
}

// === impl Edits ===

impl Edits {
    /// Whether the request stays as it is.
    pub fn leave_the_request(&self) -> bool {
        self.set.is_empty()
            && self.add.is_empty()
            && self.append.is_empty()
            && self.remove.is_empty()
            && self.query_set.is_empty()
            && self.query_remove.is_empty()
    }

    /// Changes the request.
    pub(super) fn apply<B>(&self, request: &mut Request<B>) -> Result<(), Unusable> {
        for (part, value) in &self.set {
            match part {
                Part::Header(name) => {
                    request.headers_mut().insert(name, value.clone());
                }
                Part::Method => {
                    let method = Method::from_bytes(value.as_bytes());
                    *request.method_mut() = method.map_err(|_| Unusable)?;
                }
                Part::Path => set_path(request, value.as_bytes())?,
                Part::Authority => set_authority(request, value)?,
                Part::Scheme => {}
            }
        }
        let headers = request.headers_mut();
        for (name, value) in &self.add {
            headers.append(name, value.clone());
        }
        for (name, value) in &self.append {
            append(headers, name, value)?;
        }
        for name in self.remove.iter().filter(|name| **name != HOST) {
            headers.remove(name);
        }
        if !self.query_set.is_empty() || !self.query_remove.is_empty() {
            let path = request.uri().path_and_query();
            let path = path.map_or("/", PathAndQuery::as_str).to_owned();
            let path = self.query(&path);
            set_path(request, path.as_bytes())?;
        }
        Ok(())
    }

    /// A path with the parameters of its query changed.
    fn query(&self, path: &str) -> String {
        let (plain, query) = path.split_once('?').unwrap_or((path, ""));
        let mut all: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        // Behind the last `&` there may be nothing; between two there is a parameter without a name.
        let mut pairs: Vec<&str> = query.split('&').collect();
        pairs.pop_if(|last| last.is_empty());
        for one in pairs {
            let (key, value) = one.split_once('=').unwrap_or((one, ""));
            all.entry(key).or_default().push(value);
        }
        for (key, value) in &self.query_set {
            all.insert(key, vec![value]);
        }
        for key in &self.query_remove {
            all.remove(key.as_str());
        }
        let pairs = all
            .iter()
            .flat_map(|(key, values)| values.iter().map(move |value| format!("{key}={value}")));
        let query: Vec<_> = pairs.collect();
        match query.is_empty() {
            true => plain.to_owned(),
            false => format!("{plain}?{}", query.join("&")),
        }
    }
}

fn append(headers: &mut HeaderMap, name: &HeaderName, value: &HeaderValue) -> Result<(), Unusable> {
    let mut all = headers.get_all(name).iter();
    let Some(first) = all.next() else {
        return Ok(());
    };
    let mut joined = first.as_bytes().to_vec();
    for more in all.chain([value]) {
        joined.push(b',');
        joined.extend_from_slice(more.as_bytes());
    }
    let joined = HeaderValue::from_bytes(&joined).map_err(|_| Unusable)?;
    headers.insert(name, joined);
    Ok(())
}

fn set_path<B>(request: &mut Request<B>, path: &[u8]) -> Result<(), Unusable> {
    let path = PathAndQuery::try_from(path).map_err(|_| Unusable)?;
    let mut parts = request.uri().clone().into_parts();
    parts.path_and_query = Some(path);
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| Unusable)?;
    Ok(())
}

fn set_authority<B>(request: &mut Request<B>, value: &HeaderValue) -> Result<(), Unusable> {
    if request.uri().authority().is_some() {
        let authority = Authority::try_from(value.as_bytes()).map_err(|_| Unusable)?;
        let mut parts = request.uri().clone().into_parts();
        parts.authority = Some(authority);
        *request.uri_mut() = Uri::from_parts(parts).map_err(|_| Unusable)?;
    }
    if request.uri().authority().is_none() || request.headers().contains_key(HOST) {
        request.headers_mut().insert(HOST, value.clone());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_without_a_name_is_one_but_behind_the_last() {
        let edits = Edits {
            query_set: vec![("q".to_owned(), "v".to_owned())],
            query_remove: vec!["t".to_owned()],
            ..Edits::default()
        };
        for (path, edited) in [
            ("/a", "/a?q=v"),
            ("/a?q=1&t=x&b", "/a?b=&q=v"),
            ("/a?&t=x&b=2", "/a?=&b=2&q=v"),
            ("/a?b=2&", "/a?b=2&q=v"),
        ] {
            assert_eq!(edits.query(path), edited, "{path}");
        }
    }
}
