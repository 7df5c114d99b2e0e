//! What becomes of a query, without a socket.

use super::names::{Found, Names, plain};
use super::wire::{self, HEADER};
use hickory_resolver::proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME};
use hickory_resolver::proto::rr::{DNSClass, Name, RData, Record, RecordType};
use mesh_core::rng::mix;

/// What becomes of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// This is said.
    Answer(Vec<u8>),
    /// Somebody else is asked. What they say may be this many bytes long.
    Forward {
        /// In bytes.
        limit: usize,
    },
    /// Nothing is said: it is no query.
    Ignore,
}

/// How long an answer holds, in seconds: Istio's, short because addresses change.
const TTL: u32 = 30;

/// What fits into a datagram where nothing else is said (RFC 1035 §4.2.1).
const SMALLEST: u16 = 512;

/// The largest datagram that we would read ourselves.
const OUR_PAYLOAD: u16 = 4096;

/// What becomes of a query (RFC 1035 §4), given what the mesh knows; without that, nobody is
/// answered yet. `datagram` is whether it came by UDP, where answers have to fit; of several
/// addresses `word`, which is random, settles the order.
///
/// Not a panic on any bytes, and no answer is longer than its client can take.
pub fn answer(query: &[u8], names: Option<&Names>, datagram: bool, word: u64) -> Step {
    if query.len() < HEADER || wire::is_response(query) {
        return Step::Ignore;
    }
    let Ok(message) = Message::from_vec(query) else {
        return Step::Answer(wire::format_error(query));
    };
    let limit = usize::from(match (datagram, &message.edns) {
        (false, _) => u16::MAX,
        (true, None) => SMALLEST,
        (true, Some(edns)) => edns.max_payload().max(SMALLEST),
    });
    // As in Istio's agent: until the table is there, no application is led past the mesh.
    let Some(names) = names else {
        return Step::Answer(wire::server_failure(query));
    };
    if message.metadata.op_code != OpCode::Query {
        return Step::Forward { limit };
    }
    let [asked] = message.queries.as_slice() else {
        // Nothing, or several at once (RFC 9619).
        return Step::Answer(wire::format_error(query));
    };
    let addresses = matches!(asked.query_type(), RecordType::A | RecordType::AAAA);
    if asked.query_class() != DNSClass::IN || !addresses {
        return Step::Forward { limit };
    }
    match names.find(&plain(&asked.name().to_ascii())) {
        Some(found) => respond(&message, asked, &found, limit, word)
            .map_or_else(|| Step::Answer(wire::server_failure(query)), Step::Answer),
        None => Step::Forward { limit },
    }
}

/// The response to a question about a name that the mesh knows.
fn respond(
    message: &Message,
    asked: &Query,
    found: &Found<'_>,
    limit: usize,
    word: u64,
) -> Option<Vec<u8>> {
    let metadata = &message.metadata;
    let mut response = Message::response(metadata.id, metadata.op_code);
    response.metadata.message_type = MessageType::Response;
    response.metadata.authoritative = true;
    response.metadata.recursion_desired = metadata.recursion_desired;
    response.metadata.recursion_available = true;
    response.metadata.checking_disabled = metadata.checking_disabled;
    response.add_query(asked.clone());
    if message.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(OUR_PAYLOAD);
        response.set_edns(edns);
    }
    let mut owner = asked.name().clone();
    let mut records: Vec<RData> = match asked.query_type() {
        RecordType::A => found.host.v4.iter().map(|one| RData::A(A(*one))).collect(),
        _ => found
            .host
            .v6
            .iter()
            .map(|one| RData::AAAA(AAAA(*one)))
            .collect(),
    };
    shuffle(&mut records, word);
    if found.added > 0 && !records.is_empty() {
        let target = without(asked.name(), found.added)?;
        let alias = RData::CNAME(CNAME(target.clone()));
        response.add_answer(Record::from_rdata(owner, TTL, alias));
        owner = target;
    }
    // Each has the name as a pointer of two bytes, and ten of its own before the address.
    let empty = response.to_vec().ok()?;
    let size = match asked.query_type() {
        RecordType::A => 12 + 4,
        _ => 12 + 16,
    };
    let room = limit.saturating_sub(empty.len()) / size;
    response.metadata.truncation = room < records.len();
    records.truncate(room);
    let records = records.into_iter();
    response.add_answers(records.map(|data| Record::from_rdata(owner.clone(), TTL, data)));
    let bytes = response.to_vec().ok()?;
    if bytes.len() <= limit {
        return Some(bytes);
    }
    // Not even the alias fits.
    wire::cut(&bytes)
}

/// A name without the labels that its last bytes are.
fn without(name: &Name, bytes: usize) -> Option<Name> {
    let mut left = bytes;
    let mut labels: Vec<&[u8]> = name.iter().collect();
    while left > 0 {
        left = left.checked_sub(labels.pop()?.len() + 1)?;
    }
    let mut name = Name::from_labels(labels).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// Puts things into an order that only depends on `word` (Fisher and Yates).
fn shuffle<T>(list: &mut [T], mut word: u64) {
    for end in (1..list.len()).rev() {
        word = mix(word.wrapping_add(1));
        let places = u64::try_from(end + 1).unwrap_or(u64::MAX);
        list.swap(end, usize::try_from(word % places).unwrap_or_default());
    }
}
