//! The pieces of a page by their names.

use crate::console::draw::Markup;

/// The pieces of a page, each with its name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fragments(pub(crate) Vec<(&'static str, Markup)>);

impl Fragments {
    /// Returns the piece of this name; empty markup where it is missing.
    pub(crate) fn get(&self, name: &str) -> Markup {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, piece)| piece.clone()).unwrap_or_default()
    }

    pub(crate) fn add(&mut self, name: &'static str, piece: Markup) {
        self.0.push((name, piece));
    }
}
