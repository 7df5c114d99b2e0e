//! Files of resources, as `path_config_source` names them.

use crate::json::{Codec, JsonError};
use crate::pb::envoy::service::discovery::v3::{DiscoveryResponse, Resource as Wrapped};
use crate::pb::google::protobuf::Any;
use crate::read::{self, Reader, Resource};
use crate::wire::{type_name, unpack};
use crate::{TypeUrl, schema};
use mesh_core::{Invalid, Name};
use prost::{Message, Name as _};
use std::borrow::Cow;
use std::path::Path;

/// The name of the message in a file.
const MESSAGE: &str = "envoy.service.discovery.v3.DiscoveryResponse";

/// How a text is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// YAML, in one document.
    Yaml,
    /// JSON.
    Json,
}

/// What is in a file of resources.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct FileContents {
    /// `version_info`, if it is set.
    pub version: Name,
    /// The resources of the type that was asked for, with their names, or why they cannot be used.
    pub resources: Vec<(Name, Result<Resource, Invalid>)>,
}

// === impl Format ===

impl Format {
    /// The format of a file, by its name: JSON for `.json`, and YAML for everything else, which
    /// is nearly all of JSON too.
    ///
    /// # Errors
    /// For `.pb` and `.pb_text`, which Envoy reads.
    pub fn of(path: &Path) -> Result<Self, Invalid> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("json") => Ok(Self::Json),
            Some(extension @ ("pb" | "pb_text")) => {
                let message = format!(".{extension} files are not supported; use .yaml or .json");
                Err(Invalid::new("", message))
            }
            _ => Ok(Self::Yaml),
        }
    }
}

// === impl FileContents ===

impl FileContents {
    /// Reads a file of resources of one type: a `DiscoveryResponse`, of which only `resources` is
    /// needed.
    ///
    /// Resources that cannot be used, or are of another type, are among the results as errors; the
    /// others can be used.
    ///
    /// # Errors
    /// If the text as a whole cannot be read.
    pub fn read(kind: TypeUrl, format: Format, text: &str) -> Result<Self, JsonError> {
        Self::read_by(&Reader::default(), kind, format, text)
    }

    /// The same with a reader that knows what was in the file before.
    ///
    /// # Errors
    /// As [`FileContents::read`].
    pub fn read_by(
        reader: &Reader,
        kind: TypeUrl,
        format: Format,
        text: &str,
    ) -> Result<Self, JsonError> {
        let codec = Codec::new();
        let bytes = match format {
            Format::Yaml => codec.from_yaml(MESSAGE, text)?,
            Format::Json => codec.from_json(MESSAGE, text)?,
        };
        // The codec made these bytes, so they are this message.
        let message = DiscoveryResponse::decode(bytes.as_slice()).unwrap_or_default();
        let each = message.resources.iter().enumerate();
        Ok(Self {
            version: message.version_info.as_str().into(),
            resources: each
                .map(|(at, any)| resource(reader, kind, at, any))
                .collect(),
        })
    }
}

/// One resource. One without a name is called by its place.
fn resource(
    reader: &Reader,
    kind: TypeUrl,
    at: usize,
    any: &Any,
) -> (Name, Result<Resource, Invalid>) {
    let place = format!("resources[{at}]");
    let inner = if type_name(any) == Wrapped::full_name() {
        match unpack::<Wrapped>(any) {
            Ok(wrapped) => Cow::Owned(wrapped.resource.unwrap_or_default()),
            Err(error) => return (place.as_str().into(), Err(error.within(place))),
        }
    } else {
        Cow::Borrowed(any)
    };
    let name = read::name(&inner.value).unwrap_or_default();
    let name = if name.is_empty() {
        place.as_str().into()
    } else {
        name
    };
    let expected = schema::name_in_url(kind.url());
    let read = if type_name(&inner) == expected {
        reader.resource(kind, &inner.value)
    } else {
        let message = format!("{:?} where {expected:?} was expected", type_name(&inner));
        Err(Invalid::new("@type", message))
    };
    (name, read.map_err(|error| error.within(place)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ENDPOINTS: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";

    #[test]
    fn a_file_of_resources_gives_each_one_or_why_not() {
        let text = format!(
            "
version_info: '7'
resources:
- '@type': {ENDPOINTS}
  cluster_name: good
- '@type': {ENDPOINTS}
  cluster_name: bad
  endpoints: [{{priority: 500}}]
- '@type': type.googleapis.com/google.protobuf.Duration
  value: 1s
- '@type': type.googleapis.com/envoy.service.discovery.v3.Resource
  name: wrapped
  resource: {{'@type': {ENDPOINTS}, cluster_name: wrapped}}
- '@type': {ENDPOINTS}
"
        );
        let contents = FileContents::read(TypeUrl::Endpoints, Format::Yaml, &text).unwrap();
        assert_eq!(&*contents.version, "7");
        let found: Vec<(&str, Option<String>)> = contents
            .resources
            .iter()
            .map(|(name, read)| (&**name, read.as_ref().err().map(ToString::to_string)))
            .collect();
        assert_eq!(found[0], ("good", None));
        assert_eq!(found[1].0, "bad");
        let error = found[1].1.as_deref().unwrap();
        assert!(
            error.starts_with("resources[1].endpoints[0].priority"),
            "{error}"
        );
        let error = found[2].1.as_deref().unwrap();
        assert!(error.starts_with("resources[2].@type"), "{error}");
        assert_eq!(found[3], ("wrapped", None));
        assert_eq!(found[4].0, "resources[4]");
        assert!(found[4].1.is_some());
    }

    #[test]
    fn a_file_that_is_no_response_is_refused_as_a_whole() {
        for text in ["resources: [", "clusters: []", "- a"] {
            assert!(
                FileContents::read(TypeUrl::Cluster, Format::Yaml, text).is_err(),
                "{text}"
            );
        }
        assert!(Format::of(Path::new("a.pb")).is_err());
        assert_eq!(Format::of(Path::new("a.json")), Ok(Format::Json));
        assert_eq!(Format::of(Path::new("a")), Ok(Format::Yaml));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[ -~\n]{0,200}") {
            let _ = FileContents::read(TypeUrl::Listener, Format::Yaml, &text);
            let _ = FileContents::read(TypeUrl::Listener, Format::Json, &text);
        }
    }
}
