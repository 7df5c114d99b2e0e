//! A look at the first bytes of connections: what they speak, and whom they ask for.
//!
//! Pure functions over the bytes that came so far. What they say about a beginning they say about
//! everything that begins so: a verdict never changes with more bytes.

mod hello;
mod request;

pub use hello::{Hello, tls};
pub use request::{Plain, http};

/// How many bytes are looked at, at most. Envoy looks at 64 KiB, too.
pub const MOST: usize = 64 << 10;

/// What a look at the first bytes tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look<T> {
    /// Too little to tell.
    Incomplete,
    /// Something else.
    No,
    /// It is what was looked for, but larger than anybody sends.
    TooLarge,
    /// It is what was looked for.
    Yes(T),
}
