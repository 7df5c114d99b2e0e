//! Aliases that move from a virtual host that is in force to another one (VHDS).
//!
//! What comes for an alias may still be refused when the table is put together. So the alias moves
//! once it is accepted, and until then, or for good if it is refused, leads to what is in force.
//! Who puts the table together is told whose place it takes: both may have the same domains.

use super::Machine;
use super::record::Kind;
use crate::TypeUrl;
use mesh_core::Name;

/// Of names.
type Pairs = Vec<(Name, Name)>;

// === impl Kind ===

impl Kind {
    /// What an alias that is about to lead to `name` leaves, if that is in force or will be.
    fn leaves(&self, alias: &Name, name: &Name) -> Option<&Name> {
        let before = self.records.get(alias)?.leads_to.as_ref()?;
        let is_held = self.records.get(before).is_some_and(|one| one.is_held());
        (before != name && is_held).then_some(before)
    }
}

// === impl Machine ===

impl<R> Machine<R> {
    /// Of aliases with what came for them, those that have to wait for it to be accepted. The others
    /// are left to the caller. The second list says for each that came in whose place it is:
    /// what nothing asks for any more once the aliases moved.
    pub(super) fn hold_back(
        &self,
        kind: TypeUrl,
        resolved: &mut Pairs,
        gone: &[Name],
    ) -> (Pairs, Pairs) {
        let Some(all) = self.kinds.get(&kind) else {
            return Default::default();
        };
        let waits = |(alias, name): &mut (Name, Name)| {
            let left = all.leaves(alias, name);
            left.is_some_and(|left| !gone.contains(left))
        };
        let moves: Pairs = resolved.extract_if(.., waits).collect();
        let moves_away = |alias: &Name| moves.iter().any(|(moved, _)| moved == alias);
        let came = |name: &Name| moves.iter().any(|(_, to)| to == name);
        let mut instead = Vec::new();
        for (alias, name) in &moves {
            // Also what came for the alias before, and waits.
            let earlier = self.tickets.values().filter(|ticket| ticket.kind == kind);
            let earlier = earlier.flat_map(|ticket| &ticket.moves);
            let earlier = earlier.filter(|(of, _)| of == alias).map(|(_, to)| to);
            for left in earlier.chain(all.leaves(alias, name)) {
                let named = all.records.get(left).is_some_and(|one| one.named);
                let aliases = all.aliases.get(left).into_iter().flatten();
                let pair = (name.clone(), left.clone());
                if !named
                    && !came(left)
                    && aliases.into_iter().all(moves_away)
                    && !instead.contains(&pair)
                {
                    instead.push(pair);
                }
            }
        }
        (moves, instead)
    }

    /// What these aliases waited for is in force. What they leave, and nothing asks for, goes; and so
    /// does what came if nothing asks for it by now.
    pub(super) fn moved(&mut self, kind: TypeUrl, ticket: u64, name: &Name, aliases: Vec<Name>) {
        let Some(all) = self.kinds.get_mut(&kind) else {
            return;
        };
        let mut left = Vec::new();
        let waited = !aliases.is_empty();
        for alias in aliases {
            if let Some(record) = all.records.get_mut(&alias)
                && record.named
                && record.led_by <= ticket
            {
                record.missing = false;
                left.extend(all.lead(&alias, Some(name.clone()), ticket));
            }
        }
        left.extend(waited.then(|| name.clone()));
        left.retain(|name| !self.is_asked_for(kind, name));
        self.forget(kind, left);
    }

    /// The aliases that wait for one of these to be accepted.
    pub(super) fn wait_for(&self, kind: TypeUrl, names: &[Name]) -> Vec<Name> {
        let tickets = self.tickets.values().filter(|ticket| ticket.kind == kind);
        let moves = tickets.flat_map(|ticket| &ticket.moves);
        let moves = moves.filter(|(_, to)| names.contains(to));
        moves.map(|(alias, _)| alias.clone()).collect()
    }
}
