//! The scalar readers of [`Cursor`] as plain functions.
//!
//! `fields.get("host", Cursor::string)` would tie the reader to one lifetime;
//! a function is good for all of them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::Cursor;

macro_rules! readers {
    ($($name:ident: $value:ty;)*) => {
        $(pub(crate) fn $name(cursor: &Cursor<'_>) -> Option<$value> {
            cursor.$name()
        })*
    };
}

readers! {
    string: String;
    filled: String;
    bool: bool;
    u32: u32;
    count: u32;
    port: u16;
    status: u16;
    duration: Duration;
    positive_duration: Duration;
    string_map: BTreeMap<String, String>;
    ip: IpAddr;
    bytes: Vec<u8>;
}
