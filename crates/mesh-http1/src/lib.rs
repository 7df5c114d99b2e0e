#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod body;
mod buffers;
pub mod client;
mod date;
mod decode;
mod encode;
mod error;
mod head;
mod output;
pub mod server;
pub mod upgrade;
mod wire;

pub use self::body::Body;
pub use self::buffers::Buffers;
pub use self::client::Client;
pub use self::decode::{Decoded, Decoder};
pub use self::error::{BodyError, BoxError, Error, HeadError};
pub use self::head::{Length, Limits, RequestHead, ResponseHead, request, response};
pub use self::server::Server;
