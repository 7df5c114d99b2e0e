//! What name servers say.

use crate::{Input, Target};
use mesh_core::model::DnsFamily;
use mesh_discovery::dns::fuzz::{MOST_ADDRESSES, answer};
use std::net::IpAddr;
use std::time::Duration;
use tokio::runtime::Builder;
use tokio::time::Instant;

/// `dns_answer`: a byte that says which family is asked for, then messages, each behind its length
/// in two bytes, as over TCP. What is too short for its length is the last one.
pub(crate) const TARGET: Target = Target {
    name: "dns_answer",
    run,
    input: Input::Bytes,
};

/// Longer holds nothing, whatever a name server says.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);
/// The resolver's own limits: two attempts of five seconds, over UDP and TCP, for two families.
const PATIENCE: Duration = Duration::from_secs(60);

fn run(data: &[u8]) {
    let Some((family, mut rest)) = data.split_first() else {
        return;
    };
    let family = [
        DnsFamily::Auto,
        DnsFamily::V4Only,
        DnsFamily::V6Only,
        DnsFamily::V4Preferred,
        DnsFamily::All,
    ][usize::from(*family) % 5];
    let mut messages = Vec::new();
    while let Some((length, behind)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes(*length)).min(behind.len());
        let (message, behind) = behind.split_at(length);
        messages.push(message.to_vec());
        rest = behind;
    }
    let mut builder = Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime without I/O needs nothing");
    let (answer, took) = runtime.block_on(async {
        let start = Instant::now();
        let answer = answer("a.test.", family, messages).await;
        (answer, start.elapsed())
    });
    assert!(took <= PATIENCE, "takes {took:?}");
    let Ok(answer) = answer else {
        return;
    };
    assert!(answer.addresses.len() <= MOST_ADDRESSES);
    assert!(answer.ttl <= LONGEST, "holds for {:?}", answer.ttl);
    let fits = |address: &IpAddr| match family {
        DnsFamily::V4Only => address.is_ipv4(),
        DnsFamily::V6Only => address.is_ipv6(),
        _ => true,
    };
    assert!(
        answer.addresses.iter().all(fits),
        "{family:?}, but {:?}",
        answer.addresses
    );
}
