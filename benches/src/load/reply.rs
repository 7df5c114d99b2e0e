//! Reads responses of HTTP/1.1 as far as a load generator has to: status and length.

use anyhow::bail;

/// How long a head may be.
const MOST: usize = 16 * 1024;

/// A response that comes in pieces.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    head: Vec<u8>,
    /// Bytes of the body that are still to come, once the head is there.
    left: Option<usize>,
    status: u16,
    length: usize,
}

/// What a response was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) status: u16,
    /// Bytes of the body.
    pub(crate) length: usize,
}

// === impl Reply ===

impl Reply {
    /// Takes the next bytes; says what the response was when it is complete, and is then as new.
    ///
    /// # Errors
    ///
    /// If this is no response with a `content-length`, or more comes than it has.
    pub(crate) fn take(&mut self, mut bytes: &[u8]) -> anyhow::Result<Option<Done>> {
        if self.left.is_none() {
            let before = self.head.len();
            self.head.extend_from_slice(bytes);
            // The end may lie across two pieces.
            let from = before.saturating_sub(3);
            let Some(at) = find(&self.head[from..], b"\r\n\r\n") else {
                if self.head.len() > MOST {
                    bail!("a head of more than {MOST} bytes");
                }
                return Ok(None);
            };
            let end = from + at + 4;
            (self.status, self.length) = read(&self.head[..end])?;
            self.left = Some(self.length);
            bytes = &bytes[end - before..];
        }
        let left = self.left.unwrap_or_default();
        let Some(left) = left.checked_sub(bytes.len()) else {
            bail!("more bytes than content-length says");
        };
        if left > 0 {
            self.left = Some(left);
            return Ok(None);
        }
        let done = Done {
            status: self.status,
            length: self.length,
        };
        self.head.clear();
        self.left = None;
        Ok(Some(done))
    }
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|it| it == what)
}

/// Status and length of a head.
fn read(head: &[u8]) -> anyhow::Result<(u16, usize)> {
    let Ok(text) = str::from_utf8(head) else {
        bail!("a head that is not text");
    };
    let mut lines = text.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let status = match first.strip_prefix("HTTP/1.1 ").and_then(|it| it.get(..3)) {
        Some(status) => status.parse()?,
        None => bail!("no response of HTTP/1.1: {first:?}"),
    };
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then_some(value)
    });
    let Some(length) = length else {
        bail!("a response without content-length");
    };
    Ok((status, length.trim().parse()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nx: y\r\n\r\nhello";

    #[test]
    fn a_response_is_read_wherever_it_is_cut() {
        for cut in 0..RESPONSE.len() {
            let mut reply = Reply::default();
            assert_eq!(reply.take(&RESPONSE[..cut]).unwrap(), None, "{cut}");
            let done = reply.take(&RESPONSE[cut..]).unwrap();
            assert_eq!(
                done,
                Some(Done {
                    status: 200,
                    length: 5
                }),
                "{cut}"
            );
        }
    }

    #[test]
    fn a_reply_is_as_new_after_a_response() {
        let mut reply = Reply::default();
        assert!(reply.take(RESPONSE).unwrap().is_some());
        let empty = b"HTTP/1.1 503 Bad\r\ncontent-length:0\r\n\r\n";
        let done = reply.take(empty).unwrap();
        assert_eq!(
            done,
            Some(Done {
                status: 503,
                length: 0
            })
        );
    }

    #[test]
    fn what_cannot_be_checked_is_an_error() {
        for text in [
            &b"HTTP/1.1 200 OK\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nab",
            b"HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\na",
            b"SSH-2.0-x\r\n\r\n",
        ] {
            assert!(Reply::default().take(text).is_err(), "{text:?}");
        }
        assert!(Reply::default().take(&[b'a'; MOST + 1]).is_err());
    }
}
