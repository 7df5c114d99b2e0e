//! Options of HTTP/1 and HTTP/2 that clusters and listeners have in common.

use crate::pb::envoy::config::core::v3::{
    Http1ProtocolOptions, Http2ProtocolOptions, KeepaliveSettings,
};
use crate::wire::{At, boolean, maybe_duration, number, pass_over, refuse};
use mesh_core::Invalid;
use std::time::Duration;

/// What of HTTP/2 can be chosen.
pub(super) struct Http2 {
    pub(super) max_concurrent_streams: Option<u32>,
    /// How long until a PING, and how long to wait for the answer.
    pub(super) keepalive: Option<(Duration, Duration)>,
}

/// Of HTTP/1 nothing can be chosen.
#[expect(deprecated, reason = "Envoy still reads `use_balsa_parser`")]
pub(super) fn check_http1(value: &Http1ProtocolOptions) -> Result<(), Invalid> {
    let Http1ProtocolOptions {
        allow_absolute_url,
        accept_http_10,
        default_host_for_http_10,
        header_key_format,
        enable_trailers,
        allow_chunked_length,
        override_stream_error_on_invalid_http_message,
        send_fully_qualified_url,
        use_balsa_parser,
        allow_custom_methods,
        ignore_http_11_upgrade,
    } = value;
    refuse!(
        accept_http_10,
        default_host_for_http_10,
        header_key_format,
        enable_trailers,
        allow_chunked_length,
        override_stream_error_on_invalid_http_message,
        send_fully_qualified_url,
        allow_custom_methods,
        ignore_http_11_upgrade,
    );
    pass_over!("envoy.config.core.v3.Http1ProtocolOptions": use_balsa_parser);
    if !boolean(allow_absolute_url.as_ref(), true) {
        refuse!(allow_absolute_url);
    }
    Ok(())
}

#[expect(deprecated, reason = "Envoy still reads the older spelling")]
pub(super) fn http2(value: &Http2ProtocolOptions) -> Result<Http2, Invalid> {
    let Http2ProtocolOptions {
        hpack_table_size,
        max_concurrent_streams,
        initial_stream_window_size,
        initial_connection_window_size,
        allow_connect,
        allow_metadata,
        max_outbound_frames,
        max_outbound_control_frames,
        max_consecutive_inbound_frames_with_empty_payload,
        max_inbound_priority_frames_per_stream,
        max_inbound_window_update_frames_per_data_frame_sent,
        stream_error_on_invalid_http_messaging,
        override_stream_error_on_invalid_http_message,
        custom_settings_parameters,
        connection_keepalive,
        use_oghttp2_codec,
        max_metadata_size,
        enable_huffman_encoding,
        max_header_field_size_kb,
        disallow_obs_text,
        stream_reset_burst,
        stream_reset_rate,
    } = value;
    refuse!(
        hpack_table_size,
        initial_stream_window_size,
        initial_connection_window_size,
        allow_connect,
        allow_metadata,
        max_outbound_frames,
        max_outbound_control_frames,
        max_consecutive_inbound_frames_with_empty_payload,
        max_inbound_priority_frames_per_stream,
        max_inbound_window_update_frames_per_data_frame_sent,
        stream_error_on_invalid_http_messaging,
        override_stream_error_on_invalid_http_message,
        custom_settings_parameters,
        max_metadata_size,
        enable_huffman_encoding,
        max_header_field_size_kb,
        disallow_obs_text,
        stream_reset_burst,
        stream_reset_rate,
    );
    pass_over!("envoy.config.core.v3.Http2ProtocolOptions": use_oghttp2_codec);
    let max_concurrent_streams = number(max_concurrent_streams.as_ref());
    if let Some(streams @ (0 | 0x8000_0000..)) = max_concurrent_streams {
        let message = format!("{streams} is not between 1 and 2147483647");
        return Err(Invalid::new("max_concurrent_streams", message));
    }
    let keepalive = connection_keepalive.as_ref();
    let keepalive = keepalive.map(keepalive_of).transpose();
    Ok(Http2 {
        max_concurrent_streams,
        keepalive: keepalive.at("connection_keepalive")?.flatten(),
    })
}

fn keepalive_of(value: &KeepaliveSettings) -> Result<Option<(Duration, Duration)>, Invalid> {
    let KeepaliveSettings {
        interval,
        timeout,
        interval_jitter,
        connection_idle_interval,
    } = value;
    refuse!(connection_idle_interval);
    if interval_jitter.is_some_and(|jitter| jitter.value != 0.0) {
        refuse!(interval_jitter);
    }
    let timeout = maybe_duration("timeout", timeout.as_ref())?;
    let Some(timeout) = timeout.filter(|timeout| !timeout.is_zero()) else {
        return Err(Invalid::new("timeout", "required, and more than zero"));
    };
    match maybe_duration("interval", interval.as_ref())? {
        Some(Duration::ZERO) => Err(Invalid::new("interval", "must be more than zero")),
        interval => Ok(interval.map(|interval| (interval, timeout))),
    }
}
