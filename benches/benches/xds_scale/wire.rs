//! Delta discovery over gRPC, by hand: requests that all clients share, and responses of which
//! only what a client has to answer is kept, while they come in.

use bytes::{BufMut, Bytes, BytesMut};
use mesh_xds::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use mesh_xds::{Node, TypeUrl};
use prost::Message;

/// What a client keeps of a response.
#[derive(Debug, Default)]
pub(crate) struct Response {
    pub(crate) url: Vec<u8>,
    pub(crate) nonce: Vec<u8>,
    pub(crate) resources: usize,
    pub(crate) removed: usize,
}

/// Reads responses piece by piece.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    step: Step,
    /// The bytes of the message that are still to come.
    left: usize,
    response: Response,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// gRPC's five bytes before a message, of which so many were read.
    Head { read: usize, len: usize },
    /// A field's number.
    Key(Number),
    /// Its length.
    Length { field: u64, number: Number },
    /// Its contents.
    Body { field: u64, left: usize },
}

/// A protobuf number as far as it was read.
#[derive(Clone, Copy, Debug, Default)]
struct Number {
    value: u64,
    bits: u32,
}

/// Fields of `DeltaDiscoveryResponse`; all of its fields have a length.
const RESOURCES: u64 = 2;
const URL: u64 = 4;
const NONCE: u64 = 5;
const REMOVED: u64 = 6;

/// A request for resources of a type: everything, or these.
pub(crate) fn subscribe(kind: TypeUrl, names: &[String], node: Option<&Node>) -> Bytes {
    let everything = ["*".to_owned()];
    let names = match names {
        [] => &everything[..],
        names => names,
    };
    framed(&DeltaDiscoveryRequest {
        node: node.map(Node::to_proto),
        type_url: kind.url().to_owned(),
        resource_names_subscribe: names.to_vec(),
        ..DeltaDiscoveryRequest::default()
    })
}

/// The acknowledgement of a response.
pub(crate) fn acknowledge(response: &Response) -> Bytes {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    framed(&DeltaDiscoveryRequest {
        type_url: text(&response.url),
        response_nonce: text(&response.nonce),
        ..DeltaDiscoveryRequest::default()
    })
}

fn framed(request: &DeltaDiscoveryRequest) -> Bytes {
    let len = request.encoded_len();
    let mut bytes = BytesMut::with_capacity(5 + len);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(len).expect("a request is far below 4 GiB"));
    bytes.put_slice(&request.encode_to_vec());
    bytes.freeze()
}

// === impl Reader ===

impl Reader {
    /// Reads what came, up to the end of a response. Returns it, and how much was read.
    ///
    /// # Errors
    /// It is no response of a server of ours.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Result<(Option<Response>, usize), &'static str> {
        let mut rest = bytes;
        while let Some((&byte, after)) = rest.split_first() {
            let in_body = matches!(self.step, Step::Body { .. });
            if !in_body {
                rest = after;
            }
            match &mut self.step {
                Step::Head { read, len } => {
                    match *read {
                        0 if byte != 0 => return Err("a compressed message"),
                        0 => {}
                        _ => *len = *len << 8 | usize::from(byte),
                    }
                    *read += 1;
                    if *read < 5 {
                        continue;
                    }
                    self.left = *len;
                    self.step = Step::Key(Number::default());
                }
                Step::Key(number) => {
                    self.left = self.left.checked_sub(1).ok_or("a key beyond the message")?;
                    let Some(key) = number.push(byte)? else {
                        continue;
                    };
                    if key & 7 != 2 {
                        return Err("a field without a length");
                    }
                    let (field, number) = (key >> 3, Number::default());
                    self.step = Step::Length { field, number };
                    continue;
                }
                Step::Length { field, number } => {
                    self.left = self
                        .left
                        .checked_sub(1)
                        .ok_or("a length beyond the message")?;
                    let Some(len) = number.push(byte)? else {
                        continue;
                    };
                    let len = usize::try_from(len).map_err(|_| "a field beyond the message")?;
                    self.left = self
                        .left
                        .checked_sub(len)
                        .ok_or("a field beyond the message")?;
                    match *field {
                        RESOURCES => self.response.resources += 1,
                        REMOVED => self.response.removed += 1,
                        _ => {}
                    }
                    let field = *field;
                    self.step = match len {
                        0 => Step::Key(Number::default()),
                        left => Step::Body { field, left },
                    };
                }
                Step::Body { field, left } => {
                    let (now, after) = rest.split_at(rest.len().min(*left));
                    match *field {
                        URL => self.response.url.extend_from_slice(now),
                        NONCE => self.response.nonce.extend_from_slice(now),
                        _ => {}
                    }
                    *left -= now.len();
                    rest = after;
                    if *left > 0 {
                        continue;
                    }
                    self.step = Step::Key(Number::default());
                }
            }
            if self.left == 0 && matches!(self.step, Step::Key(_)) {
                self.step = Step::default();
                let response = std::mem::take(&mut self.response);
                return Ok((Some(response), bytes.len() - rest.len()));
            }
        }
        Ok((None, bytes.len()))
    }
}

// === impl Step ===

impl Default for Step {
    fn default() -> Self {
        Self::Head { read: 0, len: 0 }
    }
}

// === impl Number ===

impl Number {
    fn push(&mut self, byte: u8) -> Result<Option<u64>, &'static str> {
        if self.bits >= 63 {
            return Err("a number of more than 63 bits");
        }
        self.value |= u64::from(byte & 0x7f) << self.bits;
        self.bits += 7;
        Ok((byte & 0x80 == 0).then_some(self.value))
    }
}
