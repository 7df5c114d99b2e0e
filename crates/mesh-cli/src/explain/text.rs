//! An explanation for people.

use super::section::Section;
use crate::style::{Style, Tone};
use serde_json::Value;

/// The answer of a proxy, or of the same code on files, as text.
pub(crate) fn render(answer: &Value, style: Style) -> String {
    let sections = [
        request(answer),
        listener(answer),
        virtual_host(answer),
        routes(answer),
        destinations(answer),
        answered(answer),
        sent(answer),
        policies("policies", &answer["policies"]),
    ];
    let mut out = String::new();
    for section in sections {
        section.render(&mut out, style);
    }
    let tcp = &answer["tcp"]["clusters"];
    for cluster in items(&answer["clusters"]).chain(items(tcp)) {
        out.push('\n');
        for section in [
            head_of(cluster),
            policies("", &cluster["policies"]),
            priorities(cluster),
            endpoints(cluster),
        ] {
            section.render(&mut out, style);
        }
    }
    out
}

fn request(answer: &Value) -> Section {
    let request = &answer["request"];
    let mut section = Section::new("request");
    let authority = text(&request["authority"]);
    section.line(&format!(
        "{} {authority}{}",
        text(&request["method"]),
        text(&request["path"])
    ));
    for header in items(&request["headers"]) {
        section.line(&format!("{}: {}", text(&header[0]), text(&header[1])));
    }
    section
}

fn listener(answer: &Value) -> Section {
    let mut section = Section::new("listener");
    let listener = &answer["listener"];
    if listener.is_null() {
        section.row(["none takes it"], Tone::Bad);
        for other in items(&answer["other_listeners"]) {
            section.row([text(&other["name"]), text(&other["why_not"])], Tone::Plain);
        }
        return section;
    }
    let mut about = format!(
        "{} at {}",
        text(&listener["name"]),
        text(&listener["address"])
    );
    if let Some(direction) = listener["direction"].as_str() {
        about += &format!(", {direction}");
    }
    section.line(&with_place(about, listener));
    if let Some(why) = listener["why"].as_str() {
        section.line(&format!("because {why}"));
    }
    let tcp = &answer["tcp"];
    if !tcp.is_null() {
        section.line("passes bytes on as they are; nobody looks at requests");
        for one in items(&tcp["destinations"]) {
            section.row([text(&one["weight"]), text(&one["cluster"])], Tone::Plain);
        }
    }
    section
}

fn virtual_host(answer: &Value) -> Section {
    let mut section = Section::new("virtual host");
    let host = &answer["virtual_host"];
    if !host.is_null() {
        let domain = text(&host["domain"]);
        let about = format!("{} by its domain {domain}", text(&host["name"]));
        section.line(&with_place(about, host));
        if host["requires_tls"] == true {
            section.line("requires TLS");
        }
    } else if answer.get("rules").is_some() {
        let authority = text(&answer["request"]["authority"]);
        section.row([format!("none serves {authority}")], Tone::Bad);
    }
    section
}

fn routes(answer: &Value) -> Section {
    let mut section = Section::new("routes");
    for rule in items(&answer["rules"]) {
        let matches = rule["matches"] == true;
        let verdict = match matches {
            true => {
                let wants = items(&rule["wants"]).map(text).collect::<Vec<_>>();
                format!("matches {}", wants.join(", "))
            }
            false => {
                let unmet = &rule["unmet"];
                let had = match unmet["had"].as_str() {
                    Some(had) => format!("had {had:?}"),
                    None => "had none".to_owned(),
                };
                format!("wants {}, {had}", text(&unmet["wanted"]))
            }
        };
        let (mark, tone) = match matches {
            true => ("->", Tone::Good),
            false => ("", Tone::Plain),
        };
        let cells = [
            mark.to_owned(),
            text(&rule["index"]),
            text(&rule["name"]),
            verdict,
            brief_place(&rule["from"]),
        ];
        section.row(cells, tone);
    }
    match answer["rules_left_out"].as_u64() {
        Some(left_out) if left_out > 0 => {
            section.line(&format!("and {left_out} more that do not match"));
        }
        _ => {}
    }
    let listed = items(&answer["rules"]).count() > 0;
    let matched = items(&answer["rules"]).any(|rule| rule["matches"] == true);
    if listed && !matched {
        section.row(["none matches"], Tone::Bad);
    }
    section
}

fn destinations(answer: &Value) -> Section {
    let mut section = Section::new("destination");
    let all: Vec<&Value> = items(&answer["destinations"]).collect();
    for one in &all {
        let share = match one["percent"].as_f64() {
            Some(percent) => format!("{percent}%"),
            None => String::new(),
        };
        let mut what = match one["host"].as_str() {
            Some(host) => format!("{host}:{}", text(&one["port"])),
            None => text(&one["cluster"]),
        };
        if let Some(subset) = one["subset"].as_str() {
            what += &format!(" subset {subset}");
        }
        let exists = one["exists"] == true;
        if !exists {
            what += " (no such cluster)";
        }
        let tone = match (exists, one["taken"] == true) {
            (false, _) => Tone::Bad,
            (true, true) => Tone::Good,
            (true, false) => Tone::Plain,
        };
        let place = place(&one["from"]);
        match share.is_empty() {
            true => section.row([what, place], tone),
            false => section.row([share, what, place], tone),
        }
    }
    match answer["destinations_left_out"].as_u64() {
        Some(left_out) if left_out > 0 => section.line(&format!("and {left_out} more")),
        _ => {}
    }
    section
}

