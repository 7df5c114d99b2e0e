//! The one error type of the request path.

use crate::Failure;
use crate::reply::Answer;
use http::StatusCode;
use std::error::Error as StdError;
use std::fmt;

/// Any error at all, as Tower's own layers have it.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// Why a request got no response from upstream: a [`Failure`], with a cause where there is one.
///
/// One pointer wide. Wrapping an error that already is one of these gives it back unchanged, so
/// chains stay flat: ask [`Error::failure`] and never downcast.
pub struct Error(Box<Inner>);

struct Inner {
    failure: Failure,
    /// The request's first byte never left this process.
    unsent: bool,
    answer: Option<Answer>,
    source: Option<BoxError>,
}

// === impl Error ===

impl Error {
    /// A failure without a cause.
    pub fn new(failure: Failure) -> Self {
        Self(Box::new(Inner {
            failure,
            unsent: false,
            answer: None,
            source: None,
        }))
    }

    /// A failure with what caused it.
    pub fn with_source(failure: Failure, source: impl Into<BoxError>) -> Self {
        Self(Box::new(Inner {
            failure,
            unsent: false,
            answer: None,
            source: Some(source.into()),
        }))
    }

    /// An answer decided on the way in (redirect, fixed response, preflight). It travels outward
    /// as an error and becomes a response in `ReplyLayer`, so no layer has to know the body type.
    pub fn answer(failure: Failure, answer: Answer) -> Self {
        Self(Box::new(Inner {
            failure,
            unsent: false,
            answer: Some(answer),
            source: None,
        }))
    }

    /// Says how it is answered, other than by its failure's row.
    #[must_use]
    pub fn answered(mut self, answer: Answer) -> Self {
        self.0.answer = Some(answer);
        self
    }

    /// Takes any error. One of ours comes back as it was; anything else is [`Failure::Internal`].
    pub fn wrap(error: impl Into<BoxError>) -> Self {
        match error.into().downcast::<Self>() {
            Ok(ours) => *ours,
            Err(other) => Self::with_source(Failure::Internal, other),
        }
    }

    /// Says that nothing of the request left this process, so that sending it again is safe.
    #[must_use]
    pub fn unsent(mut self) -> Self {
        self.0.unsent = true;
        self
    }

    /// What happened.
    pub fn failure(&self) -> Failure {
        self.0.failure
    }

    /// Whether nothing of the request left this process.
    pub fn is_unsent(&self) -> bool {
        self.0.unsent || self.0.failure.row().retry == crate::RetryClass::Unsent
    }

    /// The answer that was decided on the way in, if there is one.
    pub fn take_answer(&mut self) -> Option<Answer> {
        self.0.answer.take()
    }

    /// The status that it is answered with: its answer's own, or its failure's.
    pub fn status(&self) -> StatusCode {
        let own = self.0.answer.as_ref().map(|answer| answer.status);
        own.unwrap_or_else(|| self.failure().row().status)
    }

    /// The text of the cause, for `transport failure reason` and logs.
    pub fn cause(&self) -> Option<String> {
        self.0.source.as_ref().map(ToString::to_string)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::new(failure)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Error");
        debug.field("failure", &self.0.failure);
        if let Some(source) = &self.0.source {
            debug.field("source", source);
        }
        debug.finish()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.failure.fmt(f)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|source| &**source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrapping_one_of_ours_gives_it_back() {
        let error: BoxError = Box::new(Error::new(Failure::Overflow));
        assert_eq!(Error::wrap(error).failure(), Failure::Overflow);
        let foreign = Error::wrap("broken");
        assert_eq!(foreign.failure(), Failure::Internal);
        assert_eq!(foreign.cause().as_deref(), Some("broken"));
    }

    #[test]
    fn an_error_is_one_pointer() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }
}
