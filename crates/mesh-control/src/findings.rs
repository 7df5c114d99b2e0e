//! What compiling found, reported and logged.

use crate::engine::Engine;
use mesh_istio::Diagnostic;
use std::collections::HashSet;

// === impl Engine ===

impl Engine {
    /// Reports what compiling found, for whoever is connected; what is new is logged.
    pub(crate) fn note_findings(&self) {
        let classes = self.book().all();
        let mut found: Vec<Diagnostic> = Vec::new();
        let mut seen: HashSet<Diagnostic> = HashSet::new();
        for class in classes {
            let compiled = class.compiled();
            for finding in &compiled.findings {
                if seen.insert(finding.clone()) {
                    found.push(finding.clone());
                }
            }
        }
        let before = std::mem::replace(&mut self.reports().compiled, found.clone());
        let before: HashSet<Diagnostic> = before.into_iter().collect();
        for finding in found.iter().filter(|finding| !before.contains(finding)) {
            tracing::warn!(
                object = finding.object.as_deref(),
                file = &*finding.file,
                line = finding.line,
                column = finding.column,
                "{finding}"
            );
        }
    }
}
