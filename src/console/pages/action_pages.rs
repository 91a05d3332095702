//! The actions that a section obeys at once (pause, resume, probe), and an audit, which runs beside the answer.

use std::sync::Arc;

use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::Response;

use crate::console::ask::Ask;
use crate::console::finish::beside;
use crate::console::lock::held;
use crate::console::problem::Refusal;
use crate::model::{Fault, SectionName};
use crate::operations;
use crate::operations::AuditFrom;
use crate::operations::audit::PATIENCE;

/// Returns a section's name, if the configuration has it.
fn known(ask: &Ask, name: &str) -> Result<SectionName, Refusal> {
    let config = ask.console.config();
    let found = config.sections.iter().find(|section| section.name.as_str() == name);
    found.map(|section| section.name.clone()).ok_or_else(|| Refusal::not_found(format!("there is no section {name}")))
}

/// `POST /sections/NAME/pause`
pub(crate) async fn pause(ask: Ask, Path(name): Path<String>) -> Result<Response, Refusal> {
    switch(&ask, &name, true).await
}

/// `POST /sections/NAME/resume`
pub(crate) async fn resume(ask: Ask, Path(name): Path<String>) -> Result<Response, Refusal> {
    switch(&ask, &name, false).await
}

async fn switch(ask: &Ask, name: &str, paused: bool) -> Result<Response, Refusal> {
    let name = known(ask, name)?;
    let store = ask.console.store().await?;
    if !operations::pause(&store, &name, paused).await? {
        let what = format!("section {name} was never attached: there is nothing to pause");
        return Err(Fault::usage(what, "start the program, or set `sync: off` in its configuration").into());
    }
    let document = serde_json::json!({ "section": name.as_str(), "paused": paused });
    ask.leads_to(&format!("/sections/{name}"), document)
}

/// `POST /sections/NAME/probe`
pub(crate) async fn probe(ask: Ask, Path(name): Path<String>) -> Result<Response, Refusal> {
    let name = known(&ask, &name)?;
    let store = ask.console.store().await?;
    let event = operations::probe(&store, &name).await?;
    let document = serde_json::json!({ "section": name.as_str(), "event": event });
    ask.leads_to(&format!("/sections/{name}"), document)
}

/// `POST /sections/NAME/audit`: starts an audit. The section's page shows its result.
pub(crate) async fn audit(ask: Ask, Path(name): Path<String>) -> Result<Response, Refusal> {
    let (console, config) = (Arc::clone(&ask.console), ask.console.config());
    let section = config.sections.iter().find(|section| section.name.as_str() == name).cloned();
    let section = section.ok_or_else(|| Refusal::not_found(format!("there is no section {name}")))?;
    if held(&console.audits).insert(name.clone(), None) == Some(None) {
        return Err(Refusal::new(StatusCode::CONFLICT, format!("{name} is audited already"), "wait for its end"));
    }
    let of = name.clone();
    beside(async move {
        let _turn = console.audit_turn.acquire().await;
        let done = async {
            let store = console.store().await?;
            operations::audit(&config, &store, &section, &AuditFrom::default(), (&mut |_, _| (), &mut { PATIENCE }))
                .await
        };
        match done.await {
            Ok(_) => held(&console.audits).remove(&of),
            Err(fault) => held(&console.audits).insert(of, Some(format!("{}: {}", fault.what, fault.remedy))),
        };
    });
    ask.leads_to(&format!("/sections/{name}"), serde_json::json!({ "asked": "audit" }))
}
