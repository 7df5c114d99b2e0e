//! The head of a request as looking at tokens changes it. What nobody changes is not copied.

use http::header::HOST;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use mesh_core::Claims;
use std::borrow::Cow;

/// A head that is worked on.
#[derive(Clone, Debug)]
pub(super) struct Work<'a> {
    uri: Cow<'a, Uri>,
    headers: Cow<'a, HeaderMap>,
    /// What a valid token says.
    pub(super) claims: Option<Claims>,
    /// The route is looked for afterwards.
    pub(super) clear_route: bool,
}

/// What became of a head.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) uri: Option<Uri>,
    pub(super) headers: Option<HeaderMap>,
    pub(super) claims: Option<Claims>,
    pub(super) clear_route: bool,
}

// === impl Work ===

impl<'a> Work<'a> {
    pub(super) fn of(uri: &'a Uri, headers: &'a HeaderMap) -> Self {
        Self {
            uri: Cow::Borrowed(uri),
            headers: Cow::Borrowed(headers),
            claims: None,
            clear_route: false,
        }
    }

    pub(super) fn changes(self) -> Changes {
        let headers = match self.headers {
            Cow::Borrowed(_) => None,
            Cow::Owned(headers) => Some(headers),
        };
        let uri = match self.uri {
            Cow::Borrowed(_) => None,
            Cow::Owned(uri) => Some(uri),
        };
        Changes {
            uri,
            headers,
            claims: self.claims,
            clear_route: self.clear_route,
        }
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Path and query.
    pub(super) fn path(&self) -> Option<&str> {
        self.uri.path_and_query().map(PathAndQuery::as_str)
    }

    pub(super) fn remove(&mut self, name: &HeaderName) {
        // The authority is no header, and every request has it.
        if name != HOST && self.headers.contains_key(name) {
            self.headers.to_mut().remove(name);
        }
    }

    /// Adds a line. What cannot be a value is left out: Envoy sends it as it is.
    pub(super) fn add(&mut self, name: &HeaderName, value: &str) -> bool {
        let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) else {
            return false;
        };
        if name != HOST {
            self.headers.to_mut().append(name.clone(), value);
        }
        true
    }

    pub(super) fn set_path(&mut self, path: &str) {
        let mut parts = self.uri.clone().into_owned().into_parts();
        // Made of what was a path, and escaped where it has to be.
        if let Ok(path) = PathAndQuery::try_from(path) {
            parts.path_and_query = Some(path);
            if let Ok(uri) = Uri::from_parts(parts) {
                self.uri = Cow::Owned(uri);
            }
        }
    }
}
