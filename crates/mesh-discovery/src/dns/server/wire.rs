//! The few bytes of messages that are read and changed in place (RFC 1035 §4.1).

/// The header's length.
pub(super) const HEADER: usize = 12;

const SERVER_FAILURE: u8 = 2;
const FORMAT_ERROR: u8 = 1;

/// The id.
pub(super) fn id(message: &[u8]) -> Option<[u8; 2]> {
    message.first_chunk().copied()
}

pub(super) fn set_id(message: &mut [u8], id: [u8; 2]) {
    if let Some(place) = message.first_chunk_mut() {
        *place = id;
    }
}

/// Whether it is a response.
pub(super) fn is_response(message: &[u8]) -> bool {
    message.get(2).is_some_and(|flags| flags & 0x80 != 0)
}

/// Says to a query that it could not be answered.
pub(super) fn server_failure(query: &[u8]) -> Vec<u8> {
    refusal(query, SERVER_FAILURE)
}

/// Says to a query that it could not be read.
pub(super) fn format_error(query: &[u8]) -> Vec<u8> {
    refusal(query, FORMAT_ERROR)
}

/// Whether a response is to this query: its id and its question are, in any case.
pub(super) fn answers(response: &[u8], query: &[u8]) -> bool {
    if id(response) != id(query) || !is_response(response) || response.len() < HEADER {
        return false;
    }
    match (questions(response), questions(query)) {
        (Some(ours), Some(theirs)) => response
            .get(HEADER..ours)
            .zip(query.get(HEADER..theirs))
            .is_some_and(|(ours, theirs)| ours.eq_ignore_ascii_case(theirs)),
        _ => false,
    }
}

/// A response that does not fit: what was asked, and that it was cut. The client asks again over
/// TCP (RFC 2181 §9).
pub(super) fn cut(response: &[u8]) -> Option<Vec<u8>> {
    let end = questions(response)?;
    let mut cut = response.get(..end)?.to_vec();
    // Truncated; no answers, authorities and more.
    *cut.get_mut(2)? |= 0x02;
    cut.get_mut(6..HEADER)?.fill(0);
    Some(cut)
}

fn refusal(query: &[u8], code: u8) -> Vec<u8> {
    let end = questions(query).unwrap_or(HEADER);
    let mut response = query.get(..end).unwrap_or_default().to_vec();
    response.resize(end, 0);
    if end == HEADER {
        response[4..6].fill(0);
    }
    // A response with the opcode and the wish for recursion of the query.
    response[2] = 0x80 | (response[2] & 0x79);
    response[3] = 0x80 | code;
    response[6..HEADER].fill(0);
    response
}

/// Where the questions end; none where they cannot be read.
fn questions(message: &[u8]) -> Option<usize> {
    let count = u16::from_be_bytes([*message.get(4)?, *message.get(5)?]);
    let mut at = HEADER;
    for _ in 0..count {
        loop {
            let length = usize::from(*message.get(at)?);
            at += 1;
            match length {
                0 => break,
                // The first name in a message has nothing to point to.
                64.. => return None,
                _ => at += length,
            }
        }
        at += 4;
    }
    (at <= message.len()).then_some(at)
}
