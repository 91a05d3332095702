//! Fragments: the pieces of a page that change by themselves, each drawn in one place for the page and the live stream.
//!
//! * In: a [`PageView`](crate::console::page_view::PageView), the history, rows of the state.
//! * Out: pieces of markup, by name.
//! * Never: a form, a selection or a dialog inside a piece: the stream replaces it while somebody looks.

pub(crate) mod asked_fragment;
pub(crate) mod overview_fragments;
pub(crate) mod pieces;
pub(crate) mod section_fragments;
