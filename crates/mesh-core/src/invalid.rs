//! A configuration value that cannot be used, with the path of the field that holds it.

use std::fmt;

/// Why a piece of configuration was refused and which field it stands in.
///
/// The path is built from the inside out: the code that finds the error names its own field and
/// each caller prepends where it was called from with [`Invalid::within`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    path: String,
    message: String,
}

// === impl Invalid ===

impl Invalid {
    /// Refuses the field at `path` (may be empty) because of `message`.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            message: message.into(),
        }
    }

    /// The same refusal seen from one level further out.
    #[must_use]
    pub fn within(mut self, outer: impl fmt::Display) -> Self {
        self.path = match self.path.as_str() {
            "" => outer.to_string(),
            inner if inner.starts_with('[') => format!("{outer}{inner}"),
            inner => format!("{outer}.{inner}"),
        };
        self
    }

    /// The path of the field, e.g. `virtual_hosts[0].routes[3].timeout`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What is wrong and what was expected.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            return f.write_str(&self.message);
        }
        write!(f, "{}: {}", self.path, self.message)
    }
}

impl std::error::Error for Invalid {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_built_from_the_inside_out() {
        let error = Invalid::new("timeout", "must be positive")
            .within("[3]")
            .within("routes");
        assert_eq!(error.to_string(), "routes[3].timeout: must be positive");
        assert_eq!(
            Invalid::new("", "empty").within("a").to_string(),
            "a: empty"
        );
    }
}
