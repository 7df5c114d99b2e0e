//! Principals of a mesh whose trust domain has other names (istiod's `trustdomain` package).

/// The trust domain that stands for the mesh's own, whatever it is called.
const LOCAL: &str = "cluster.local";

/// Principals, those of the mesh's own trust domain under all of its names.
pub(super) fn aliases(principals: &[String], domain: &str, others: &[String]) -> Vec<String> {
    let domains = || std::iter::once(domain).chain(others.iter().map(String::as_str));
    let mut all = Vec::new();
    for principal in principals {
        let own = match principal.split('/').collect::<Vec<_>>()[..] {
            // Any trust domain will do, or it is not told.
            ["*", ..] => None,
            [own, _, _, _, _] => Some(own),
            _ => None,
        };
        let own = own.filter(|own| *own == LOCAL || domains().any(|one| covers(one, own)));
        let Some(own) = own else {
            all.push(principal.clone());
            continue;
        };
        let rest = &principal[own.len()..];
        let mut these: Vec<String> = Vec::new();
        for one in domains() {
            let named = match is_suffix(one, own) {
                true => principal.clone(),
                false => format!("{one}{rest}"),
            };
            if !these.contains(&named) {
                these.push(named);
            }
        }
        all.append(&mut these);
    }
    all
}

/// Whether a trust domain is what a policy says: the same, `prefix*` or `*suffix`.
fn covers(domain: &str, said: &str) -> bool {
    let prefix = said.strip_suffix('*');
    domain == said
        || prefix.is_some_and(|prefix| domain.starts_with(prefix))
        || is_suffix(domain, said)
}

fn is_suffix(domain: &str, said: &str) -> bool {
    said.strip_prefix('*')
        .is_some_and(|end| domain.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(principal: &str) -> Vec<String> {
        let others = ["old-td".to_owned(), "older-td".to_owned()];
        aliases(&[principal.to_owned()], "new-td", &others)
    }

    #[test]
    fn a_principal_of_the_mesh_has_all_of_its_names() {
        let all = ["new-td/ns/a/sa/b", "old-td/ns/a/sa/b", "older-td/ns/a/sa/b"];
        assert_eq!(named("old-td/ns/a/sa/b"), all);
        assert_eq!(named("cluster.local/ns/a/sa/b"), all);
    }

    #[test]
    fn a_principal_that_says_no_trust_domain_or_another_stays() {
        for principal in [
            "*/ns/a/sa/b",
            "other/ns/a/sa/b",
            "a*",
            "*",
            "old-td/ns/a/sa/b/c",
        ] {
            assert_eq!(named(principal), [principal]);
        }
    }

    #[test]
    fn a_suffix_covers_those_that_end_so() {
        assert_eq!(named("*-td/ns/a/sa/b"), ["*-td/ns/a/sa/b"]);
        assert_eq!(
            named("*w-td/ns/a/sa/b"),
            ["*w-td/ns/a/sa/b", "old-td/ns/a/sa/b", "older-td/ns/a/sa/b"]
        );
    }
}
