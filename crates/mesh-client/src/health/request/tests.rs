use super::*;
use http::HeaderName;
use mesh_core::model::{AddMode, HeaderAdd, HeaderTemplate, StringMatch};
use proptest::collection::vec;
use proptest::prelude::*;

fn judged(probe: &HttpProbe, status: u16, headers: &[(&'static str, &str)], body: &str) -> Answer {
    let status = StatusCode::from_u16(status).unwrap();
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.insert(*name, value.parse().unwrap());
    }
    judge(probe, status, &map, body.as_bytes())
}

fn unwell(retriable: bool, excluded: bool) -> Answer {
    Answer::Unwell {
        retriable,
        excluded,
    }
}

#[test]
fn the_status_decides_first() {
    let mut probe = HttpProbe::new("/");
    assert_eq!(judged(&probe, 200, &[], ""), Answer::Well);
    assert_eq!(judged(&probe, 201, &[], ""), unwell(false, false));
    let fail = (IMMEDIATE_FAIL, "true");
    assert_eq!(judged(&probe, 503, &[fail], ""), unwell(false, true));
    assert_eq!(judged(&probe, 200, &[fail], ""), Answer::Well);
    assert_eq!(judged(&probe, 200, &[(DEGRADED, "")], ""), Answer::Degraded);
    probe.expected = [200..300, 404..405].into();
    probe.retriable = vec![500..502, 200..300];
    assert_eq!(judged(&probe, 299, &[], ""), Answer::Well);
    assert_eq!(judged(&probe, 404, &[], ""), Answer::Well);
    assert_eq!(judged(&probe, 501, &[], ""), unwell(true, false));
    assert_eq!(judged(&probe, 502, &[], ""), unwell(false, false));
}

#[test]
fn the_body_and_the_name_of_the_cluster_come_next() {
    let mut probe = HttpProbe::new("/");
    probe.receive = vec!["a".into(), "".into(), "bc".into()];
    assert_eq!(judged(&probe, 200, &[], "xaxbcx"), Answer::Well);
    assert_eq!(judged(&probe, 200, &[], "bca"), unwell(false, false));
    probe.receive.clear();
    probe.service = Some(StringMatch::Prefix("reviews".to_owned()));
    assert_eq!(judged(&probe, 200, &[], ""), unwell(false, false));
    assert_eq!(
        judged(&probe, 200, &[(CLUSTER, "reviews-v1")], ""),
        Answer::Well
    );
    assert_eq!(
        judged(&probe, 200, &[(CLUSTER, "ratings")], ""),
        unwell(false, false)
    );
}

#[test]
fn a_question_is_as_it_is_configured() {
    let mut probe = HttpProbe::new("/healthz?x=1");
    let add = |name: &'static str, value: &'static str, mode| HeaderAdd {
        name: HeaderName::from_static(name),
        value: HeaderTemplate::Fixed(HeaderValue::from_static(value)),
        mode,
        keep_empty: false,
    };
    probe.edits.remove.push(USER_AGENT);
    probe.edits.add = vec![
        add("x-a", "1", AddMode::Append),
        add("x-a", "2", AddMode::Append),
        add("x-a", "3", AddMode::IfAbsent),
        add("x-b", "", AddMode::Append),
        add("x-c", "1", AddMode::OverwriteIfPresent),
    ];
    let plain = request(&probe, "outbound|80||x", false);
    assert_eq!(plain.uri(), "/healthz?x=1");
    assert_eq!(plain.headers().len(), 3);
    assert_eq!(plain.headers()[HOST], "outbound|80||x");
    let values: Vec<_> = plain.headers().get_all("x-a").iter().collect();
    assert_eq!(values, ["1", "2"]);
    probe.http2 = true;
    let secured = request(&probe, "outbound|80||x", true);
    assert_eq!(secured.uri(), "https://outbound_80__x/healthz?x=1");
    assert!(!secured.headers().contains_key(HOST));
}

proptest! {
    /// Against an expression that says the same.
    #[test]
    fn pieces_are_found_in_their_order(
        body in "[ab]{0,12}", pieces in vec("[ab]{0,3}", 0..4),
    ) {
        let pattern = mesh_core::model::Pattern::new(&format!(".*{}.*", pieces.join(".*")));
        let pieces: Vec<Bytes> = pieces.into_iter().map(Bytes::from).collect();
        let expected = pattern.unwrap().is_match(body.as_bytes());
        prop_assert_eq!(has_all(body.as_bytes(), &pieces), expected);
    }
}
