//! How requests are kept at an endpoint, from the HTTP filter `stateful_session`.

use crate::pb::envoy::extensions::filters::http::stateful_session::v3::{
    StatefulSession, StatefulSessionPerRoute, stateful_session_per_route::Override,
};
use crate::pb::envoy::extensions::http::stateful_session::cookie::v3::CookieBasedSessionState;
use crate::pb::envoy::extensions::http::stateful_session::envelope::v3::{
    EnvelopeSessionState, envelope_session_state::Header,
};
use crate::pb::envoy::extensions::http::stateful_session::header::v3::HeaderBasedSessionState;
use crate::pb::envoy::r#type::http::v3::{Cookie, CookieAttribute};
use crate::pb::google::protobuf::Any;
use crate::wire::text::header_name;
use crate::wire::{At, each, maybe_duration, required, type_name, unpack};
use http::StatusCode;
use mesh_core::model::{HashCookie, RouteSession, Session, SessionState};
use mesh_core::{Invalid, Name};
use prost::Name as _;
use std::sync::Arc;

/// The filter's own configuration.
pub(super) fn read(value: &StatefulSession) -> Result<Session, Invalid> {
    let StatefulSession {
        session_state,
        strict,
        stat_prefix,
        status_on_strict_destination_not_found: status,
    } = value;
    let mut session = Session::default();
    if let Some(extension) = session_state {
        let read = || {
            let any = required("typed_config", &extension.typed_config)?;
            state(any).at("typed_config")
        };
        session.state = Some(read().at("session_state")?);
    }
    session.strict = *strict;
    session.stat_prefix = stat_prefix.into();
    // Elsewhere it means nothing, and 0 is as if it were not there.
    if *strict && *status != 0 {
        let known = u16::try_from(*status)
            .ok()
            .filter(|it| (200..600).contains(it));
        let known = known.and_then(|known| StatusCode::from_u16(known).ok());
        session.missing_status = known.ok_or_else(|| {
            let message = format!("{status} is not a status from 200 to 599");
            Invalid::new("status_on_strict_destination_not_found", message)
        })?;
    }
    Ok(session)
}

/// What a route says of it.
pub(super) fn on_route(value: &StatefulSessionPerRoute) -> Result<RouteSession, Invalid> {
    let StatefulSessionPerRoute { r#override } = value;
    match required("override", r#override)? {
        Override::Disabled(true) => Ok(RouteSession::Off),
        Override::Disabled(false) => Err(Invalid::new("disabled", "must be true")),
        Override::StatefulSession(session) => {
            let session = read(session).at("stateful_session")?;
            Ok(RouteSession::Instead(Arc::new(session)))
        }
    }
}

fn state(any: &Any) -> Result<SessionState, Invalid> {
    let name = type_name(any);
    if name == CookieBasedSessionState::full_name() {
        let CookieBasedSessionState { cookie } = unpack(any)?;
        let cookie = self::cookie(required("cookie", &cookie)?).at("cookie")?;
        return Ok(SessionState::Cookie(cookie));
    } else if name == HeaderBasedSessionState::full_name() {
        let HeaderBasedSessionState { name } = unpack(any)?;
        return Ok(SessionState::Header(header_name("name", &name)?));
    } else if name == EnvelopeSessionState::full_name() {
        let EnvelopeSessionState { header } = unpack(any)?;
        let Header { name } = required("header", &header)?;
        let name = header_name("name", name).at("header")?;
        return Ok(SessionState::Envelope(name));
    }
    Err(Invalid::new("", format!("not supported: {name}")))
}

fn cookie(value: &Cookie) -> Result<HashCookie, Invalid> {
    let Cookie {
        name,
        ttl,
        path,
        attributes,
    } = value;
    if name.is_empty() {
        return Err(Invalid::new("name", "required, but missing"));
    }
    let mut cookie = HashCookie::default();
    cookie.name = name.into();
    cookie.ttl = maybe_duration("ttl", ttl.as_ref())?;
    cookie.path = path.into();
    cookie.attributes = each("attributes", attributes, |attribute| {
        let CookieAttribute { name, value } = attribute;
        Ok((Name::from(name), Name::from(value)))
    })?;
    Ok(cookie)
}
