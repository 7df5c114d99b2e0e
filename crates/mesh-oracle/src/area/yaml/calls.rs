//! Requests that meet a rule, or just do not.

use super::{Place, policies, texts};
use crate::area::{other_case, paths};
use crate::config::Role;
use crate::dice::Dice;
use crate::request::Call;
use serde_json::Value;

/// What backends do, attempt by attempt. Of `hang` most have no limit.
const SCRIPTS: &[&str] = &[
    "503",
    "503,200",
    "404",
    "404,200",
    "close",
    "close,200",
    "reset,200",
    "204",
    "304",
    "chunked",
    "cookies",
    "cors",
    "500,502,200",
    "grpc-0",
    "grpc-14",
    "grpc-14,grpc-0",
    "trailers",
    "head-then-close",
    "301",
];

pub(super) fn call(dice: &mut Dice, place: Place, documents: &[Value]) -> Call {
    let rules: Vec<&Value> = documents
        .iter()
        .filter(|it| it["kind"] == "VirtualService")
        .flat_map(|it| it["spec"]["http"].as_array().into_iter().flatten())
        .filter(|rule| rule["delegate"].is_null())
        .collect();
    let rule = dice.pick(&rules);
    let blocks = rule["match"].as_array().map_or(&[][..], Vec::as_slice);
    let mut call = Call::get("/elsewhere");
    call.host = Some(host(dice, place));
    if blocks.is_empty() {
        call.target = paths::path(dice, 2);
        if place.role == Role::Sidecar && !call.target.bytes().all(is_plain) {
            call.target = "/plain".into();
        }
    } else {
        let block = dice.pick(blocks);
        let near_miss = dice.chance(22);
        meet(dice, place, &block, near_miss, &mut call);
    }
    query(dice, &mut call);
    dress(dice, rule, &mut call);
    call.http2 = dice.chance(20) && call.head().is_some();
    call
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-')
}

fn host(dice: &mut Dice, place: Place) -> String {
    let hosts: &[&str] = match place.role {
        Role::Sidecar | Role::Inbound => &[
            "a",
            "a",
            "a.{id}.svc.cluster.local",
            "a.{id}.svc",
            "a.{id}",
            "alias.{id}.test",
            "one.wild.{id}.test",
            "out.{id}.test",
            "k",
            "A",
        ],
        Role::Gateway => &[
            "shop.{id}.test",
            "shop.{id}.test",
            "shop.{id}.test",
            "one.wild.{id}.test",
            "SHOP.{id}.test",
            "out.{id}.test",
            "nobody.{id}.test",
        ],
    };
    let host = dice.pick(hosts);
    // The service without rules has three endpoints and chooses by the hash of what all bring.
    if dice.chance(12) {
        return format!("{host}:80");
    }
    host.to_owned()
}

/// Makes it meet a block of conditions, or misses in one of them.
fn meet(dice: &mut Dice, place: Place, block: &Value, near_miss: bool, call: &mut Call) {
    let missed = if near_miss { dice.below(5) } else { 9 };
    let uri = &block["uri"];
    let said = uri["exact"].as_str().or_else(|| uri["prefix"].as_str());
    let mut path = match said {
        Some(path) if !uri["exact"].is_null() => path.to_owned(),
        Some(path) => format!("{path}{}", dice.pick(&["", "/", "/x", "x", "/x/y", "//x"])),
        None => {
            let pattern = uri["regex"].as_str().unwrap_or_default();
            let start = pattern.split("/[").next().unwrap_or_default();
            format!("{start}{}", dice.pick(&["/x", "/x/", "/abc/1", "/x"]))
        }
    };
    if block["ignoreUriCase"] == true && dice.chance(70) {
        path = other_case(dice, &path);
    }
    if missed == 0 {
        path = match dice.below(3) {
            0 => other_case(dice, &path),
            1 => format!("{path}1"),
            _ => path.replacen("/r", "/", 1),
        };
    }
    if place.role == Role::Gateway && dice.chance(12) {
        path += dice.pick(&["/../x", "/%2e", "%2Fx", "//", "/./y", "/;a=b"]);
    }
    call.target = path;
    let method = &block["method"];
    if method["prefix"] == "P" || (method["regex"].is_string() && dice.chance(50)) {
        call.method = "POST".into();
    }
    if missed == 1 {
        call.method = dice.pick(&["PUT", "DELETE", "POST"]).into();
    }
    let authority = &block["authority"];
    if let Some(host) = authority["exact"].as_str()
        && missed != 2
    {
        call.host = Some(host.to_owned());
    }
    for (name, wanted) in block["headers"].as_object().into_iter().flatten() {
        let miss = missed == 3;
        if !(miss && dice.chance(30)) {
            let value = texts::text(dice, wanted, miss);
            call.headers.push((name.clone(), value.into()));
        }
    }
    for (name, wanted) in block["withoutHeaders"].as_object().into_iter().flatten() {
        if missed == 4 || dice.chance(30) {
            let value = texts::text(dice, wanted, missed != 4);
            call.headers.push((name.clone(), value.into()));
        }
    }
    let mut separator = '?';
    for (name, wanted) in block["queryParams"].as_object().into_iter().flatten() {
        if missed == 4 && dice.chance(50) {
            continue;
        }
        let value = texts::text(dice, wanted, missed == 4);
        call.target += &format!("{separator}{name}={value}");
        separator = '&';
    }
}

/// Every request brings what it may be balanced by: whichever rule it meets, chance decides nothing.
fn query(dice: &mut Dice, call: &mut Call) {
    let separator = if call.target.contains('?') { '&' } else { '?' };
    call.target += &format!("{separator}k={}", dice.below(50));
}

fn dress(dice: &mut Dice, rule: &Value, call: &mut Call) {
    let number = dice.below(1000);
    let mut dressed = std::mem::replace(call, Call::get("/"));
    dressed = dressed.with("x-k", &format!("k{number}"));
    dressed = dressed.with("cookie", &format!("other=1; k=c{number}"));
    if dice.chance(20) {
        let value = policies::value(dice);
        dressed = dressed.with("x-multi", value).with("X-Multi", "again");
    }
    if dice.chance(15) {
        dressed = dressed.with("x-gone", "1");
    }
    if !rule["corsPolicy"].is_null() && dice.chance(60) {
        dressed = dressed.with("origin", policies::origin(dice));
        if dice.chance(50) {
            dressed.method = "OPTIONS".into();
            if dice.chance(85) {
                dressed = dressed.with("access-control-request-method", "GET");
            }
        }
    }
    if dressed.method == "POST" || dressed.method == "PUT" {
        dressed.body = dice.pick(&["", "a body", "more of a body"]).into();
    }
    if dressed.method == "GET" && dice.chance(6) {
        dressed.method = "HEAD".into();
    }
    // Only where a limit ends it.
    let limited = rule["timeout"] == policies::LIMIT;
    if limited && dice.chance(6) {
        dressed = dressed.script(dice.pick(&["hang", "503,hang"]));
    } else if !rule["retries"]["perTryTimeout"].is_null() && dice.chance(4) {
        dressed = dressed.script(dice.pick(&["hang", "hang,200", "503,hang,200"]));
    } else if dice.chance(35) {
        dressed = dressed.script(dice.pick(SCRIPTS));
    }
    *call = dressed;
}
