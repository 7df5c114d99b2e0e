//! TLS: the server name and the protocols that a `ClientHello` asks for (RFC 8446 §4.1.2).
//!
//! What counts as one is what BoringSSL takes, which Envoy asks: anything that cannot become a
//! `ClientHello` is not TLS. Unlike there, that is said as soon as it is clear.

use super::Look;
use mesh_core::Name;

/// What a `ClientHello` asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hello {
    /// The server name in lower case; empty if none is asked for.
    pub server_name: Name,
    /// The protocols offered, the preferred first.
    pub protocols: Vec<Name>,
}

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
/// The longest fragment of a record, RFC 8446 §5.1.
const MOST_FRAGMENT: usize = 1 << 14;
/// The longest `ClientHello`. BoringSSL refuses longer ones, and Envoy closes the connection.
const MOST_HELLO: usize = 1 << 14;
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;

/// Looks for a `ClientHello` in a connection's first bytes.
pub fn tls(bytes: &[u8]) -> Look<Hello> {
    let mut message = Message::default();
    let mut rest = bytes;
    loop {
        // Type, version, length. Judged byte by byte: those who speak otherwise need not wait.
        match rest {
            [] => return Look::Incomplete,
            [kind, ..] if *kind != HANDSHAKE => return Look::No,
            [_, major, ..] if *major != 3 => return Look::No,
            [_, _, _, high, low, fragment @ ..] => {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                if length == 0 || length > MOST_FRAGMENT {
                    return Look::No;
                }
                let there = length.min(fragment.len());
                message.take(&fragment[..there]);
                match message.look() {
                    Look::Incomplete if there < length => return Look::Incomplete,
                    Look::Incomplete => rest = &fragment[length..],
                    verdict => return verdict,
                }
            }
            _ => return Look::Incomplete,
        }
    }
}

/// A handshake message that is put together from fragments.
#[derive(Default)]
struct Message<'a> {
    /// Nothing is copied where one fragment holds it all.
    first: &'a [u8],
    all: Vec<u8>,
}

impl<'a> Message<'a> {
    fn take(&mut self, fragment: &'a [u8]) {
        if self.first.is_empty() && self.all.is_empty() {
            self.first = fragment;
            return;
        }
        if self.all.is_empty() {
            self.all.extend_from_slice(self.first);
        }
        self.all.extend_from_slice(fragment);
    }

    fn look(&self) -> Look<Hello> {
        let bytes = if self.all.is_empty() {
            self.first
        } else {
            &self.all
        };
        match bytes {
            [kind, ..] if *kind != CLIENT_HELLO => Look::No,
            [_, high, middle, low, body @ ..] => {
                let length = u32::from_be_bytes([0, *high, *middle, *low]) as usize;
                if length > MOST_HELLO {
                    return Look::TooLarge;
                }
                match body.get(..length) {
                    Some(body) => read(body).map_or(Look::No, Look::Yes),
                    None => Look::Incomplete,
                }
            }
            _ => Look::Incomplete,
        }
    }
}

fn read(body: &[u8]) -> Option<Hello> {
    let mut body = Reader(body);
    // Version and random.
    body.bytes(2 + 32)?;
    let session = body.short_block()?;
    let ciphers = body.block()?;
    let compression = body.short_block()?;
    let sizes_fit = session.0.len() <= 32
        && ciphers.0.len() >= 2
        && ciphers.0.len().is_multiple_of(2)
        && !compression.0.is_empty();
    if !sizes_fit {
        return None;
    }
    let mut hello = Hello::default();
    if body.0.is_empty() {
        // Before there were extensions.
        return Some(hello);
    }
    let mut extensions = body.block()?;
    if !body.0.is_empty() {
        return None;
    }
    while !extensions.0.is_empty() {
        let kind = extensions.number()?;
        let content = extensions.block()?;
        match kind {
            SERVER_NAME => hello.server_name = server_name(content)?,
            // Only names of protocols: what is wrong with them shows in the handshake.
            ALPN => hello.protocols = protocols(content).unwrap_or_default(),
            _ => {}
        }
    }
    Some(hello)
}

/// RFC 6066 §3, with one name as everybody sends it.
fn server_name(mut content: Reader<'_>) -> Option<Name> {
    let mut list = content.block()?;
    let kind = list.bytes(1)?;
    let name = list.block()?;
    let sound = kind == [0]
        && list.0.is_empty()
        && content.0.is_empty()
        && (1..=255).contains(&name.0.len())
        && !name.0.contains(&0);
    let name = std::str::from_utf8(name.0).ok().filter(|_| sound)?;
    Some(name.to_ascii_lowercase().into())
}

/// RFC 7301 §3.1.
fn protocols(mut content: Reader<'_>) -> Option<Vec<Name>> {
    let mut list = content.block()?;
    let mut protocols = Vec::new();
    while !list.0.is_empty() {
        let protocol = list.short_block()?;
        // Nothing that is configured looks otherwise.
        protocols.push(std::str::from_utf8(protocol.0).ok()?.into());
    }
    Some(protocols)
}

/// Reads from the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(front)
    }

    fn number(&mut self) -> Option<u16> {
        let (front, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u16::from_be_bytes(*front))
    }

    /// Bytes behind their number, which has two bytes.
    fn block(&mut self) -> Option<Self> {
        let length = self.number()?;
        self.bytes(length.into()).map(Self)
    }

    /// Bytes behind their number, which has one byte.
    fn short_block(&mut self) -> Option<Self> {
        let length = self.bytes(1)?[0];
        self.bytes(length.into()).map(Self)
    }
}

#[cfg(test)]
mod tests;
