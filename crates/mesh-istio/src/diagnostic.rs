//! What we have to say about a configuration: one line, or a picture of it.
//!
//! A [`Diagnostic`] names the object, the field and the place in the file. Its
//! `Display` is one line, `file:line:column: object: path: message`, which
//! editors and `grep` understand; [`Diagnostic::render`] adds the source line
//! and a caret under the culprit.

use std::fmt;
use std::fmt::Write as _;
use std::sync::Arc;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The object, or the whole file, was refused.
    Error,
    /// It was accepted, and probably does not do what its author meant.
    Warning,
    /// Worth knowing when looking for something that has no effect.
    Info,
}

/// A place in a file; lines and columns count from 1, columns in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Line, from 1. Zero when there is no place to point at.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// How many characters of that line are meant; at least 1.
    pub width: u32,
}

/// One finding about the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// The object concerned, for example `VirtualService reviews.default`.
    pub object: Option<String>,
    /// The file concerned, under the name it was read by.
    pub file: Arc<str>,
    /// Line, from 1; 0 when the whole file is meant.
    pub line: u32,
    /// Column in characters, from 1; 0 when the whole file is meant.
    pub column: u32,
    /// The field, for example `spec.http[0].timeout`; empty for the whole object.
    pub path: String,
    /// What is wrong and what was expected.
    pub message: String,
    /// The source line concerned, with the width to underline.
    pub snippet: Option<Snippet>,
}

/// The source line that a diagnostic points at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Snippet {
    /// The line without its line break.
    pub text: String,
    /// How many characters to underline.
    pub width: u32,
}

// A minified JSON file is one line of megabytes; nobody wants that on a terminal.
const LONGEST_SNIPPET: usize = 240;

// === impl Severity ===

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
        })
    }
}

// === impl Diagnostic ===

impl Diagnostic {
    /// A finding about a place in `text`, the contents of `file`.
    pub(crate) fn at(
        severity: Severity,
        file: &Arc<str>,
        text: &str,
        position: Position,
        message: impl Into<String>,
    ) -> Self {
        Self {
            severity,
            object: None,
            file: Arc::clone(file),
            line: position.line,
            column: position.column,
            path: String::new(),
            message: message.into(),
            snippet: Snippet::of(text, position),
        }
    }

    /// A finding about a file as a whole.
    pub(crate) fn of_file(severity: Severity, file: &Arc<str>, message: impl Into<String>) -> Self {
        Self::at(severity, file, "", Position::default(), message)
    }

    pub(crate) fn object(mut self, object: impl Into<String>) -> Self {
        self.object = Some(object.into());
        self
    }

    pub(crate) fn path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// Whether this finding refused something.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// The finding with its source line and a caret, over several lines.
    pub fn render(&self) -> String {
        let mut out = format!("{}: {}\n", self.severity, Subject(self));
        let margin = self.line.to_string().len().max(2);
        let _ = match self.line {
            0 => writeln!(out, "{:margin$}--> {}", "", self.file),
            line => writeln!(
                out,
                "{:margin$}--> {}:{line}:{}",
                "", self.file, self.column
            ),
        };
        if let Some(snippet) = &self.snippet {
            let indent: String = snippet
                .text
                .chars()
                .take(self.column.saturating_sub(1) as usize)
                .map(|c| if c == '\t' { '\t' } else { ' ' })
                .collect();
            let caret = "^".repeat(snippet.width.max(1) as usize);
            let _ = writeln!(out, "{:margin$} |", "");
            let _ = writeln!(out, "{:margin$} | {}", self.line, snippet.text);
            let _ = writeln!(out, "{:margin$} | {indent}{caret}", "");
        }
        out
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        f.write_str(": ")?;
        if !self.is_error() {
            write!(f, "{}: ", self.severity)?;
        }
        Subject(self).fmt(f)
    }
}

