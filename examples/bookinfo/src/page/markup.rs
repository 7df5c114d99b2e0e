//! HTML that cannot hold unescaped text by accident.

/// A piece of HTML: made of our own markup, of escaped text, and of nothing else.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Markup(String);

impl Markup {
    /// Markup of ours. That it must be `'static` keeps what came with a request out.
    pub(crate) fn raw(markup: &'static str) -> Self {
        Self(markup.trim_end().to_owned())
    }

    /// Any text, escaped for the content of elements and for quoted attributes.
    pub(crate) fn text(text: &str) -> Self {
        let mut out = String::with_capacity(text.len());
        for c in text.chars() {
            match c {
                '&' => out.push_str("&amp;"),
                '<' => out.push_str("&lt;"),
                '>' => out.push_str("&gt;"),
                '"' => out.push_str("&quot;"),
                '\'' => out.push_str("&#39;"),
                c => out.push(c),
            }
        }
        Self(out)
    }

    /// A template with each `{{name}}` replaced.
    ///
    /// What is put in is not looked at again, so a user called `{{reviews}}` stays just that.
    ///
    /// # Panics
    ///
    /// Where the template names what is not in `values`; both are ours, so a test finds it.
    pub(crate) fn fill(template: &'static str, values: &[(&str, Self)]) -> Self {
        let mut pieces = template.trim_end().split("{{");
        let mut out = pieces.next().unwrap_or_default().to_owned();
        for piece in pieces {
            let (name, rest) = piece
                .split_once("}}")
                .expect("what a template opens, it closes");
            let (_, value) = values
                .iter()
                .find(|(known, _)| *known == name)
                .expect("a template names only what it is filled with");
            out.push_str(&value.0);
            out.push_str(rest);
        }
        Self(out)
    }

    pub(crate) fn into_string(self) -> String {
        self.0
    }
}

impl FromIterator<Self> for Markup {
    fn from_iter<I: IntoIterator<Item = Self>>(pieces: I) -> Self {
        Self(pieces.into_iter().map(|piece| piece.0).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_leave_an_element_or_an_attribute() {
        let text = Markup::text(r#"<b a="1" c='2'>&amp;"#);
        let expected = "&lt;b a=&quot;1&quot; c=&#39;2&#39;&gt;&amp;amp;";
        assert_eq!(text.into_string(), expected);
    }

    #[test]
    fn what_fills_a_template_is_not_a_template() {
        let values = [("a", Markup::text("{{b}}")), ("b", Markup::text("2"))];
        let filled = Markup::fill("{{a}}-{{b}}-{{a}}", &values);
        assert_eq!(filled.into_string(), "{{b}}-2-{{b}}");
    }
}
