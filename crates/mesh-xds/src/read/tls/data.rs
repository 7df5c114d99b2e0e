//! Where the bytes of a key or a certificate are.

use crate::pb::envoy::config::core::v3::DataSource;
use crate::pb::envoy::config::core::v3::data_source::Specifier;
use crate::wire::{pass_over, required, unsupported};
use mesh_core::Invalid;

/// What a source says.
pub(super) enum Data<'a> {
    /// They are in this file.
    File(&'a str),
    /// These.
    Bytes(&'a [u8]),
}

/// Takes a source apart.
pub(super) fn source(value: &DataSource) -> Result<Data<'_>, Invalid> {
    let DataSource {
        watched_directory,
        specifier,
    } = value;
    pass_over!("envoy.config.core.v3.DataSource": watched_directory);
    match required("specifier", specifier)? {
        Specifier::Filename(file) if file.is_empty() => {
            Err(Invalid::new("filename", "required, but missing"))
        }
        Specifier::Filename(file) => Ok(Data::File(file)),
        Specifier::InlineBytes(bytes) => given("inline_bytes", bytes),
        Specifier::InlineString(text) => given("inline_string", text.as_bytes()),
        Specifier::EnvironmentVariable(_) => Err(unsupported("environment_variable")),
    }
}

fn given<'a>(field: &str, bytes: &'a [u8]) -> Result<Data<'a>, Invalid> {
    if bytes.is_empty() {
        return Err(Invalid::new(field, "required, but missing"));
    }
    Ok(Data::Bytes(bytes))
}
