//! Objects as JSON, as they were written.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use crate::spec::Object;
use crate::world::World;
use crate::yaml::{Node, Scalar, Sort, Value, compose};

/// A document and where it stands.
type Places = HashMap<(u32, u32), Node>;

// === impl World ===

impl World {
    /// Every object, by kind, namespace and name, with its field `spec` as JSON: as it was written,
    /// without the defaults that are filled in for it. Kinds that have no such field have none
    /// here.
    ///
    /// ```
    /// use mesh_istio::{Files, World};
    ///
    /// let mut world = World::default();
    /// let yaml = "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {ports: [{port: 80}]}}";
    /// world.update(&Files::from_text("a.yaml", yaml));
    /// let specs: Vec<_> = world.specs().collect();
    /// assert_eq!(specs[0].1.as_deref(), Some(r#"{"ports":[{"port":80}]}"#));
    /// ```
    pub fn specs(&self) -> impl Iterator<Item = (&Arc<Object>, Option<String>)> {
        // Each text is read once, however many objects it has.
        let mut texts: HashMap<*const u8, Places> = HashMap::new();
        self.objects().map(move |object| {
            let meta = &object.meta;
            let places = texts
                .entry(meta.source.as_ptr())
                .or_insert_with(|| places(&meta.source));
            let document = places.get(&(meta.at.line, meta.at.column));
            let spec = document.and_then(|document| document.get("spec"));
            let json = spec.map(|spec| {
                let mut json = String::new();
                write(spec, &mut json);
                json
            });
            (object, json)
        })
    }
}

/// The documents of a text, and what stands in lists of them.
fn places(text: &str) -> Places {
    // It was read before.
    let documents = compose(text).unwrap_or_default();
    let mut places = HashMap::new();
    let mut open = documents;
    while let Some(mut node) = open.pop() {
        let lists = node.get("kind").and_then(Node::text) == Some("List");
        if let (true, Value::Map(entries)) = (lists, &mut node.value) {
            let items = entries.iter_mut().find(|(key, _)| &*key.text == "items");
            if let Some((_, items)) = items
                && let Value::List(items) = &mut items.value
            {
                open.append(items);
            }
        }
        places.insert((node.at.line, node.at.column), node);
    }
    places
}

/// Writes a node. How deep nodes are nested was bounded when they were read.
fn write(node: &Node, json: &mut String) {
    match &node.value {
        Value::Scalar(scalar) => scalar_to(scalar, json),
        Value::List(items) => {
            json.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    json.push(',');
                }
                write(item, json);
            }
            json.push(']');
        }
        Value::Map(entries) => {
            json.push('{');
            for (index, (key, value)) in entries.iter().enumerate() {
                if index > 0 {
                    json.push(',');
                }
                quote(&key.text, json);
                json.push(':');
                write(value, json);
            }
            json.push('}');
        }
    }
}

fn scalar_to(scalar: &Scalar, json: &mut String) {
    let text = &*scalar.text;
    // A `String` takes whatever is written to it.
    let _ = match scalar.sort() {
        Sort::Null => json.write_str("null"),
        Sort::Bool(value) => write!(json, "{value}"),
        Sort::Number => match (text.parse::<i64>(), text.parse::<f64>()) {
            (Ok(number), _) => write!(json, "{number}"),
            (_, Ok(number)) if number.is_finite() => write!(json, "{number}"),
            // Infinity, and other bases: JSON has none of these.
            _ => {
                quote(text, json);
                Ok(())
            }
        },
        Sort::Text => {
            quote(text, json);
            Ok(())
        }
    };
}

fn quote(text: &str, json: &mut String) {
    json.push('"');
    for letter in text.chars() {
        match letter {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\n' => json.push_str("\\n"),
            control if control < ' ' => {
                let _ = write!(json, "\\u{:04x}", u32::from(control));
            }
            other => json.push(other),
        }
    }
    json.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Files;
    use proptest::prelude::*;

    fn json(text: &str) -> String {
        let mut json = String::new();
        write(&compose(text).unwrap()[0], &mut json);
        json
    }

    #[test]
    fn scalars_are_what_their_reader_takes_them_for() {
        let all = "[1, -2, 1.5, '1', true, 'true', null, ~, text, \"a\\\"b\\\\\\n\\t\", .inf, 1e3]";
        let expected =
            r#"[1,-2,1.5,"1",true,"true",null,null,"text","a\"b\\\n\u0009",".inf",1000]"#;
        assert_eq!(json(all), expected);
    }

    #[test]
    fn objects_of_one_file_and_of_lists_have_their_own() {
        let service = |name: &str, port: u16| {
            format!(
                "{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}, spec: {{ports: \
                 [{{port: {port}}}]}}}}"
            )
        };
        let (one, two, three) = (service("a", 1), service("b", 2), service("c", 3));
        let text = format!(
            "{one}\n---\napiVersion: v1\nkind: List\nitems:\n- {two}\n- {three}\n---\n{{apiVersion: \
             v1, kind: Namespace, metadata: {{name: n}}}}\n"
        );
        let mut world = World::default();
        world.update(&Files::from_text("a.yaml", &text));
        let specs: Vec<_> = world.specs().map(|(_, spec)| spec).collect();
        let port = |port| Some(format!(r#"{{"ports":[{{"port":{port}}}]}}"#));
        assert_eq!(specs, [port(1), port(2), port(3), None]);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_the_same(text in any::<String>()) {
            let mut quoted = String::new();
            quote(&text, &mut quoted);
            // JSON is YAML, but for characters that YAML has no place for.
            if let Ok(documents) = compose(&quoted) {
                prop_assert_eq!(documents[0].text(), Some(text.as_str()));
            }
        }
    }
}
