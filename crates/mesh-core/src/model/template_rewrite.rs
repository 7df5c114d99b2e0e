//! New paths made of what stood at the names of a template (Envoy's `UriTemplateRewriteConfig`).

use super::PathTemplate;
use super::path_template::is_literal;
use crate::{Invalid, Name};
use std::fmt;

/// A new path with names of a [`PathTemplate`], e.g. `/v2/{id}/of/{user}`. Two are equal when their
/// texts are.
#[derive(Clone)]
pub struct TemplateRewrite {
    text: Name,
    pieces: Vec<Piece>,
}

/// The longest, in bytes (`path_template_rewrite`'s own limit).
const MAX_REWRITE: usize = 256;

#[derive(Clone, Debug)]
enum Piece {
    Text(Name),
    /// What stood at this name.
    Named(Name),
}

// === impl TemplateRewrite ===

impl TemplateRewrite {
    /// Reads a rewrite.
    ///
    /// # Errors
    /// If Envoy would not take it: no `/` at the beginning, two next to each other, characters that
    /// are in no path, what is no name.
    pub fn new(text: impl Into<Name>) -> Result<Self, Invalid> {
        let text = text.into();
        let pieces = pieces(&text)
            .map_err(|why| Invalid::new("", format!("path rewrite {:?} {why}", &*text)))?;
        Ok(Self { text, pieces })
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The first name that the template does not have.
    pub fn unknown(&self, template: &PathTemplate) -> Option<&str> {
        self.pieces.iter().find_map(|piece| match piece {
            Piece::Named(name) if !template.names(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// The new path for one of this template, both without a query. None if the path is of another
    /// template, or the template lacks a name.
    pub fn rewrite(&self, template: &PathTemplate, path: &str) -> Option<String> {
        let captures = template.captures(path)?;
        let mut new = String::with_capacity(self.text.len() + path.len());
        for piece in &self.pieces {
            new += match piece {
                Piece::Text(text) => text,
                Piece::Named(name) => captures.get(name)?,
            };
        }
        Some(new)
    }
}

impl PartialEq for TemplateRewrite {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for TemplateRewrite {}

impl fmt::Debug for TemplateRewrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TemplateRewrite({:?})", self.as_str())
    }
}

fn pieces(text: &str) -> Result<Vec<Piece>, &'static str> {
    if text.len() > MAX_REWRITE {
        return Err("is longer than 256 bytes");
    }
    if !text.starts_with('/') {
        return Err("does not begin with /");
    }
    if text.contains("//") {
        return Err("has two / next to each other");
    }
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find('{').unwrap_or(rest.len());
        let (literal, after) = rest.split_at(end);
        if !literal.bytes().all(|byte| byte == b'/' || is_literal(byte)) {
            return Err("has characters that are in no path");
        }
        if !literal.is_empty() {
            pieces.push(Piece::Text(literal.into()));
        }
        let Some(inside) = after.strip_prefix('{') else {
            break;
        };
        let (name, after) = inside.split_once('}').ok_or("has a { without a }")?;
        if !is_name(name) {
            return Err("has a name that is not letters, digits and _");
        }
        pieces.push(Piece::Named(name.into()));
        rest = after;
    }
    Ok(pieces)
}

/// What may be the name of a part of a template, whatever its length.
pub(super) fn is_name(name: &str) -> bool {
    let mut letters = name.bytes();
    let begins = letters
        .next()
        .is_some_and(|byte| byte.is_ascii_alphabetic());
    begins && letters.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rewrite(with: &str, template: &str, path: &str) -> Option<String> {
        let template = PathTemplate::new(template).unwrap();
        TemplateRewrite::new(with).unwrap().rewrite(&template, path)
    }

    #[test]
    fn what_stood_at_a_name_goes_where_the_name_is() {
        let both = |path: &str| rewrite("/{b}/x{a}", "/v1/{a}/of/{b}", path);
        assert_eq!(both("/v1/7/of/me").as_deref(), Some("/me/x7"));
        assert_eq!(both("/v1/7/of/me/x"), None);
        let part = rewrite("/{p}", "/{p=a/*}/c", "/a/b/c");
        assert_eq!(part.as_deref(), Some("/a/b"));
        let rest = |with: &str| rewrite(with, "/{a}/{r=x/**}/end.js", "/1/x/2/3/end.js");
        assert_eq!(rest("/{r}/{a}").as_deref(), Some("/x/2/3/1"));
        let suffix = rewrite("/{n}", "/img/{n}.png", "/img/a.b.png");
        assert_eq!(suffix.as_deref(), Some("/a.b"));
        let only = rewrite("/x", "/{n=a}", "/a");
        assert_eq!(only.as_deref(), Some("/x"));
        let literal = rewrite("/x{n}", "/{n=a/b}/{m}", "/a/b/c");
        assert_eq!(literal.as_deref(), Some("/xa/b"));
        let all = rewrite("/{n}", "/{n=**}", "/");
        assert_eq!(all.as_deref(), Some("/"));
    }

    #[test]
    fn what_envoy_would_not_take_is_refused() {
        for text in [
            "", "a", "{a}", "/a//b", "/a*", "/{a", "/{1}", "/{}", "/a}", "/a b", "/a?", "/é",
        ] {
            assert!(TemplateRewrite::new(text).is_err(), "{text}");
        }
        assert!(TemplateRewrite::new("/".repeat(2)).is_err());
        assert!(TemplateRewrite::new(format!("/{}", "a".repeat(256))).is_err());
    }

    #[test]
    fn a_name_that_the_template_lacks_is_told() {
        let template = PathTemplate::new("/{a}/*").unwrap();
        let unknown = |text: &str| {
            let rewrite = TemplateRewrite::new(text).unwrap();
            rewrite.unknown(&template).map(str::to_owned)
        };
        assert_eq!(unknown("/{a}/{b}/{c}").as_deref(), Some("b"));
        assert_eq!(unknown("/{a}{a}"), None);
    }

    proptest! {
        #[test]
        fn reading_and_rewriting_never_panic(with in ".{0,30}", template in ".{0,30}", path in ".{0,30}") {
            if let (Ok(with), Ok(template)) = (TemplateRewrite::new(with), PathTemplate::new(template)) {
                with.rewrite(&template, &path);
            }
        }

        /// Each segment has a name; put together again they are the path.
        #[test]
        fn all_names_put_together_are_the_path(
            segments in prop::collection::vec(("[a-c*.]{1,3}", 0_u8..3), 1..5)
        ) {
            let mut template = String::new();
            let mut with = String::new();
            let mut path = String::new();
            let last = segments.len() - 1;
            for (at, (text, kind)) in segments.iter().enumerate() {
                path += &format!("/{text}");
                with += &format!("/{{n{at}}}");
                template += &match kind {
                    0 if !text.contains('*') => format!("/{{n{at}={text}}}"),
                    1 if at == last => format!("/{{n{at}=**}}"),
                    _ => format!("/{{n{at}}}"),
                };
            }
            let template = PathTemplate::new(template).unwrap();
            let new = TemplateRewrite::new(with).unwrap().rewrite(&template, &path);
            prop_assert_eq!(new, Some(path));
        }
    }
}
