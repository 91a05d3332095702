//! The console: what the commands show and do, as a web page.
//!
//! * In: requests of people who have a token or a link; the running instance's status and metrics, or what the state and
//!   the server say where none runs here.
//! * Out: pages, fragments that follow the program by server-sent events, and the documents of the commands as JSON.
//! * Never: logic of its own: it asks `operations`, as the commands do. A secret in an answer; a change without a role that
//!   may make it; anything that cannot be undone without a counted number that somebody typed.
//!
//! A request passes the guard (whose table of routes says what each needs), then a page in `pages`, which asks, and draws by
//! a template. What changes by itself is a fragment, drawn in one place for the page and for the live stream.

pub(crate) mod app;
pub(crate) mod ask;
pub(crate) mod bare_pages;
pub(crate) mod charts;
mod compress;
pub(crate) mod config_file;
pub(crate) mod counters;
pub(crate) mod demo_child;
pub(crate) mod draft;
pub(crate) mod draft_state;
pub(crate) mod draft_words;
pub(crate) mod draw;
pub(crate) mod finding_lines;
pub(crate) mod finish;
pub(crate) mod form_fields;
pub(crate) mod fragments;
pub(crate) mod guard;
pub(crate) mod handlers;
pub(crate) mod history;
pub(crate) mod json_markup;
pub(crate) mod last_check;
pub(crate) mod line_diff;
pub(crate) mod live_stream;
pub(crate) mod lock;
pub(crate) mod log_documents;
pub(crate) mod page_view;
pub(crate) mod pages;
pub(crate) mod patient_stream;
pub(crate) mod people;
pub(crate) mod plans;
pub(crate) mod problem;
pub(crate) mod program;
pub(crate) mod quarantine_view;
pub(crate) mod repair_texts;
pub(crate) mod routes;
pub(crate) mod setup_draft;
pub(crate) mod sheets;
pub(crate) mod static_files;
pub(crate) mod tls_port;
pub(crate) mod verdict;
pub(crate) mod web_server;
pub(crate) mod who;
pub(crate) mod words;
pub(crate) mod yaml_markup;

pub(crate) use crate::console::app::Console;
pub(crate) use crate::console::program::Program;
