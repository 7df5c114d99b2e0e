//! Envoy's configuration as text: YAML and JSON as messages, and the bootstrap.

use crate::message::MESSAGES;
use crate::{Input, Target};
use mesh_xds::bootstrap::{Bootstrap, FileContents, Format};
use mesh_xds::json::Codec;
use mesh_xds::{TypeUrl, schema};

/// `json`: the first line is `yaml` or `json` and a message's name.
pub(crate) const JSON: Target = Target {
    name: "json",
    run: json,
    input: Input::Text,
};

/// `bootstrap`
pub(crate) const BOOTSTRAP: Target = Target {
    name: "bootstrap",
    run: bootstrap,
    input: Input::Text,
};

fn json(data: &[u8]) {
    let Some((head, text)) = std::str::from_utf8(data)
        .ok()
        .and_then(|all| all.split_once('\n'))
    else {
        return;
    };
    let codec = Codec::new();
    let (format, name) = head.split_once(' ').unwrap_or((head, ""));
    let message = MESSAGES.into_iter().find(|known| *known == name);
    let message = message.unwrap_or(MESSAGES[0]);
    let read = match format {
        "json" => codec.from_json(message, text),
        _ => codec.from_yaml(message, text),
    };
    let Ok(bytes) = read else {
        return;
    };
    let printed = codec.to_json(message, &bytes);
    let printed = printed.unwrap_or_else(|error| panic!("accepted, but not printed: {error}"));
    let again = codec.from_json(message, &printed);
    let again = again.unwrap_or_else(|error| panic!("refuses its own JSON: {error}\n{printed}"));
    let twice = codec.to_json(message, &again);
    assert_eq!(Ok(&printed), twice.as_ref(), "JSON is not what it was");
    let pretty = codec
        .to_json_pretty(message, &bytes)
        .expect("it was printed in one line");
    assert_eq!(
        codec.from_yaml(message, &pretty),
        Ok(again),
        "as YAML it is something else"
    );
}

fn bootstrap(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        let _ = Bootstrap::from_bytes(data);
        return;
    };
    for format in [Format::Yaml, Format::Json] {
        let Ok(mut one) = Bootstrap::from_texts([(format, text)]) else {
            continue;
        };
        let same = Bootstrap::from_bytes(&one.encoded);
        let mut same = same.unwrap_or_else(|error| panic!("refuses its own bytes: {error}"));
        // Maps in them have no order.
        for bootstrap in [&mut one, &mut same] {
            let bytes = bootstrap.encoded.to_vec();
            bootstrap.encoded = schema::canonical(MESSAGES[0], bytes).into();
        }
        assert_eq!(one, same, "its own bytes are another bootstrap");
        let _ = one.resources();
    }
    let _ = FileContents::read(TypeUrl::Cluster, Format::Yaml, text);
}
