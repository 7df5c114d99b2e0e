//! Entry point for fuzzing: what name servers say, through everything that reads it.

use super::system::{ask, config, options};
use super::{Answer, LookupError};
use futures_util::future::{self, Ready};
use futures_util::stream::{self, Once};
use hickory_resolver::config::ConnectionConfig;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::xfer::DnsHandle;
use hickory_resolver::proto::op::{DnsRequest, DnsResponse};
use hickory_resolver::{ConnectionProvider, PoolContext, Resolver};
use mesh_core::model::DnsFamily;
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

/// The most addresses that an answer has.
pub const MOST_ADDRESSES: usize = super::system::MOST_ADDRESSES;

/// What [`System`](super::System) answers where the name servers say these messages (RFC 1035 §4),
/// one for each question, then nothing. Opens no socket; needs a tokio runtime with time.
///
/// # Errors
/// As [`Lookup::lookup`](super::Lookup::lookup).
pub async fn answer(
    name: &str,
    family: DnsFamily,
    messages: impl IntoIterator<Item = Vec<u8>>,
) -> Result<Answer, LookupError> {
    let script = Script {
        left: Arc::new(Mutex::new(messages.into_iter().collect())),
        runtime: TokioRuntimeProvider::default(),
    };
    let servers = [SocketAddr::from((Ipv4Addr::LOCALHOST, 53))];
    let mut builder = Resolver::builder_with_config(config(&servers), script);
    options(builder.options_mut(), family);
    match builder.build() {
        Ok(resolver) => ask(&resolver, name).await,
        Err(error) => Err(LookupError {
            name: name.to_owned(),
            reason: error.to_string(),
        }),
    }
}

/// A connection to a name server that has its lines ready.
#[derive(Clone)]
struct Script {
    left: Arc<Mutex<VecDeque<Vec<u8>>>>,
    runtime: TokioRuntimeProvider,
}

// === impl Script ===

impl ConnectionProvider for Script {
    type Conn = Self;
    type FutureConn = Ready<Result<Self, NetError>>;
    type RuntimeProvider = TokioRuntimeProvider;

    fn new_connection(
        &self,
        _: IpAddr,
        _: &ConnectionConfig,
        _: &PoolContext,
    ) -> Result<Self::FutureConn, NetError> {
        Ok(future::ready(Ok(self.clone())))
    }

    fn runtime_provider(&self) -> &Self::RuntimeProvider {
        &self.runtime
    }
}

impl DnsHandle for Script {
    type Response = Once<Ready<Result<DnsResponse, NetError>>>;
    type Runtime = TokioRuntimeProvider;

    fn send(&self, _: DnsRequest) -> Self::Response {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let said = match left.pop_front() {
            Some(message) => DnsResponse::from_buffer(message).map_err(NetError::from),
            None => Err(NetError::from("nothing more is said")),
        };
        stream::once(future::ready(said))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// A response with one question, for `a.test`, and these records.
    fn message(kind: u8, records: &[(u8, &[u8])]) -> Vec<u8> {
        let count = u8::try_from(records.len()).unwrap();
        let mut message = vec![0, 0, 0x81, 0x80, 0, 1, 0, count, 0, 0, 0, 0];
        message.extend_from_slice(b"\x01a\x04test\0");
        message.extend_from_slice(&[0, kind, 0, 1]);
        for (kind, data) in records {
            message.extend_from_slice(&[0xc0, 12, 0, *kind, 0, 1, 0, 0, 0, 30]);
            message.extend_from_slice(&[0, u8::try_from(data.len()).unwrap()]);
            message.extend_from_slice(data);
        }
        message
    }

    #[tokio::test(start_paused = true)]
    async fn what_name_servers_say_becomes_an_answer() {
        let said = [message(1, &[(1, &[10, 0, 0, 1]), (1, &[10, 0, 0, 2])])];
        let answer = answer("a.test.", DnsFamily::V4Only, said).await.unwrap();
        let addresses = ["10.0.0.1", "10.0.0.2"].map(|text| text.parse::<IpAddr>().unwrap());
        assert_eq!(answer.addresses, addresses);
        assert_eq!(answer.ttl, Duration::from_secs(30));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_and_nonsense_are_no_answers() {
        assert!(answer("a.test.", DnsFamily::Auto, []).await.is_err());
        let said = [vec![1, 2, 3]];
        assert!(answer("a.test.", DnsFamily::V4Only, said).await.is_err());
    }
}
