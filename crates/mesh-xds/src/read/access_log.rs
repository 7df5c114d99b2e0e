//! Access logs.

use crate::pb::envoy::config::accesslog::v3::{self as pb, access_log::ConfigType};
use crate::pb::envoy::config::core::v3::data_source::Specifier;
use crate::pb::envoy::config::core::v3::substitution_format_string::Format;
use crate::pb::envoy::config::core::v3::{DataSource, SubstitutionFormatString};
use crate::pb::envoy::extensions::access_loggers::file::v3::{
    FileAccessLog, file_access_log::AccessLogFormat,
};
use crate::pb::envoy::extensions::access_loggers::stream::v3::{
    StderrAccessLog, StdoutAccessLog, stderr_access_log, stdout_access_log,
};
use crate::pb::google::protobuf::Any;
use crate::wire::{At, refuse, required, type_name, unpack, unsupported};
use crate::write::ISTIO_FORMAT;
use mesh_core::model::AccessLog;
use mesh_core::{Invalid, Name};
use prost::Name as _;

/// What Envoy writes where no format is given.
const ENVOY_FORMAT: &str = concat!(
    "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" ",
    "%RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% ",
    "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" ",
    "\"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n",
);

/// A log that is written to a file or a standard stream, as text.
pub(super) fn access_log(value: &pb::AccessLog) -> Result<AccessLog, Invalid> {
    let pb::AccessLog {
        // A name without a meaning: Envoy goes by the type of the message.
        name: _,
        filter,
        config_type,
    } = value;
    refuse!(filter);
    let ConfigType::TypedConfig(any) = required("typed_config", config_type)?;
    logger(any).at("typed_config")
}

fn logger(any: &Any) -> Result<AccessLog, Invalid> {
    let name = type_name(any);
    if name == FileAccessLog::full_name() {
        file(&unpack(any)?)
    } else if name == StdoutAccessLog::full_name() {
        let StdoutAccessLog { access_log_format } = &unpack(any)?;
        let format = access_log_format
            .as_ref()
            .map(|stdout_access_log::AccessLogFormat::LogFormat(format)| format);
        stream("/dev/stdout", format)
    } else if name == StderrAccessLog::full_name() {
        let StderrAccessLog { access_log_format } = &unpack(any)?;
        let format = access_log_format
            .as_ref()
            .map(|stderr_access_log::AccessLogFormat::LogFormat(format)| format);
        stream("/dev/stderr", format)
    } else {
        Err(Invalid::new("", format!("{name:?} is not supported")))
    }
}

#[expect(deprecated, reason = "Envoy still reads the older spelling")]
fn file(value: &FileAccessLog) -> Result<AccessLog, Invalid> {
    let FileAccessLog {
        path,
        access_log_format,
    } = value;
    if path.is_empty() {
        return Err(Invalid::new("path", "required, but missing"));
    }
    let format = match access_log_format {
        None => ENVOY_FORMAT.into(),
        Some(AccessLogFormat::Format(text)) => text_format(text).at("format")?,
        Some(AccessLogFormat::LogFormat(format)) => substitution(format).at("log_format")?,
        Some(AccessLogFormat::JsonFormat(_)) => return Err(unsupported("json_format")),
        Some(AccessLogFormat::TypedJsonFormat(_)) => return Err(unsupported("typed_json_format")),
    };
    Ok(AccessLog {
        path: path.into(),
        format,
    })
}

fn stream(path: &str, format: Option<&SubstitutionFormatString>) -> Result<AccessLog, Invalid> {
    let format = match format {
        None => ENVOY_FORMAT.into(),
        Some(format) => substitution(format).at("log_format")?,
    };
    Ok(AccessLog {
        path: path.into(),
        format,
    })
}

fn substitution(value: &SubstitutionFormatString) -> Result<Name, Invalid> {
    let omit_empty_values = &value.omit_empty_values;
    refuse!(omit_empty_values);
    text_of(value, text_format)
}

/// Reads the text of a format. What becomes of empty values is up to the caller.
#[expect(deprecated, reason = "Envoy still reads the older spelling")]
pub(super) fn text_of<T>(
    value: &SubstitutionFormatString,
    read: impl Fn(&str) -> Result<T, Invalid>,
) -> Result<T, Invalid> {
    let SubstitutionFormatString {
        omit_empty_values: _,
        content_type,
        formatters,
        json_format_options,
        format,
    } = value;
    refuse!(content_type, formatters, json_format_options);
    match required("format", format)? {
        Format::TextFormat(text) => read(text).at("text_format"),
        Format::TextFormatSource(source) => inline(source, read).at("text_format_source"),
        Format::JsonFormat(_) => Err(unsupported("json_format")),
    }
}

fn inline<T>(source: &DataSource, read: impl Fn(&str) -> Result<T, Invalid>) -> Result<T, Invalid> {
    let DataSource {
        watched_directory,
        specifier,
    } = source;
    refuse!(watched_directory);
    match required("specifier", specifier)? {
        Specifier::InlineString(text) => read(text).at("inline_string"),
        Specifier::InlineBytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => read(text).at("inline_bytes"),
            Err(_) => Err(Invalid::new("inline_bytes", "is not UTF-8")),
        },
        Specifier::Filename(_) => Err(unsupported("filename")),
        Specifier::EnvironmentVariable(_) => Err(unsupported("environment_variable")),
    }
}

/// Istio's format is the one that the model has when nothing is said.
fn text_format(text: &str) -> Result<Name, Invalid> {
    match text {
        "" => Err(Invalid::new("", "an empty format would log nothing")),
        ISTIO_FORMAT => Ok(Name::default()),
        text => Ok(text.into()),
    }
}
