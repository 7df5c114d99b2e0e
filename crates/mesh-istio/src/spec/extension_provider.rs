//! `MeshConfig.extensionProviders`: services that policies ask (action CUSTOM).
//!
//! Providers of other kinds (tracing, logs, metrics) are known by name only: nothing here refers to
//! them.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use mesh_core::model::{AskedBody, StringMatch};

use crate::cursor::{Cursor, Fields, read};

/// A provider.
#[derive(Clone, Debug, PartialEq)]
pub struct ExtensionProvider {
    /// What policies call it.
    pub name: String,
    /// The service that is asked; none where it is a provider of something else.
    pub check: Option<Check>,
}

/// A service that is asked (`envoyExtAuthzHttp`, `envoyExtAuthzGrpc`).
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// Its host, or `namespace/host`.
    pub service: String,
    /// Its port.
    pub port: u16,
    /// How long it may take. Istio's default is 600 s.
    pub timeout: Duration,
    /// Let through what it could not be asked about.
    pub fail_open: bool,
    /// The status where it could not be asked. Default 403.
    pub status_on_error: u16,
    /// The body is sent along.
    pub body: Option<AskedBody>,
    /// The route is found anew once it changed the request.
    pub clear_route_cache: bool,
    /// Over HTTP; gRPC otherwise.
    pub http: Option<CheckHttp>,
}

/// How a service is asked over HTTP.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CheckHttp {
    /// Put before the path.
    pub path_prefix: String,
    /// Headers of the request that it is told (`includeRequestHeadersInCheck`).
    pub told: Vec<StringMatch>,
    /// Headers that it is told besides (`includeAdditionalHeadersInCheck`), by name.
    pub added: Vec<(HeaderName, HeaderValue)>,
    /// `headersToUpstreamOnAllow`.
    pub upstream: Vec<StringMatch>,
    /// `headersToDownstreamOnDeny`.
    pub deny: Vec<StringMatch>,
    /// `headersToDownstreamOnAllow`.
    pub allow: Vec<StringMatch>,
}

const TIMEOUT: Duration = Duration::from_secs(600);

/// Providers that no policy asks, with what they are.
const OTHERS: [&str; 14] = [
    "zipkin",
    "datadog",
    "stackdriver",
    "skywalking",
    "opentelemetry",
    "prometheus",
    "envoyFileAccessLog",
    "envoyHttpAls",
    "envoyTcpAls",
    "envoyOtelAls",
    "lightstep",
    "opencensus",
    "sds",
    "opentelemetryMetrics",
];

pub(super) fn providers(cursor: &Cursor<'_>) -> Option<Vec<ExtensionProvider>> {
    let mut names: Vec<String> = Vec::new();
    cursor.list(|cursor| {
        let provider = ExtensionProvider::read(cursor)?;
        if names.contains(&provider.name) {
            cursor.error(format!("there is another provider {:?}", provider.name));
            return None;
        }
        names.push(provider.name.clone());
        Some(provider)
    })
}

impl ExtensionProvider {
    fn read(cursor: &Cursor<'_>) -> Option<Self> {
        let mut fields = cursor.fields()?;
        let name = fields.need("name", read::filled);
        let grpc = fields.get("envoyExtAuthzGrpc", Check::grpc);
        let http = fields.get("envoyExtAuthzHttp", Check::http);
        if grpc.is_some() && http.is_some() {
            cursor.error("envoyExtAuthzGrpc and envoyExtAuthzHttp exclude each other");
        }
        for other in OTHERS {
            fields.ignore(other);
        }
        fields.done();
        Some(Self {
            name: name?,
            check: grpc.or(http),
        })
    }
}

impl Check {
    fn grpc(cursor: &Cursor<'_>) -> Option<Self> {
        let mut fields = cursor.fields()?;
        let check = Self::common(&mut fields);
        fields.done();
        check
    }

