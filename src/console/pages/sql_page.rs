//! The SQL page: one statement on the source, by the login that may only read.

use std::time::{Duration, Instant};

use askama::Template;
use axum::response::{IntoResponse, Response};

use crate::console::ask::Ask;
use crate::console::draw;
use crate::console::form_fields::FormFields;
use crate::console::page_view::Shell;
use crate::console::problem::Refusal;
use crate::console::words::{plural, time};
use crate::model::Fault;
use crate::operations;
use crate::postgres::console::{self, Bounds, QueryAnswer};

const BOUNDS: Bounds = Bounds { timeout: Duration::from_secs(30), rows: 1000, bytes: 1 << 20 };
/// The record of a statement holds this many characters.
const RECORDED: usize = 2000;

#[derive(Template)]
#[template(path = "sql.html")]
struct SqlPage {
    shell: Shell,
    login: String,
    bounds: &'static str,
    sql: String,
    took: String,
    trouble: String,
    remedy: String,
    asked: bool,
    count: String,
    truncated: bool,
    columns: Vec<String>,
    rows: Vec<Vec<Option<String>>>,
}

/// Returns the login; as an error why SQL is not available.
fn login(ask: &Ask) -> Result<String, Refusal> {
    let config = ask.console.config();
    let reader = config.source.reader.as_ref().ok_or_else(|| {
        let remedy = "give source.reader a login that may only read; `pg2planhat setup --print-sql` makes it";
        Fault::usage("SQL is off: source.reader is not set", remedy)
    })?;
    if !ask.sees_rows() {
        return Err(Refusal::new(
            axum::http::StatusCode::FORBIDDEN,
            "what stands in rows is shown to nobody here (console.rows)",
            "ask by psql",
        ));
    }
    Ok(reader.user.clone())
}

/// `GET /sql`
pub(crate) async fn page(ask: Ask) -> Result<Response, Refusal> {
    show(&ask, "", None, "").await
}

/// `POST /sql`
pub(crate) async fn query(ask: Ask, form: FormFields) -> Result<Response, Refusal> {
    let sql = form.one("sql");
    login(&ask)?;
    let _leave = ask.console.question()?;
    let (config, began) = (ask.console.config(), Instant::now());
    let answer = console::ask(&config.source, sql, &BOUNDS).await;
    let outcome = match &answer {
        Ok(answer) => plural(answer.rows.len() as u64, "row", "rows"),
        Err(_) => "refused".to_owned(),
    };
    let store = ask.console.store().await?;
    let shown: String = sql.chars().take(RECORDED).collect();
    operations::record(&store, "query", "", serde_json::json!({ "sql": shown }), &outcome).await?;
    if ask.json {
        let QueryAnswer { columns, rows, truncated } = answer?;
        let document = serde_json::json!({ "columns": columns, "rows": rows, "truncated": truncated });
        return Ok(axum::Json(document).into_response());
    }
    let took = format!("took {}", time(began.elapsed().as_secs_f64()));
    show(&ask, sql, Some(answer), &took).await
}

async fn show(
    ask: &Ask,
    sql: &str,
    answer: Option<Result<QueryAnswer, Fault>>,
    took: &str,
) -> Result<Response, Refusal> {
    let login = login(ask)?;
    let view = ask.console.view().await?;
    let (answer, fault) = match answer {
        Some(Ok(answer)) => (Some(answer), None),
        Some(Err(fault)) => (None, Some(fault)),
        None => (None, None),
    };
    let asked = answer.is_some();
    let QueryAnswer { columns, rows, truncated } = answer.unwrap_or_default();
    let page = SqlPage {
        shell: Shell::new(ask, &view, "SQL", "sql", "", "page=none"),
        login,
        bounds: "At most 1,000 rows, 1 MiB and 30 s.",
        sql: sql.to_owned(),
        took: took.to_owned(),
        trouble: fault.as_ref().map(|fault| fault.what.clone()).unwrap_or_default(),
        remedy: fault.map(|fault| fault.remedy).unwrap_or_default(),
        asked,
        count: plural(rows.len() as u64, "row", "rows"),
        truncated,
        columns,
        rows,
    };
    Ok(page.shell.around(&page))
}
