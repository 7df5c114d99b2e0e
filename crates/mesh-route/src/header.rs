//! Applies header edits. Pure but for the values, which the caller fills in.
//!
//! Within one list: names are removed first; then every value is worked out from the headers as
//! they are at that moment; then values that overwrite are set, and last the others are added, in
//! order. `IfAbsent` and `OverwriteIfPresent` look at the headers before anything was set or added
//! (Envoy 1.40, `HeaderValueOption.append_action`).
//!
//! Between lists: the destination's come first, then the rule's, the virtual host's and the
//! table's, so that the table has the last word; with `most_specific_edits_win` it is the table's,
//! the host's and the rule's that follow the destination's (Envoy
//! `most_specific_header_mutations_wins`, which leaves the destination in front).

use http::{HeaderMap, HeaderName, HeaderValue};
use mesh_core::Matched;
use mesh_core::model::{AddMode, HeaderAdd, HeaderChanges, HeaderEdits};

/// Which way a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Request,
    Response,
}

/// The lists of edits that are in force for a request, in the order in which they are applied.
pub(crate) fn levels(
    matched: &Matched,
    direction: Direction,
) -> impl Iterator<Item = &HeaderEdits> {
    let request = direction == Direction::Request;
    let pick = move |to, from| if request { to } else { from };
    let destination = matched
        .weighted()
        .map(|part| pick(&part.request_edits, &part.response_edits));
    let (rule, host, table) = (matched.rule(), matched.host(), matched.table());
    let mut others = [
        pick(&rule.request_edits, &rule.response_edits),
        pick(&host.request_edits, &host.response_edits),
        pick(&table.request_edits, &table.response_edits),
    ];
    if table.most_specific_edits_win {
        others.reverse();
    }
    destination
        .into_iter()
        .chain(others)
        .filter(|edits| !edits.is_empty())
}

/// Applies one list of edits.
pub(crate) fn apply(
    edits: &HeaderChanges,
    headers: &mut HeaderMap,
    value: impl Fn(&HeaderAdd, &HeaderMap) -> Option<HeaderValue>,
) {
    apply_parts(&edits.remove, &edits.add, headers, value);
}

