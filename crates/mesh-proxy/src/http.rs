//! HTTP: serving connections, and the stack that every request goes through.

mod adapter;
mod admit;
mod path;
pub(crate) mod serve;
pub(crate) mod stack;
