//! Reading the file.

use super::{FileWatcher, GrpcAuthority, GrpcBootstrap};
use crate::Node;
use crate::client::Server;
use crate::json::Codec;
use crate::pb::envoy::config::core::v3 as core;
use mesh_core::model::SecretName;
use mesh_core::{Invalid, Name};
use prost::Message;
use serde_json::{Map, Value};
use std::path::PathBuf;

type Object = Map<String, Value>;

pub(super) fn bootstrap(text: &str) -> Result<GrpcBootstrap, Invalid> {
    let value: Value = serde_json::from_str(text)
        .map_err(|error| Invalid::new("", format!("is no JSON: {error}")))?;
    let mut out = GrpcBootstrap::default();
    for (field, value) in object(&value)? {
        let read = || {
            match field.as_str() {
                "xds_servers" => out.servers = each(value, server)?,
                "node" => out.node = node(value)?,
                "authorities" => {
                    for (name, value) in object(value)? {
                        let read = authority(name, value).map_err(|error| error.within(name))?;
                        out.authorities.insert(name.as_str().into(), read);
                    }
                }
                "certificate_providers" => {
                    for (name, value) in object(value)? {
                        let read = provider(value).map_err(|error| error.within(name))?;
                        out.certificate_providers.insert(name.as_str().into(), read);
                    }
                }
                "client_default_listener_resource_name_template" => {
                    out.client_template = Some(string(value)?.to_owned());
                }
                "server_listener_resource_name_template" => {
                    out.server_template = Some(string(value)?.to_owned());
                }
                _ => return Err(Invalid::new("", "not supported")),
            }
            Ok(())
        };
        within(field, read)?;
    }
    if out.servers.is_empty() {
        return Err(Invalid::new("xds_servers", "required, but missing"));
    }
    Ok(out)
}

fn node(value: &Value) -> Result<Node, Invalid> {
    let text = value.to_string();
    let bytes = Codec::new()
        .from_json("envoy.config.core.v3.Node", &text)
        .map_err(|error| Invalid::new(error.path(), error.to_string()))?;
    let mut proto = core::Node::decode(bytes.as_slice())
        .map_err(|error| Invalid::new("", format!("cannot be decoded: {error}")))?;
    if proto.user_agent_name.is_empty() {
        proto.user_agent_name = Node::new("").to_proto().user_agent_name;
    }
    Ok(Node::from_proto(proto))
}

fn authority(name: &str, value: &Value) -> Result<GrpcAuthority, Invalid> {
    let mut out = GrpcAuthority::default();
    for (field, value) in object(value)? {
        let read = || {
            match field.as_str() {
                "xds_servers" => out.servers = each(value, server)?,
                "client_listener_resource_name_template" => {
                    let template = string(value)?;
                    let start = format!("xdstp://{name}/");
                    if !template.starts_with(&start) {
                        let message = format!("{template:?} has to begin with {start}");
                        return Err(Invalid::new("", message));
                    }
                    out.client_template = Some(template.to_owned());
                }
                _ => return Err(Invalid::new("", "not supported")),
            }
            Ok(())
        };
        within(field, read)?;
    }
    Ok(out)
}

fn server(value: &Value) -> Result<Server, Invalid> {
    let fields = object(value)?;
    let known = [
        "server_uri",
        "channel_creds",
        "call_creds",
        "server_features",
    ];
    refuse_others(fields, &known)?;
    let uri = string(required(fields, "server_uri")?).map_err(|it| it.within("server_uri"))?;
    let place = uri
        .strip_prefix("dns:")
        .map_or(uri, |rest| rest.trim_start_matches('/'));
    let mut server = within("channel_creds", || {
        channel(required(fields, "channel_creds")?, place)
    })?;
    if let Some(value) = fields.get("call_creds") {
        let token = within("call_creds", || token(value))?;
        server = server.token_file(token);
    }
    for (at, feature) in list(fields.get("server_features"))?.iter().enumerate() {
        match feature.as_str() {
            // The only version that there is.
            Some("xds_v3") => {}
            Some("ignore_resource_deletion") => server = server.ignore_resource_deletion(true),
            _ => {
                let message = format!("{feature} is not supported");
                return Err(Invalid::new(format!("server_features[{at}]"), message));
            }
        }
    }
    Ok(server)
}

/// The first way to a server that is known here.
fn channel(value: &Value, place: &str) -> Result<Server, Invalid> {
    let mut unknown = Vec::new();
    for (at, creds) in array(value)?.iter().enumerate() {
        let read = || {
            let fields = object(creds)?;
            refuse_others(fields, &["type", "config"])?;
            Ok(match string(required(fields, "type")?)? {
                "insecure" => Some(Server::at(format!("http://{place}"))),
                "tls" => {
                    let secure = |config| tls(config, place);
                    let config = fields.get("config");
                    Some(within("config", || secure(config))?)
                }
                other => {
                    unknown.push(other.to_owned());
                    None
                }
            })
        };
        if let Some(server) = within(&format!("[{at}]"), read)? {
            return Ok(server);
        }
    }
    let message = format!(
        "none of {} is supported; use insecure or tls",
        unknown.join(", ")
    );
    Err(Invalid::new("", message))
}

