//! Rules of VirtualServices: every field of `http`.

use super::{Place, policies, texts};
use crate::config::Role;
use crate::dice::Dice;
use serde_json::{Value, json};

/// The rules, and those of delegates.
pub(super) fn http(dice: &mut Dice, place: Place) -> (Vec<Value>, Vec<Vec<Value>>) {
    let (mut http, mut delegates) = (Vec::new(), Vec::new());
    for n in 0..dice.between(4, 8) {
        if dice.chance(12) {
            let leaf = delegates.len();
            http.push(json!({
                "name": format!("r{n}"),
                "match": [{"name": "top", "uri": {"prefix": format!("/r{n}")}}],
                "delegate": {"name": format!("leaf{leaf}")},
            }));
            let rules = (0..dice.between(1, 3)).map(|d| {
                let mut rule = rule(dice, place, n);
                rule["name"] = json!(format!("d{d}"));
                rule
            });
            delegates.push(rules.collect());
            continue;
        }
        http.push(rule(dice, place, n));
    }
    if dice.chance(80) {
        let mut rest =
            json!({"name": "rest", "route": [{"destination": destination(dice, place)}]});
        policies::more(dice, &mut rest, place);
        http.push(rest);
    }
    (http, delegates)
}

fn rule(dice: &mut Dice, place: Place, number: usize) -> Value {
    let mut rule = json!({"name": format!("r{number}")});
    let action = dice.below(20);
    let prefix_only = matches!(action, 0 | 1);
    let blocks: Vec<Value> = (0..dice.pick(&[1, 1, 2, 3]))
        .map(|n| block(dice, place, number, n, prefix_only))
        .collect();
    rule["match"] = json!(blocks);
    match action {
        0..=4 => rule["redirect"] = redirect(dice, prefix_only),
        5..=7 => rule["directResponse"] = direct_response(dice),
        _ => {
            rule["route"] = route(dice, place);
            if dice.chance(45) {
                rule["rewrite"] = rewrite(dice);
            }
        }
    }
    policies::more(dice, &mut rule, place);
    rule
}

/// One block of conditions. It is met by paths below `/rN`, or by that one.
fn block(dice: &mut Dice, place: Place, number: usize, n: usize, prefix_only: bool) -> Value {
    let path = format!("/r{number}");
    let mut block = json!({"uri": match dice.below(6) {
        _ if prefix_only => json!({"prefix": dice.pick(&[path.clone(), format!("{path}/")])}),
        0 => json!({"exact": format!("{path}/x")}),
        1 | 2 => json!({"regex": format!("{path}/[a-z]+(/.*)?")}),
        _ => json!({"prefix": dice.pick(&[path.clone(), format!("{path}/")])}),
    }});
    if dice.chance(60) {
        block["name"] = json!(format!("m{n}"));
    }
    if dice.chance(25) {
        block["ignoreUriCase"] = json!(true);
    }
    if dice.chance(18) {
        block["method"] = dice.pick(&[
            json!({"exact": "GET"}),
            json!({"regex": "GET|POST"}),
            json!({"prefix": "P"}),
        ]);
    }
    if dice.chance(12) {
        block["scheme"] = dice.pick(&[
            json!({"exact": "http"}),
            json!({"prefix": "http"}),
            json!({"exact": "https"}),
        ]);
    }
    if dice.chance(15) {
        let hosts = match place.role {
            Role::Sidecar | Role::Inbound => ["a", "alias.{id}.test"],
            Role::Gateway => ["shop.{id}.test", "one.wild.{id}.test"],
        };
        block["authority"] = match dice.below(3) {
            0 => json!({"exact": dice.pick(&hosts)}),
            1 => json!({"prefix": dice.pick(&["a", "s", "one.", "x"])}),
            _ => json!({"regex": "[a-z]+(\\..*)?"}),
        };
    }
    for (field, chance, names) in [
        ("headers", 45, ["x-a", "x-b", "X-Upper"]),
        ("withoutHeaders", 18, ["x-c", "x-d", "x-a"]),
        ("queryParams", 25, ["q", "r", "Q"]),
    ] {
        if dice.chance(chance) {
            let kind = dice.pick(&["exact", "prefix", "regex", "present", "present"]);
            let mut wanted = json!({ dice.pick(&names): texts::of(dice, kind) });
            if dice.chance(20) {
                wanted[names[2]] = texts::any(dice);
            }
            block[field] = wanted;
        }
    }
    if dice.chance(20) {
        let other = dice.chance(25);
        let gateway = json!("@listener");
        block["port"] = match place.role {
            _ if other => json!(8082),
            Role::Gateway => gateway,
            Role::Sidecar | Role::Inbound => place.port(),
        };
    }
    if dice.chance(20) {
        block["sourceLabels"] = dice.pick(&[
            json!({"app": "client"}),
            json!({"app": "client"}),
            json!({"app": "x"}),
        ]);
    }
    if dice.chance(18) {
        block["sourceNamespace"] = json!(dice.pick(&["{id}", "{id}", "{id}", "elsewhere"]));
    }
    if dice.chance(18) {
        let own = match place.role {
            Role::Sidecar | Role::Inbound => "mesh",
            Role::Gateway => "gw",
        };
        block["gateways"] = json!([dice.pick(&[own, own, own, "other"])]);
    }
    if dice.chance(20) {
        block["statPrefix"] = json!(format!("s{number}{n}"));
    }
    block
}

