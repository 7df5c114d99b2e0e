//! `DestinationRule`: how to talk to a host once it has been chosen.

use super::Spanned;
use super::common::{Selector, Visibility, export_to, host_name, is_dns_label, selector};
use super::traffic_policy::TrafficPolicy;
use crate::cursor::{Cursor, read};
use crate::diagnostic::Position;

/// The spec of a `DestinationRule`.
#[derive(Clone, Debug, PartialEq)]
pub struct DestinationRule {
    /// The host it is about, as written; may be a wildcard.
    pub host: Spanned<String>,
    /// Policy for all of the host's traffic.
    pub policy: Option<TrafficPolicy>,
    /// Named parts of the host's endpoints.
    pub subsets: Vec<Subset>,
    /// Who sees it; `None` is the mesh's default.
    pub export_to: Option<Visibility>,
    /// The clients of its namespace that it applies to; `None` is all.
    pub selector: Option<Selector>,
}

/// A named part of a host's endpoints.
#[derive(Clone, Debug, PartialEq)]
pub struct Subset {
    /// Where it starts.
    pub at: Position,
    /// Its name.
    pub name: String,
    /// Labels that its endpoints carry; empty takes them all.
    pub labels: Selector,
    /// Policy laid over the host's, block by block.
    pub policy: Option<TrafficPolicy>,
}

impl DestinationRule {
    pub(super) fn read(cursor: &Cursor<'_>) -> Option<Self> {
        let mut fields = cursor.fields()?;
        let host = fields.need("host", |host| host.spanned(host_name));
        let policy = fields.get("trafficPolicy", TrafficPolicy::read);
        let subsets = fields.list("subsets", Subset::read);
        let export_to = fields.get("exportTo", export_to);
        let selector = fields.get("workloadSelector", selector("matchLabels"));
        fields.done();
        for (index, subset) in subsets.iter().enumerate() {
            if subsets[..index]
                .iter()
                .any(|earlier| earlier.name == subset.name)
            {
                cursor.error(format!("subset {:?} given twice", subset.name));
            }
        }
        Some(Self {
            host: host?,
            policy,
            subsets,
            export_to,
            selector,
        })
    }
}

impl Subset {
    fn read(cursor: &Cursor<'_>) -> Option<Self> {
        let mut fields = cursor.fields()?;
        let name = fields.need("name", |cursor| {
            let name = cursor.filled()?;
            if !is_dns_label(&name) {
                cursor.error(format!(
                    "{name:?} is not a name: letters, digits and dashes"
                ));
                return None;
            }
            Some(name)
        });
        let labels = fields.get("labels", read::string_map).unwrap_or_default();
        let policy = fields.get("trafficPolicy", TrafficPolicy::read);
        fields.done();
        Some(Self {
            at: cursor.at(),
            name: name?,
            labels,
            policy,
        })
    }
}
