//! Templates of paths, as the extensions `uri_template` of path matchers and rewriters.

use super::names::TEMPLATE_REWRITE;
use super::{At, pack, required, type_name, unpack};
use crate::pb::envoy::config::core::v3::TypedExtensionConfig;
use crate::pb::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;
use crate::pb::envoy::extensions::path::rewrite::uri_template::v3::UriTemplateRewriteConfig;
use mesh_core::Invalid;
use mesh_core::model::{PathTemplate, TemplateRewrite};
use prost::{Message, Name};

pub(crate) fn read(value: &TypedExtensionConfig) -> Result<PathTemplate, Invalid> {
    let UriTemplateMatchConfig { path_template } = unpacked(value)?;
    PathTemplate::new(path_template).at("typed_config.path_template")
}

pub(crate) fn read_rewrite(value: &TypedExtensionConfig) -> Result<TemplateRewrite, Invalid> {
    let UriTemplateRewriteConfig {
        path_template_rewrite,
    } = unpacked(value)?;
    TemplateRewrite::new(path_template_rewrite).at("typed_config.path_template_rewrite")
}

pub(crate) fn write(name: &str, template: &PathTemplate) -> TypedExtensionConfig {
    let config = UriTemplateMatchConfig {
        path_template: template.as_str().to_owned(),
    };
    TypedExtensionConfig {
        name: name.to_owned(),
        typed_config: Some(pack(&config)),
    }
}

pub(crate) fn write_rewrite(rewrite: &TemplateRewrite) -> TypedExtensionConfig {
    let config = UriTemplateRewriteConfig {
        path_template_rewrite: rewrite.as_str().to_owned(),
    };
    TypedExtensionConfig {
        name: TEMPLATE_REWRITE.to_owned(),
        typed_config: Some(pack(&config)),
    }
}

/// The name is without a meaning: Envoy goes by the type of the message.
fn unpacked<M: Message + Name + Default>(value: &TypedExtensionConfig) -> Result<M, Invalid> {
    let TypedExtensionConfig {
        name: _,
        typed_config,
    } = value;
    let any = required("typed_config", typed_config)?;
    if type_name(any) != M::full_name() {
        let message = format!("{:?} is not supported", type_name(any));
        return Err(Invalid::new("typed_config", message));
    }
    unpack(any).at("typed_config")
}