/// `object: path: message`, leaving out what is not known.
struct Subject<'a>(&'a Diagnostic);

impl fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(object) = &self.0.object {
            write!(f, "{object}: ")?;
        }
        if !self.0.path.is_empty() {
            write!(f, "{}: ", self.0.path)?;
        }
        f.write_str(&self.0.message)
    }
}

// === impl Snippet ===

impl Snippet {
    fn of(text: &str, position: Position) -> Option<Self> {
        if holds_secret(text) {
            return None;
        }
        let line = text.lines().nth((position.line as usize).checked_sub(1)?)?;
        let length = line.chars().count();
        if length > LONGEST_SNIPPET {
            return None;
        }
        let room = length.saturating_sub(position.column.saturating_sub(1) as usize);
        let width = position
            .width
            .clamp(1, u32::try_from(room.max(1)).unwrap_or(1));
        Some(Self {
            text: line.to_owned(),
            width,
        })
    }
}

/// Whether a Kubernetes Secret may stand in a text: then none of its lines is quoted.
fn holds_secret(text: &str) -> bool {
    let blank = |c: char| c.is_whitespace() || matches!(c, '"' | '\'');
    text.match_indices("Secret").any(|(at, _)| {
        let before = text[..at].trim_end_matches(blank);
        let key = before
            .strip_suffix(':')
            .map(|key| key.trim_end_matches(blank));
        key.is_some_and(|key| key.ends_with("kind"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Diagnostic {
        let file: Arc<str> = "mesh/reviews.yaml".into();
        let text = "kind: VirtualService\n  timeout: soon\n";
        let position = Position {
            line: 2,
            column: 12,
            width: 4,
        };
        Diagnostic::at(
            Severity::Error,
            &file,
            text,
            position,
            "expected a duration",
        )
        .object("VirtualService reviews.default")
        .path("spec.http[0].timeout")
    }

    #[test]
    fn displays_as_one_line() {
        assert_eq!(
            sample().to_string(),
            "mesh/reviews.yaml:2:12: VirtualService reviews.default: spec.http[0].timeout: \
             expected a duration",
        );
    }

    #[test]
    fn names_the_severity_unless_it_is_an_error() {
        let mut warning = sample();
        warning.severity = Severity::Warning;
        assert!(
            warning
                .to_string()
                .starts_with("mesh/reviews.yaml:2:12: warning: Virtual")
        );
    }

    #[test]
    fn renders_a_caret_under_the_culprit() {
        let picture = sample().render();
        let expected = "error: VirtualService reviews.default: spec.http[0].timeout: expected a \
                        duration\n  --> mesh/reviews.yaml:2:12\n   |\n 2 |   timeout: soon\n   |            ^^^^\n";
        assert_eq!(picture, expected);
    }

    #[test]
    fn points_at_a_whole_file_without_a_line() {
        let file: Arc<str> = "a.yaml".into();
        let finding = Diagnostic::of_file(Severity::Error, &file, "not UTF-8");
        assert_eq!(finding.to_string(), "a.yaml: not UTF-8");
        assert_eq!(finding.render(), "error: not UTF-8\n  --> a.yaml\n");
    }

    #[test]
    fn quotes_nothing_from_a_file_with_a_secret_in_it() {
        let at = Position {
            line: 1,
            column: 1,
            width: 1,
        };
        for text in [
            "a: 1\nkind: Secret\n",
            "{\"kind\" : \"Secret\"}",
            "kind:\n  'Secret'",
        ] {
            assert_eq!(Snippet::of(text, at), None, "{text}");
        }
        assert!(Snippet::of("kind: Gateway # not a Secret\n", at).is_some());
    }

    #[test]
    fn leaves_out_a_line_too_long_to_read() {
        let text = "x".repeat(1000);
        assert_eq!(
            Snippet::of(
                &text,
                Position {
                    line: 1,
                    column: 5,
                    width: 1
                }
            ),
            None
        );
    }
}