/// `tls`, with files or without (gRFC A65).
fn tls(config: Option<&Value>, place: &str) -> Result<Server, Invalid> {
    let FileWatcher { certificate, roots } = match config {
        Some(config) => files(config)?,
        None => FileWatcher::default(),
    };
    let roots = match &roots {
        Some(path) => SecretName::RootFile(text(path)?).to_name(),
        None => SecretName::SystemRoots.to_name(),
    };
    let certificate = match &certificate {
        Some((certificate, key)) => Some(
            SecretName::CertificateFiles {
                certificate: text(certificate)?,
                key: text(key)?,
            }
            .to_name(),
        ),
        None => None,
    };
    Ok(Server::at(format!("https://{place}")).trusting(&roots, None, certificate.as_deref()))
}

/// The first of the ways to prove who calls that is known here (gRFC A97).
fn token(value: &Value) -> Result<PathBuf, Invalid> {
    for creds in array(value)? {
        let fields = object(creds)?;
        refuse_others(fields, &["type", "config"])?;
        if string(required(fields, "type")?)? == "jwt_token_file" {
            let config = object(required(fields, "config")?)?;
            refuse_others(config, &["jwt_token_file"])?;
            return Ok(string(required(config, "jwt_token_file")?)?.into());
        }
    }
    Err(Invalid::new("", "only jwt_token_file is supported"))
}

fn provider(value: &Value) -> Result<FileWatcher, Invalid> {
    let fields = object(value)?;
    refuse_others(fields, &["plugin_name", "config"])?;
    match string(required(fields, "plugin_name")?)? {
        "file_watcher" => within("config", || files(required(fields, "config")?)),
        other => {
            let message = format!("{other:?} is not supported; use file_watcher");
            Err(Invalid::new("plugin_name", message))
        }
    }
}

fn files(value: &Value) -> Result<FileWatcher, Invalid> {
    let fields = object(value)?;
    refuse_others(
        fields,
        &[
            "certificate_file",
            "private_key_file",
            "ca_certificate_file",
            // Files are looked at more often than anybody asks for.
            "refresh_interval",
        ],
    )?;
    let path = |field: &str| {
        let value = fields.get(field);
        let value = value.map(|value| string(value).map_err(|error| error.within(field)));
        value.transpose().map(|path| path.map(PathBuf::from))
    };
    let certificate = match (path("certificate_file")?, path("private_key_file")?) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => {
            let message = "certificate_file and private_key_file belong together";
            return Err(Invalid::new("", message));
        }
    };
    Ok(FileWatcher {
        certificate,
        roots: path("ca_certificate_file")?,
    })
}

fn text(path: &std::path::Path) -> Result<&str, Invalid> {
    let text = path.to_str().filter(|path| !path.contains('~'));
    text.ok_or_else(|| Invalid::new("", format!("{}: no ~ in paths", path.display())))
}

fn within<T>(field: &str, read: impl FnOnce() -> Result<T, Invalid>) -> Result<T, Invalid> {
    read().map_err(|error| error.within(field))
}

fn each<T>(value: &Value, read: fn(&Value) -> Result<T, Invalid>) -> Result<Vec<T>, Invalid> {
    let items = array(value)?.iter().enumerate();
    let item = |(at, item)| read(item).map_err(|error: Invalid| error.within(format!("[{at}]")));
    items.map(item).collect()
}

fn object(value: &Value) -> Result<&Object, Invalid> {
    let expected = || Invalid::new("", "expected an object");
    value.as_object().ok_or_else(expected)
}

fn array(value: &Value) -> Result<&[Value], Invalid> {
    let expected = || Invalid::new("", "expected a list");
    value.as_array().map(Vec::as_slice).ok_or_else(expected)
}

fn list(value: Option<&Value>) -> Result<&[Value], Invalid> {
    value.map_or(Ok(&[]), array)
}

fn string(value: &Value) -> Result<&str, Invalid> {
    let expected = || Invalid::new("", "expected a text");
    value.as_str().ok_or_else(expected)
}

fn required<'a>(fields: &'a Object, field: &str) -> Result<&'a Value, Invalid> {
    let missing = || Invalid::new(field, "required, but missing");
    fields.get(field).ok_or_else(missing)
}

fn refuse_others(fields: &Object, known: &[&str]) -> Result<(), Invalid> {
    match fields.keys().find(|field| !known.contains(&field.as_str())) {
        Some(field) => Err(Invalid::new(
            Name::from(field.as_str()).as_str(),
            "not supported",
        )),
        None => Ok(()),
    }
}
