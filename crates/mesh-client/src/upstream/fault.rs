//! The only place where errors of hyper and of mesh-http1 become failures.

use mesh_core::stats::ClusterStat;
use mesh_core::{Error, Failure};
use std::error::Error as StdError;
use std::io;

/// A connection could not be made.
pub(crate) fn connecting(error: &io::Error) -> Error {
    if error.kind() == io::ErrorKind::TimedOut {
        return Error::new(Failure::ConnectTimeout).unsent();
    }
    let cause = format!("delayed connect error: {}", plain(error));
    Error::with_source(Failure::ConnectFailed, cause).unsent()
}

/// How an exchange broke, in the words of its codec.
pub(crate) enum Broken {
    Http1(mesh_http1::Error),
    Http2(hyper::Error),
}

/// A request got no response head on a connection that was there, and broke for this reason, if
/// there is one.
pub(crate) fn sending(error: Broken, unsent: bool, reason: Option<&str>) -> Error {
    let failure = classify(&error);
    let error = match failure {
        // These say all there is to say; Envoy adds no transport failure reason either, unless
        // the transport was TLS.
        Failure::ConnectionTermination | Failure::UpstreamProtocol => {
            match reason.filter(|reason| !reason.is_empty()) {
                Some(reason) => Error::with_source(failure, reason),
                None => Error::new(failure),
            }
        }
        Failure::RemoteReset | Failure::RemoteRefused | Failure::BadBody => Error::new(failure),
        other => with_source(other, error),
    };
    if unsent { error.unsent() } else { error }
}

/// A response body broke off. In HTTP/1 the response is malformed then, however the connection
/// ended: it is not as long as it said (RFC 9112 §8).
pub(crate) fn receiving(error: Broken) -> Error {
    let failure = match &error {
        Broken::Http1(_) => Failure::UpstreamProtocol,
        Broken::Http2(error) => classify_http2(error),
    };
    with_source(failure, error)
}

fn with_source(failure: Failure, error: Broken) -> Error {
    match error {
        Broken::Http1(error) => Error::with_source(failure, error),
        Broken::Http2(error) => Error::with_source(failure, error),
    }
}

/// What Envoy counts of a stream that did not end well (`CodecClient::onData`,
/// `MultiplexedActiveClientBase::onStreamReset`).
pub(crate) fn stats(failure: Failure, is_http2: bool) -> &'static [ClusterStat] {
    match failure {
        Failure::UpstreamProtocol if is_http2 => {
            &[ClusterStat::CxProtocolError, ClusterStat::RqTxReset]
        }
        Failure::UpstreamProtocol => &[ClusterStat::CxProtocolError],
        Failure::RemoteReset => &[ClusterStat::RqRxReset],
        Failure::ConnectionTermination if is_http2 => &[ClusterStat::RqPendingFailureEject],
        _ => &[],
    }
}

fn classify(error: &Broken) -> Failure {
    match error {
        Broken::Http1(error) => classify_http1(error),
        Broken::Http2(error) => classify_http2(error),
    }
}

fn classify_http1(error: &mesh_http1::Error) -> Failure {
    match error {
        // Our own request body failed: the caller went away, or a limit cut it off.
        mesh_http1::Error::Outgoing(error) => match error.downcast_ref::<Error>() {
            Some(ours) => ours.failure(),
            None => Failure::LocalReset,
        },
        // It is not as long as the caller said.
        mesh_http1::Error::TooShort => Failure::LocalReset,
        error if error.is_protocol() => Failure::UpstreamProtocol,
        _ => Failure::ConnectionTermination,
    }
}

fn classify_http2(error: &hyper::Error) -> Failure {
    if let Some(reset) = find::<h2::Error>(error) {
        return match reset.reason() {
            Some(h2::Reason::REFUSED_STREAM) if reset.is_remote() => Failure::RemoteRefused,
            // Only streams above the last one that the peer names fail with its GOAWAY, whatever
            // its reason: they were not looked at (RFC 9113 §6.8).
            Some(_) if reset.is_go_away() && reset.is_remote() => Failure::RemoteRefused,
            Some(_) if reset.is_remote() => Failure::RemoteReset,
            // h2 does not like what the peer says.
            Some(_) if reset.is_library() => Failure::UpstreamProtocol,
            // We reset the stream, because the request's body broke off.
            Some(_) => Failure::LocalReset,
            None => Failure::ConnectionTermination,
        };
    }
    // As above.
    if let Some(ours) = find::<Error>(error) {
        return ours.failure();
    }
    if error.is_user() {
        return Failure::LocalReset;
    }
    Failure::ConnectionTermination
}

/// A cause of an error, by its type.
pub(crate) fn find<T: StdError + 'static>(error: &hyper::Error) -> Option<&T> {
    let mut next = error.source();
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// The operating system's words without its error number: `Connection refused`.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_connection_reads_as_in_envoy() {
        let error = connecting(&io::Error::from_raw_os_error(111));
        assert_eq!(error.failure(), Failure::ConnectFailed);
        assert_eq!(
            error.cause().as_deref(),
            Some("delayed connect error: Connection refused")
        );
        assert!(error.is_unsent());
        let late = connecting(&io::Error::from(io::ErrorKind::TimedOut));
        assert_eq!(late.failure(), Failure::ConnectTimeout);
    }
}