/// Where there is one endpoint, or where it is chosen by a hash.
pub(super) fn destination(dice: &mut Dice, place: Place) -> Value {
    let mut to = match dice.below(22) {
        0 | 7 => json!({"host": "out.{id}.test"}),
        1 | 8 => json!({"host": "h"}),
        2 => json!({"host": "gone.{id}.test"}),
        3 => return json!({"host": "nowhere"}),
        4 | 5 | 9 => json!({"host": "k"}),
        6 => json!({"host": "a.{id}.svc.cluster.local", "subset": "v1"}),
        10 => json!({"host": "a", "subset": dice.pick(&["missing", "none"])}),
        _ => json!({"host": "a", "subset": dice.pick(&["v1", "v2", "v3"])}),
    };
    let host = to["host"].as_str().unwrap_or_default().to_owned();
    if dice.chance(30) || place.role == Role::Gateway {
        to["port"] = json!({"number": place.port()});
        if (host == "k" || host.starts_with('a')) && dice.chance(25) {
            to["port"] = json!({"number": 8081});
        }
    }
    to
}

fn route(dice: &mut Dice, place: Place) -> Value {
    let one = |dice: &mut Dice| {
        let mut part = json!({"destination": destination(dice, place)});
        if dice.chance(30) {
            part["headers"] = policies::headers(dice, place);
        }
        part
    };
    if dice.chance(70) {
        return json!([one(dice)]);
    }
    // All of the weight is with one of them, as chance is nothing that two proxies agree on.
    let number = dice.between(2, 3);
    let chosen = dice.below(number);
    let parts = (0..number).map(|n| {
        let mut part = one(dice);
        match (n == chosen, dice.chance(50)) {
            (true, _) => part["weight"] = json!(dice.pick(&[100, 1])),
            (false, true) => part["weight"] = json!(0),
            (false, false) => {}
        }
        part
    });
    json!(parts.collect::<Vec<_>>())
}

fn rewrite(dice: &mut Dice) -> Value {
    let mut to = json!({});
    match dice.below(5) {
        0 | 1 => to["uri"] = json!(dice.pick(&["/", "/new", "/new/"])),
        2 | 3 => {
            let (pattern, with) = dice.pick(&[
                ("^/r(\\d)/(.*)$", "/\\2/\\1"),
                ("[0-9]+", "n"),
                ("/r\\d/([^/]+)(/.*)?", "/\\0/\\1"),
                ("nothing", "x"),
            ]);
            to["uriRegexRewrite"] = json!({"match": pattern, "rewrite": with});
        }
        _ => {}
    }
    if to == json!({}) || dice.chance(35) {
        to["authority"] = json!(dice.pick(&["new.test", "new.test:81"]));
    }
    to
}

fn redirect(dice: &mut Dice, prefix_only: bool) -> Value {
    let mut to = json!({});
    if prefix_only && dice.chance(60) {
        to["prefixRewrite"] = json!(dice.pick(&["/new", "/new/", "/"]));
    } else if dice.chance(50) {
        to["uri"] = json!(dice.pick(&["/new", "/new?own=1"]));
    }
    if dice.chance(40) {
        to["scheme"] = json!(dice.pick(&["http", "https"]));
    }
    match dice.below(4) {
        0 | 1 => to["port"] = json!(dice.pick(&[80, 443, 8443])),
        2 => to["derivePort"] = json!(dice.pick(&["FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT"])),
        _ => {}
    }
    if to == json!({}) || dice.chance(50) {
        to["authority"] = json!("new.test");
    }
    if dice.chance(60) {
        to["redirectCode"] = json!(dice.pick(&[301, 302, 303, 307, 308]));
    }
    to
}

fn direct_response(dice: &mut Dice) -> Value {
    let mut answer = json!({"status": dice.pick(&[200, 202, 404, 418, 429, 503])});
    match dice.below(7) {
        0..=2 => answer["body"] = json!({"string": "said so\n"}),
        3..=5 => answer["body"] = json!({"bytes": "aGVsbG8="}),
        _ => {}
    }
    answer
}
