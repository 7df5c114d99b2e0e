//! Bodies around bodies that more than one crate needs.

mod coalesced;
mod held;

pub use coalesced::Coalesced;
pub use held::Held;
