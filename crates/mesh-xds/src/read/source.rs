//! Where resources are to be got from.

use super::{Reference, Source};
use crate::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use crate::pb::envoy::config::core::v3::{
    AggregatedConfigSource, ApiVersion, ConfigSource, PathConfigSource, SelfConfigSource,
};
use crate::wire::{At, enumeration, maybe_duration, refuse, required};
use mesh_core::Invalid;
use std::path::PathBuf;
use std::time::Duration;

/// How long Envoy waits for a resource where nothing is said.
const INITIAL_FETCH: Duration = Duration::from_secs(15);

/// A resource with this name, from where `source` says.
pub(crate) fn reference(name: &str, source: &ConfigSource) -> Result<Reference, Invalid> {
    let timeout = initial_fetch(source)?;
    let specifier = &source.config_source_specifier;
    let (from, watched_directory) = from(required("config_source_specifier", specifier)?)?;
    Ok(Reference {
        name: name.into(),
        from,
        watched_directory,
        // Zero waits for ever.
        initial_fetch_timeout: (!timeout.is_zero()).then_some(timeout),
    })
}

/// How long to wait at first, zero for ever; everything but the place is checked.
pub(super) fn initial_fetch(source: &ConfigSource) -> Result<Duration, Invalid> {
    let ConfigSource {
        authorities,
        initial_fetch_timeout,
        resource_api_version,
        config_source_specifier: _,
    } = source;
    refuse!(authorities);
    version("resource_api_version", *resource_api_version)?;
    let timeout = maybe_duration("initial_fetch_timeout", initial_fetch_timeout.as_ref())?;
    Ok(timeout.unwrap_or(INITIAL_FETCH))
}

/// Only one version of the API is spoken.
pub(super) fn version(field: &str, value: i32) -> Result<(), Invalid> {
    match enumeration(field, value)? {
        ApiVersion::Auto | ApiVersion::V3 => Ok(()),
        _ => {
            let message = "only version 3 of the API is supported";
            Err(Invalid::new(field, message))
        }
    }
}

/// The source, and the directory that is watched for it.
#[expect(deprecated, reason = "Envoy still reads `path`")]
fn from(specifier: &ConfigSourceSpecifier) -> Result<(Source, Option<PathBuf>), Invalid> {
    let source = match specifier {
        ConfigSourceSpecifier::Ads(AggregatedConfigSource {}) => Ok(Source::Ads),
        ConfigSourceSpecifier::Self_(SelfConfigSource {
            transport_api_version: _,
        }) => Ok(Source::Ads),
        ConfigSourceSpecifier::Path(path) => file(path).at("path"),
        ConfigSourceSpecifier::PathConfigSource(source) => {
            return path_source(source).at("path_config_source");
        }
        ConfigSourceSpecifier::ApiConfigSource(_) => Err(Invalid::new(
            "api_config_source",
            "not supported; use ads, self or path_config_source",
        )),
    };
    Ok((source?, None))
}

fn path_source(source: &PathConfigSource) -> Result<(Source, Option<PathBuf>), Invalid> {
    let PathConfigSource {
        path,
        watched_directory,
        poll_interval,
    } = source;
    refuse!(poll_interval);
    let directory = watched_directory.as_ref();
    let directory = directory.map(|directory| PathBuf::from(&directory.path));
    Ok((file(path).at("path")?, directory))
}

fn file(path: &str) -> Result<Source, Invalid> {
    if path.is_empty() {
        return Err(Invalid::new("", "required, but missing"));
    }
    Ok(Source::Path(path.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::envoy::config::core::v3::WatchedDirectory;
    use crate::wire::to_duration;

    fn of(specifier: ConfigSourceSpecifier) -> ConfigSource {
        ConfigSource {
            config_source_specifier: Some(specifier),
            ..ConfigSource::default()
        }
    }

    #[test]
    fn nothing_said_waits_fifteen_seconds_and_zero_waits_for_ever() {
        let mut source = of(ConfigSourceSpecifier::Ads(AggregatedConfigSource {}));
        let read = reference("a", &source).unwrap();
        assert_eq!(read.initial_fetch_timeout, Some(Duration::from_secs(15)));
        source.initial_fetch_timeout = Some(to_duration(Duration::ZERO));
        assert_eq!(reference("a", &source).unwrap().initial_fetch_timeout, None);
    }

    #[test]
    #[expect(deprecated, reason = "Envoy still reads `path`")]
    fn a_file_is_named_in_either_of_two_ways() {
        let new = PathConfigSource {
            path: "a.yaml".to_owned(),
            ..Default::default()
        };
        for specifier in [
            ConfigSourceSpecifier::PathConfigSource(new),
            ConfigSourceSpecifier::Path("a.yaml".to_owned()),
        ] {
            let read = reference("a", &of(specifier)).unwrap();
            assert_eq!(read.from, Source::Path("a.yaml".into()));
            assert_eq!(read.watched_directory, None);
        }
    }

    #[test]
    fn a_file_behind_a_link_says_which_directory_is_watched() {
        let new = PathConfigSource {
            path: "/etc/x/..data/a.yaml".to_owned(),
            watched_directory: Some(WatchedDirectory {
                path: "/etc/x".to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let read = reference("a", &of(ConfigSourceSpecifier::PathConfigSource(new))).unwrap();
        assert_eq!(read.watched_directory, Some("/etc/x".into()));
    }

    #[test]
    fn a_server_of_its_own_and_version_2_are_refused_by_name() {
        let own = of(ConfigSourceSpecifier::ApiConfigSource(Default::default()));
        assert_eq!(
            reference("a", &own).unwrap_err().path(),
            "api_config_source"
        );
        let mut old = of(ConfigSourceSpecifier::Ads(AggregatedConfigSource {}));
        old.resource_api_version = 1;
        assert_eq!(
            reference("a", &old).unwrap_err().path(),
            "resource_api_version"
        );
    }
}
