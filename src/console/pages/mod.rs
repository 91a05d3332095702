//! The pages: each reads the request, asks `operations` or the state, and draws. No page decides who may ask.

pub(crate) mod action_pages;
pub(crate) mod checks_page;
pub(crate) mod config_page;
pub(crate) mod login_page;
pub(crate) mod logs_page;
pub(crate) mod mapping_page;
pub(crate) mod overview_page;
pub(crate) mod plan_page;
pub(crate) mod quarantine_page;
pub(crate) mod repair_page;
pub(crate) mod resync_page;
pub(crate) mod section_page;
pub(crate) mod setup_acts;
pub(crate) mod setup_page;
pub(crate) mod sql_page;
pub(crate) mod trace_page;
