//! Pieces of a page, by name.

use crate::console::draw::Markup;

/// Pieces by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fragments(pub(crate) Vec<(&'static str, Markup)>);

impl Fragments {
    /// The piece of this name.
    pub(crate) fn get(&self, name: &str) -> Markup {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, piece)| piece.clone()).unwrap_or_default()
    }

    pub(crate) fn add(&mut self, name: &'static str, piece: Markup) {
        self.0.push((name, piece));
    }
}
