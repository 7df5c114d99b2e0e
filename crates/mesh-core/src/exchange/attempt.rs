//! What one attempt learns.

use crate::model::Endpoint;
use crate::{Error, Failure, Flags, reply};
use parking_lot::{Mutex, MutexGuard};
use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// Names an endpoint for as long as it exists in a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostId(pub u64);

/// The endpoint that an attempt went to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Upstream {
    /// The endpoint.
    pub endpoint: Arc<Endpoint>,
    /// The address connected to, once connected.
    pub remote: Option<SocketAddr>,
    /// Our side of the connection, once connected.
    pub local: Option<SocketAddr>,
}

/// What an attempt learned so far.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct AttemptNotes {
    /// Where it went.
    pub upstream: Option<Upstream>,
    /// Response code details; none means `via_upstream` if there was a response.
    pub details: Option<Cow<'static, str>>,
    /// Why the caller's connection was closed, where a policy denied it.
    pub termination: Option<String>,
    /// What went wrong, if something did.
    pub failure: Option<Failure>,
    /// Why the transport failed.
    pub transport_failure: Option<String>,
    /// When the request's head went upstream.
    pub sent_at: Option<Instant>,
    /// When the response's head came.
    pub head_at: Option<Instant>,
    /// `grpc-status` of the response, from its head or its trailers.
    pub grpc_status: Option<u32>,
}

#[derive(Debug, Default)]
pub(super) struct Attempt {
    flags: AtomicU64,
    late: AtomicBool,
    notes: Mutex<AttemptNotes>,
}

// === impl Upstream ===

impl Upstream {
    /// An endpoint that is not connected to yet.
    pub fn new(endpoint: Arc<Endpoint>) -> Self {
        Self {
            endpoint,
            remote: None,
            local: None,
        }
    }
}

// === impl Attempt ===

impl Attempt {
    #[inline]
    pub(super) fn flag(&self, flags: Flags) {
        if !flags.is_empty() {
            self.change_flags(|own| own.with(flags));
        }
    }

    pub(super) fn flag_first(&self, flags: Flags) {
        if !flags.is_empty() {
            self.change_flags(|own| flags.with(own));
        }
    }

    fn change_flags(&self, change: impl Fn(Flags) -> Flags) {
        const ORDER: Ordering = Ordering::Relaxed;
        let change = |bits| Some(change(Flags::from_bits(bits)).bits());
        // None of the changes is refused.
        let _ = self.flags.fetch_update(ORDER, ORDER, change);
    }

    #[inline]
    pub(super) fn flags(&self) -> Flags {
        Flags::from_bits(self.flags.load(Ordering::Relaxed))
    }

    pub(super) fn set_late(&self) {
        self.late.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_late(&self) -> bool {
        self.late.load(Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn notes(&self) -> MutexGuard<'_, AttemptNotes> {
        self.notes.lock()
    }

    pub(super) fn note_error(&self, error: &Error) {
        self.flag(error.failure().row().flags);
        let mut notes = self.notes();
        notes.failure = Some(error.failure());
        notes.details = Some(Cow::Owned(reply::details(error)));
        // The cause of a denial is a policy's name, or what is wrong with a token.
        let denied = matches!(error.failure(), Failure::Denied | Failure::Unauthenticated);
        // Who leaves is no failure of the upstream's.
        let theirs = !denied && !error.failure().is_departure();
        // A limit that ends it all says nothing of why the last attempt failed.
        if let Some(cause) = error.cause().filter(|_| theirs) {
            notes.transport_failure = Some(cause);
        }
    }

    pub(super) fn copy_from(&self, other: &Self) {
        self.flags.store(other.flags().bits(), Ordering::Relaxed);
        let theirs = other.notes().clone();
        *self.notes() = theirs;
    }
}
