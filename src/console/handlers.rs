//! The table of routes and the functions that answer them.

use std::sync::Arc;

use axum::extract::Path;
use axum::http::{HeaderMap, Method};
use axum::response::Response;
use axum::routing::{MethodFilter, MethodRouter};

use crate::console::app::Console;
use crate::console::live_stream;
use crate::console::pages::{
    action_pages, checks_page, config_page, login_page, logs_page, mapping_page, overview_page, plan_page,
    quarantine_page, repair_page, resync_page, section_page, setup_acts, setup_page, sql_page, trace_page,
};
use crate::console::problem::Refusal;
use crate::console::routes::ConsoleRoute;
use crate::console::static_files;

/// Returns the function that answers a route. A route that is missing here does not compile.
pub(crate) fn handler(route: ConsoleRoute) -> MethodRouter<Arc<Console>> {
    let method = if route.method() == Method::POST { MethodFilter::POST } else { MethodFilter::GET };
    // The table of routes says the method; this match adds the function.
    macro_rules! on {
        ($function:expr) => {
            axum::routing::on(method, $function)
        };
    }
    match route {
        ConsoleRoute::Asset => on!(asset),
        ConsoleRoute::LoginPage => on!(login_page::page),
        ConsoleRoute::Login => on!(login_page::login),
        ConsoleRoute::Logout => on!(login_page::logout),
        ConsoleRoute::Overview => on!(overview_page::page),
        ConsoleRoute::Section => on!(section_page::page),
        ConsoleRoute::Logs => on!(logs_page::page),
        ConsoleRoute::Checks => on!(checks_page::page),
        ConsoleRoute::LookAgain => on!(checks_page::look),
        ConsoleRoute::Pause => on!(action_pages::pause),
        ConsoleRoute::Resume => on!(action_pages::resume),
        ConsoleRoute::Probe => on!(action_pages::probe),
        ConsoleRoute::Audit => on!(action_pages::audit),
        ConsoleRoute::Resync => on!(resync_page::page),
        ConsoleRoute::PlanResync => on!(resync_page::plan),
        ConsoleRoute::Quarantine => on!(quarantine_page::page),
        ConsoleRoute::PlanRetry => on!(quarantine_page::retry),
        ConsoleRoute::PlanDrop => on!(quarantine_page::drop_rows),
        ConsoleRoute::Repair => on!(repair_page::page),
        ConsoleRoute::Mapping => on!(mapping_page::page),
        ConsoleRoute::NewSection => on!(mapping_page::new_page),
        ConsoleRoute::Draft => on!(mapping_page::draft),
        ConsoleRoute::Config => on!(config_page::page),
        ConsoleRoute::Review => on!(config_page::review),
        ConsoleRoute::Setup => on!(setup_page::page),
        ConsoleRoute::SetupConnect => on!(setup_acts::connect),
        ConsoleRoute::SetupTables => on!(setup_acts::tables),
        ConsoleRoute::SetupPrepare => on!(setup_acts::prepare),
        ConsoleRoute::SetupRun => on!(setup_acts::run),
        ConsoleRoute::SetupDemo => on!(setup_acts::demo),
        ConsoleRoute::RunHere => on!(setup_acts::run_here),
        ConsoleRoute::Trace => on!(trace_page::page),
        ConsoleRoute::Sql => on!(sql_page::page),
        ConsoleRoute::Query => on!(sql_page::query),
        ConsoleRoute::Plan => on!(plan_page::page),
        ConsoleRoute::CarryOut => on!(plan_page::carry_out),
        ConsoleRoute::Live => on!(live_stream::live),
    }
}

async fn asset(Path((build, name)): Path<(String, String)>, headers: HeaderMap) -> Result<Response, Refusal> {
    let file = (build == static_files::build()).then(|| static_files::file(&name, &headers)).flatten();
    file.ok_or_else(|| Refusal::not_found("there is no such file"))
}
