//! What is asked for, in the words of Envoy's admin interface.

use mesh_core::Invalid;
use mesh_core::model::Pattern;
use mesh_core::stats::Kind;
use std::fmt;

/// What of the statistics is asked for. The default is all of them, as text.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Query {
    /// Leave out what is zero.
    pub used_only: bool,
    /// Only names in which this matches somewhere.
    pub filter: Option<Pattern>,
    /// Only these.
    pub select: Select,
    /// The format.
    pub output: Output,
}

/// A kind of statistics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Select {
    /// Every kind.
    #[default]
    All,
    /// Counters.
    Counters,
    /// Gauges.
    Gauges,
    /// Histograms.
    Histograms,
    /// Envoy's statistics that are text, of which there are none here.
    TextReadouts,
}

/// A format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Output {
    /// Lines of `name: value`.
    #[default]
    Text,
    /// JSON.
    Json,
    /// The text format of Prometheus.
    Prometheus,
}

// === impl Query ===

impl Query {
    /// Reads the query of a URI: `usedonly`, `filter=REGEX`, `format=text|json|prometheus` and
    /// `type=All|Counters|Gauges|Histograms|TextReadouts`.
    ///
    /// # Errors
    /// If a parameter is unknown or its value is not valid.
    pub fn parse(query: &str) -> Result<Self, Invalid> {
        let mut parsed = Self::default();
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let value = decode(value).ok_or_else(|| {
                Invalid::new(name, "the value has a malformed % escape or is not UTF-8")
            })?;
            match name {
                "usedonly" => parsed.used_only = true,
                "filter" if value.is_empty() => parsed.filter = None,
                "filter" => {
                    parsed.filter = Some(Pattern::new(&value).map_err(|e| e.within(name))?);
                }
                "format" => parsed.output = Output::parse(&value)?,
                "type" => parsed.select = Select::parse(&value)?,
                _ => return Err(Invalid::new(name, "is not a parameter of statistics")),
            }
        }
        Ok(parsed)
    }

    /// The same query in another format.
    #[must_use]
    pub fn output(mut self, output: Output) -> Self {
        self.output = output;
        self
    }

    /// Whether a statistic of this name and kind is asked for.
    pub(super) fn selects(&self, name: impl fmt::Display, kind: Select) -> bool {
        if self.select != Select::All && self.select != kind {
            return false;
        }
        let filter = self.filter.as_ref();
        filter.is_none_or(|filter| filter.is_found_in(name.to_string().as_bytes()))
    }
}

/// Undoes percent encoding. A `+` stands for itself, as regular expressions need it.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let value = digit(digits[0])? * 16 + digit(digits[1])?;
        bytes.push(u8::try_from(value).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

// === impl Select ===

impl Select {
    fn parse(text: &str) -> Result<Self, Invalid> {
        match text {
            "All" => Ok(Self::All),
            "Counters" => Ok(Self::Counters),
            "Gauges" => Ok(Self::Gauges),
            "Histograms" => Ok(Self::Histograms),
            "TextReadouts" => Ok(Self::TextReadouts),
            other => Err(Invalid::new(
                "type",
                format!(
                    "expected All, Counters, Gauges, Histograms or TextReadouts, not {other:?}"
                ),
            )),
        }
    }
}

impl From<Kind> for Select {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Counter => Self::Counters,
            Kind::Gauge => Self::Gauges,
        }
    }
}

// === impl Output ===

impl Output {
    fn parse(text: &str) -> Result<Self, Invalid> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            "prometheus" => Ok(Self::Prometheus),
            other => Err(Invalid::new(
                "format",
                format!("expected text, json or prometheus, not {other:?}"),
            )),
        }
    }

    /// What goes into `content-type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; charset=UTF-8",
            Self::Json => "application/json",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn envoys_parameters_are_read() {
        let query =
            Query::parse("usedonly&filter=%5Ecluster%5C.a&format=json&type=Gauges").unwrap();
        assert!(query.used_only);
        assert_eq!(query.output, Output::Json);
        assert!(query.selects("cluster.a.x", Select::Gauges));
        assert!(!query.selects("cluster.a.x", Select::Counters));
        assert!(!query.selects("http.cluster.a", Select::Gauges));
    }

    #[test]
    fn a_filter_matches_anywhere_in_a_name() {
        let query = Query::parse("filter=rq_(total|2xx)$").unwrap();
        assert!(query.selects("cluster.a.upstream_rq_total", Select::Counters));
        assert!(!query.selects("cluster.a.upstream_rq_total_x", Select::Counters));
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        for (query, expected) in [
            ("useonly", "useonly: is not a parameter of statistics"),
            (
                "format=xml",
                "format: expected text, json or prometheus, not \"xml\"",
            ),
            (
                "filter=%2",
                "filter: the value has a malformed % escape or is not UTF-8",
            ),
            (
                "filter=%FF",
                "filter: the value has a malformed % escape or is not UTF-8",
            ),
        ] {
            assert_eq!(Query::parse(query).unwrap_err().to_string(), expected);
        }
        assert_eq!(Query::parse("filter=(").unwrap_err().path(), "filter");
        assert_eq!(Query::parse("type=x").unwrap_err().path(), "type");
    }

    proptest! {
        #[test]
        fn what_is_escaped_is_read_back(text in ".{0,20}") {
            let escaped: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
            prop_assert_eq!(decode(&escaped), Some(text));
        }

        #[test]
        fn parsing_never_panics(query in "[a-z=&%0-9é+(]{0,30}") {
            let _ = Query::parse(&query);
        }
    }
}
