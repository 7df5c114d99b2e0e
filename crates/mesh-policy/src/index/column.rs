//! Places of policies by what one text of a request has to be.

use std::collections::{BTreeSet, HashMap};

/// How a text has to be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Literal {
    /// This.
    Whole(Box<[u8]>),
    /// It begins with this.
    Start(Box<[u8]>),
    /// It ends with this.
    End(Box<[u8]>),
}

/// Places of policies, in order, by how a text has to be for them.
#[derive(Debug, Default)]
pub(super) struct Column {
    wholes: HashMap<Box<[u8]>, Vec<usize>>,
    starts: Pieces,
    ends: Pieces,
}

/// Places by a piece of the text, and the lengths that there are.
#[derive(Debug, Default)]
struct Pieces {
    places: HashMap<Box<[u8]>, Vec<usize>>,
    lengths: BTreeSet<usize>,
}

// === impl Column ===

impl Column {
    /// The places that are known for a text of this kind, to add to.
    pub(super) fn places(&mut self, literal: Literal) -> &mut Vec<usize> {
        match literal {
            Literal::Whole(text) => self.wholes.entry(text).or_default(),
            Literal::Start(text) => self.starts.places(text),
            Literal::End(text) => self.ends.places(text),
        }
    }

    /// Shows `look` the places for which a text is as it has to be.
    pub(super) fn look(&self, text: &[u8], look: &mut impl FnMut(&[usize])) {
        if let Some(places) = self.wholes.get(text) {
            look(places);
        }
        for length in self.starts.within(text) {
            self.starts.look(&text[..length], look);
        }
        for length in self.ends.within(text) {
            self.ends.look(&text[text.len() - length..], look);
        }
    }
}

// === impl Pieces ===

impl Pieces {
    fn places(&mut self, piece: Box<[u8]>) -> &mut Vec<usize> {
        self.lengths.insert(piece.len());
        self.places.entry(piece).or_default()
    }

    /// The lengths that a piece of this text can have.
    fn within(&self, text: &[u8]) -> impl Iterator<Item = usize> {
        self.lengths.range(..=text.len()).copied()
    }

    fn look(&self, piece: &[u8], look: &mut impl FnMut(&[usize])) {
        if let Some(places) = self.places.get(piece) {
            look(places);
        }
    }
}

// === impl Literal ===

impl Literal {
    pub(super) fn whole(text: &str) -> Self {
        Self::Whole(text.as_bytes().into())
    }

    pub(super) fn start(text: &str) -> Self {
        Self::Start(text.as_bytes().into())
    }

    pub(super) fn end(text: &str) -> Self {
        Self::End(text.as_bytes().into())
    }

    /// The same without regard to ASCII case.
    pub(super) fn folded(mut self) -> Self {
        let (Self::Whole(text) | Self::Start(text) | Self::End(text)) = &mut self;
        text.make_ascii_lowercase();
        self
    }

    /// Of how many bytes it is.
    pub(super) fn len(&self) -> usize {
        let (Self::Whole(text) | Self::Start(text) | Self::End(text)) = self;
        text.len()
    }

    /// Whether many texts are so.
    pub(super) fn is_broad(&self) -> bool {
        !matches!(self, Self::Whole(_)) && self.len() < 2
    }
}
