//! What changes by itself: each piece is drawn here, for the page and for the live stream.
//!
//! * In: a [`PageView`](crate::console::page_view::PageView), the history, rows of the state.
//! * Out: pieces of markup, by name.
//! * Never: a form, a selection or a dialog inside: a piece replaces itself.

pub(crate) mod asked_fragment;
pub(crate) mod overview_fragments;
pub(crate) mod pieces;
pub(crate) mod section_fragments;