/// The same of a list's two parts.
pub(crate) fn apply_parts(
    remove: &[HeaderName],
    add: &[HeaderAdd],
    headers: &mut HeaderMap,
    value: impl Fn(&HeaderAdd, &HeaderMap) -> Option<HeaderValue>,
) {
    for name in remove {
        headers.remove(name);
    }
    let mut added: Vec<(&HeaderName, HeaderValue)> = Vec::new();
    let mut set: Vec<(&HeaderName, HeaderValue)> = Vec::new();
    for edit in add {
        let Some(value) = value(edit, headers) else {
            continue;
        };
        match edit.mode {
            AddMode::Overwrite => set.push((&edit.name, value)),
            AddMode::OverwriteIfPresent => {
                if headers.contains_key(&edit.name) {
                    set.push((&edit.name, value));
                }
            }
            AddMode::IfAbsent if headers.contains_key(&edit.name) => {}
            AddMode::IfAbsent | AddMode::Append => added.push((&edit.name, value)),
        }
    }
    for (name, value) in set {
        headers.insert(name, value);
    }
    for (name, value) in added {
        headers.append(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_core::Pinned;
    use mesh_core::model::{
        Action, Cluster, Condition, Forward, HeaderTemplate, Piece, RouteTable, Rule,
        SnapshotBuilder, Target, VirtualHost,
    };
    use proptest::prelude::*;

    fn add(name: &'static str, value: &'static str, mode: AddMode) -> HeaderAdd {
        HeaderAdd {
            name: HeaderName::from_static(name),
            value: HeaderTemplate::Fixed(HeaderValue::from_static(value)),
            mode,
            keep_empty: false,
        }
    }

    fn fixed(edit: &HeaderAdd, headers: &HeaderMap) -> Option<HeaderValue> {
        match &edit.value {
            HeaderTemplate::Fixed(value) => Some(value.clone()),
            HeaderTemplate::Pieces(pieces) => match &pieces[..] {
                [Piece::RequestHeader(name)] => headers.get(name).cloned(),
                _ => None,
            },
        }
    }

    fn all<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
        let values = headers.get_all(name).iter();
        values.map(|value| value.to_str().unwrap()).collect()
    }

    #[test]
    fn one_list_is_applied_as_envoy_applies_it() {
        // Read off a running Envoy 1.40.
        let mut headers = HeaderMap::new();
        for name in ["x-a", "x-b", "x-c", "x-c2", "x-d", "x-f", "x-r"] {
            headers.insert(name, HeaderValue::from_static("orig"));
        }
        let mut edits = HeaderChanges {
            remove: vec![
                HeaderName::from_static("x-r"),
                HeaderName::from_static("x-c2"),
            ],
            add: vec![
                add("x-a", "add", AddMode::Append),
                add("x-b", "over", AddMode::Overwrite),
                add("x-c", "absent", AddMode::IfAbsent),
                add("x-c2", "absent", AddMode::IfAbsent),
                add("x-d", "1", AddMode::Append),
                add("x-d", "2", AddMode::Append),
                add("x-d", "3", AddMode::Overwrite),
                add("x-e", "e1", AddMode::IfAbsent),
                add("x-e", "e2", AddMode::IfAbsent),
                add("x-f", "new", AddMode::OverwriteIfPresent),
                add("x-g", "new", AddMode::OverwriteIfPresent),
                add("x-r", "new", AddMode::OverwriteIfPresent),
            ],
        };
        let own = HeaderName::from_static("x-d");
        edits.add.push(HeaderAdd {
            name: HeaderName::from_static("x-self"),
            value: HeaderTemplate::Pieces(vec![Piece::RequestHeader(own)]),
            mode: AddMode::Append,
            keep_empty: false,
        });
        apply(&edits, &mut headers, fixed);
        assert_eq!(all(&headers, "x-a"), ["orig", "add"]);
        assert_eq!(all(&headers, "x-b"), ["over"]);
        assert_eq!(all(&headers, "x-c"), ["orig"]);
        assert_eq!(all(&headers, "x-c2"), ["absent"]);
        assert_eq!(all(&headers, "x-d"), ["3", "1", "2"]);
        assert_eq!(all(&headers, "x-e"), ["e1", "e2"]);
        assert_eq!(all(&headers, "x-self"), ["orig"]);
        assert_eq!(all(&headers, "x-f"), ["new"]);
        assert!(!headers.contains_key("x-g"));
        assert!(!headers.contains_key("x-r"));
    }

    fn order(most_specific: bool, direction: Direction) -> Vec<String> {
        let edits = |name: &'static str| {
            let mut edits = HeaderEdits::default();
            edits.add.push(add("x-l", name, AddMode::Append));
            edits
        };
        let mut forward = Forward::split([("a", 1)]);
        let Target::Weighted(parts) = &mut forward.to else {
            unreachable!("a split was made")
        };
        parts[0].request_edits = edits("to destination");
        parts[0].response_edits = edits("from destination");
        let mut rule = Rule::new(Condition::default(), Action::Forward(forward));
        rule.request_edits = edits("to rule");
        rule.response_edits = edits("from rule");
        let mut host = VirtualHost::new("all", ["*"]).rule(rule);
        host.request_edits = edits("to host");
        host.response_edits = edits("from host");
        let mut table = RouteTable::new("t").host(host);
        table.request_edits = edits("to table");
        table.response_edits = edits("from table");
        table.most_specific_edits_win = most_specific;
        let mut builder = SnapshotBuilder::new();
        builder.cluster(Cluster::new("a")).routes(table);
        let (snapshot, _) = builder.build().unwrap();
        let matched = Matched::new(Pinned::new(snapshot), 0, 0, 0).to(Some(0), Some(0));
        let mut headers = HeaderMap::new();
        for level in levels(&matched, direction) {
            apply(level, &mut headers, fixed);
        }
        all(&headers, "x-l")
            .into_iter()
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn the_destination_comes_first_and_the_table_last_unless_the_most_specific_wins() {
        // Read off a running Envoy 1.40, both ways.
        assert_eq!(
            order(false, Direction::Request),
            ["to destination", "to rule", "to host", "to table"]
        );
        assert_eq!(
            order(true, Direction::Request),
            ["to destination", "to table", "to host", "to rule"]
        );
        assert_eq!(
            order(true, Direction::Response),
            ["from destination", "from table", "from host", "from rule"]
        );
    }

    fn mode() -> impl Strategy<Value = AddMode> {
        prop::sample::select(vec![AddMode::Append, AddMode::Overwrite, AddMode::IfAbsent])
    }

    proptest! {
        #[test]
        fn what_is_overwritten_has_what_was_last_set_in_front_and_nothing_of_before(
            before in prop::collection::vec((0_usize..4, "[a-z]{1,3}"), 0..8),
            remove in prop::collection::vec(0_usize..4, 0..3),
            add in prop::collection::vec((0_usize..4, "[A-Z]{1,3}", mode()), 0..8),
        ) {
            let names = ["x-a", "x-b", "x-c", "x-d"].map(HeaderName::from_static);
            let mut headers = HeaderMap::new();
            for (name, value) in &before {
                headers.append(&names[*name], HeaderValue::try_from(value).unwrap());
            }
            let edits = HeaderChanges {
                remove: remove.iter().map(|name| names[*name].clone()).collect(),
                add: add
                .iter()
                .map(|(name, value, mode)| HeaderAdd {
                    name: names[*name].clone(),
                    value: HeaderTemplate::Fixed(HeaderValue::try_from(value).unwrap()),
                    mode: *mode,
                    keep_empty: false,
                })
                .collect(),
            };
            apply(&edits, &mut headers, fixed);
            for (index, name) in names.iter().enumerate() {
                let old: Vec<&str> = before
                    .iter()
                    .filter(|(name, _)| *name == index && !remove.contains(&index))
                    .map(|(_, value)| value.as_str())
                    .collect();
                let given = |wanted: AddMode| {
                    add.iter()
                        .filter(move |(name, _, mode)| *name == index && *mode == wanted)
                        .map(|(_, value, _)| value.as_str())
                };
                let now = all(&headers, name.as_str());
                let kept: Vec<&str> = now.iter().copied().filter(|v| old.contains(v)).collect();
                match given(AddMode::Overwrite).next_back() {
                    Some(last) => {
                        prop_assert_eq!(now.first(), Some(&last));
                        prop_assert!(kept.is_empty());
                    }
                    None => prop_assert_eq!(kept, old.clone()),
                }
                for value in given(AddMode::Append) {
                    prop_assert!(now.contains(&value));
                }
                if old.is_empty() {
                    for value in given(AddMode::IfAbsent) {
                        prop_assert!(now.contains(&value));
                    }
                }
            }
        }
    }
}
