//! Bold and colour, only on a terminal that wants them.

use std::io::IsTerminal;

/// Whether text may be decorated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style(bool);

/// What a piece of text says about the thing that it names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Tone {
    #[default]
    Plain,
    Good,
    Doubtful,
    Bad,
}

impl Style {
    /// As standard output and `NO_COLOR` (<https://no-color.org>) have it.
    pub(crate) fn of_stdout() -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self(std::io::stdout().is_terminal() && !refused)
    }

    /// Never decorates.
    pub(crate) fn plain() -> Self {
        Self(false)
    }

    /// Always decorates.
    #[cfg(test)]
    pub(crate) fn coloured() -> Self {
        Self(true)
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }

    pub(crate) fn good(self, text: &str) -> String {
        self.tone(Tone::Good, text)
    }

    pub(crate) fn bad(self, text: &str) -> String {
        self.tone(Tone::Bad, text)
    }

    pub(crate) fn tone(self, tone: Tone, text: &str) -> String {
        match tone {
            Tone::Plain => text.to_owned(),
            Tone::Good => self.wrap("32", text),
            Tone::Doubtful => self.wrap("33", text),
            Tone::Bad => self.wrap("31", text),
        }
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.0 {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}