    fn http(cursor: &Cursor<'_>) -> Option<Self> {
        let mut fields = cursor.fields()?;
        let check = Self::common(&mut fields);
        let mut http = CheckHttp::default();
        let prefix = fields.get("pathPrefix", |cursor| {
            let text = cursor.string()?;
            if !text.is_empty() && !text.starts_with('/') {
                cursor.error("has to begin with a slash");
                return None;
            }
            Some(text)
        });
        http.path_prefix = prefix.unwrap_or_default();
        let older = fields.list("includeHeadersInCheck", header);
        http.told = fields.list("includeRequestHeadersInCheck", header);
        if http.told.is_empty() {
            http.told = older;
        }
        let added = fields.get("includeAdditionalHeadersInCheck", added);
        http.added = added.unwrap_or_default();
        http.upstream = fields.list("headersToUpstreamOnAllow", header);
        http.deny = fields.list("headersToDownstreamOnDeny", header);
        http.allow = fields.list("headersToDownstreamOnAllow", header);
        fields.done();
        let mut check = check?;
        check.http = Some(http);
        Some(check)
    }

    fn common(fields: &mut Fields<'_>) -> Option<Self> {
        let service = fields.need("service", read::filled);
        let port = fields.need("port", read::port);
        let timeout = fields.get("timeout", read::positive_duration);
        let fail_open = fields.get("failOpen", read::bool).unwrap_or(false);
        let status = fields.get("statusOnError", status).flatten();
        let body = fields.get("includeRequestBodyInCheck", body);
        let clear_route_cache = fields.get("clearRouteCache", read::bool);
        Some(Self {
            service: service?,
            port: port?,
            timeout: timeout.unwrap_or(TIMEOUT),
            fail_open,
            status_on_error: status.unwrap_or(403),
            body,
            clear_route_cache: clear_route_cache.unwrap_or(false),
            http: None,
        })
    }
}

/// A status as text; empty is none.
fn status(cursor: &Cursor<'_>) -> Option<Option<u16>> {
    let text = cursor.string()?;
    if text.is_empty() {
        return Some(None);
    }
    let status = text.parse().ok();
    let status = status.filter(|status| is_known(*status));
    if status.is_none() {
        cursor.error(format!("{text:?} is not the status of an answer"));
    }
    status.map(Some)
}

/// Whether Envoy has a name for a status (`envoy.type.v3.StatusCode`).
fn is_known(status: u16) -> bool {
    matches!(
        status,
        200..=208 | 226 | 300..=305 | 307 | 308 | 400..=417 | 421..=424 | 426 | 428 | 429 | 431
            | 500..=508 | 510 | 511
    )
}

fn body(cursor: &Cursor<'_>) -> Option<AskedBody> {
    let mut fields = cursor.fields()?;
    let limit = fields.need("maxRequestBytes", |cursor| {
        let limit = cursor.u32()?;
        if limit == 0 {
            cursor.error("must be 1 or more");
            return None;
        }
        Some(limit)
    });
    let partial = fields.get("allowPartialMessage", read::bool);
    let raw = fields.get("packAsBytes", read::bool);
    fields.done();
    Some(AskedBody {
        limit: limit?,
        partial: partial.unwrap_or(false),
        raw: raw.unwrap_or(false),
    })
}

/// A header by name, `prefix*` or `*suffix`, whatever its case.
fn header(cursor: &Cursor<'_>) -> Option<StringMatch> {
    let text = cursor.filled()?;
    if text == "*" {
        cursor.error("\"*\" alone is not allowed: a prefix or suffix is");
        return None;
    }
    Some(match (text.strip_prefix('*'), text.strip_suffix('*')) {
        (Some(suffix), _) => StringMatch::SuffixIgnoreCase(suffix.to_owned()),
        (_, Some(prefix)) => StringMatch::PrefixIgnoreCase(prefix.to_owned()),
        _ => StringMatch::ExactIgnoreCase(text),
    })
}

fn added(cursor: &Cursor<'_>) -> Option<Vec<(HeaderName, HeaderValue)>> {
    let map: BTreeMap<String, String> = cursor.string_map()?;
    let mut all = Vec::with_capacity(map.len());
    for (name, value) in map {
        let pair = (HeaderName::try_from(&name), HeaderValue::try_from(&value));
        let (Ok(header), Ok(value)) = pair else {
            cursor.error(format!("{name:?} and its value are no header"));
            return None;
        };
        if value.as_bytes().contains(&b'%') {
            cursor.error(format!(
                "{name:?}: not supported: Envoy takes what stands between percent signs for \
                 something to be filled in"
            ));
            return None;
        }
        all.push((header, value));
    }
    Some(all)
}
