//! HTTP: serving connections, and the stack that every request goes through.

mod adapter;
pub(crate) mod admit;
mod certificate;
mod frames;
mod life;
pub(crate) mod serve;
pub(crate) mod stack;
mod streams;
mod tunnel;