fn answered(answer: &Value) -> Section {
    let mut section = Section::new("answer");
    let made = &answer["answer"];
    if made.is_null() {
        return section;
    }
    let mut line = format!("{} from the proxy itself", text(&made["status"]));
    if let Some(why) = made["why"].as_str() {
        line += &format!(": {why}");
    }
    if let Some(flags) = made["flags"].as_str().filter(|flags| *flags != "-") {
        line += &format!(" ({flags})");
    }
    section.row([line], Tone::Doubtful);
    if let Some(location) = made["location"].as_str() {
        section.line(&format!("location: {location}"));
    }
    section
}

fn sent(answer: &Value) -> Section {
    let mut section = Section::new("goes out as");
    let sent = &answer["sent"];
    if sent.is_null() {
        return section;
    }
    section.line(&format!(
        "{} {}{}",
        text(&sent["method"]),
        text(&sent["authority"]),
        text(&sent["path"])
    ));
    for header in items(&sent["headers_set"]) {
        section.line(&format!("{}: {}", text(&header[0]), text(&header[1])));
    }
    let removed: Vec<String> = items(&sent["headers_removed"]).map(text).collect();
    if !removed.is_empty() {
        section.line(&format!("without {}", removed.join(", ")));
    }
    if let Some(hash) = sent["hash"].as_str() {
        section.line(&format!("hash {hash}"));
    }
    if let Some(endpoint) = answer["served"]["endpoint"].as_str() {
        section.line(&format!("went to {endpoint}"));
    }
    section
}

fn policies(label: &'static str, all: &Value) -> Section {
    let mut section = Section::new(label);
    for one in items(all) {
        let from = match one["default"] == true {
            true => "default".to_owned(),
            false => place(&one["from"]),
        };
        section.row(
            [text(&one["policy"]), text(&one["value"]), from],
            Tone::Plain,
        );
    }
    section
}

fn head_of(cluster: &Value) -> Section {
    let mut section = Section::new("cluster");
    section.line(&with_place(text(&cluster["name"]), cluster));
    section
}

fn priorities(cluster: &Value) -> Section {
    let mut section = Section::new("priorities");
    let all: Vec<&Value> = items(&cluster["priorities"]).collect();
    let is_plain = |one: &&Value| one["healthy_percent"] == 100 && one["panic"] == false;
    if all.len() == 1 && all.iter().all(is_plain) {
        return section;
    }
    for one in all {
        let mut line = format!(
            "{} gets {}%",
            text(&one["priority"]),
            text(&one["healthy_percent"])
        );
        match one["degraded_percent"].as_u64() {
            Some(0) | None => {}
            Some(degraded) => line += &format!(", and {degraded}% for degraded hosts"),
        }
        if one["panic"] == true {
            line += ", in panic: too few of its hosts are usable, so all are used";
        }
        section.line(&line);
    }
    section
}

fn endpoints(cluster: &Value) -> Section {
    let mut section = Section::new("endpoints");
    for one in items(&cluster["endpoints"]) {
        let (mark, tone) = match one["eligible"] == true {
            true => ("->", Tone::Good),
            false => ("", Tone::Plain),
        };
        let labels = one["labels"].as_object().into_iter().flatten();
        let labels: Vec<String> = labels
            .map(|(key, of)| format!("{key}={}", text(of)))
            .collect();
        section.row(
            [
                mark.to_owned(),
                text(&one["address"]),
                text(&one["workload"]),
                text(&one["why"]),
                text(&one["locality"]),
                labels.join(","),
            ],
            tone,
        );
    }
    match cluster["endpoints_left_out"].as_u64() {
        Some(left_out) if left_out > 0 => section.line(&format!("and {left_out} more")),
        _ => {}
    }
    if cluster["eligible"] == 0 {
        section.row(
            ["none is eligible: 503 no_healthy_upstream (UH)"],
            Tone::Bad,
        );
    }
    section
}

fn with_place(about: String, of: &Value) -> String {
    match place(&of["from"]) {
        place if place.is_empty() => about,
        place => format!("{about}  {place}"),
    }
}

/// `VirtualService reviews.default (mesh/reviews.yaml:14:7)`.
fn place(from: &Value) -> String {
    match from["object"].as_str() {
        None => String::new(),
        Some(object) => format!("{object} ({})", brief_place(from)),
    }
}

/// `mesh/reviews.yaml:14:7`.
fn brief_place(from: &Value) -> String {
    match from["file"].as_str() {
        None => String::new(),
        Some(file) => format!("{file}:{}:{}", text(&from["line"]), text(&from["column"])),
    }
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// A scalar as it is read; nothing for what is not there.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
