//! Actions that finish although the person who asked for them has left the page.
//!
//! * In: the answering of one request.
//! * Out: its answer, where somebody still waits for it.
//! * Never: a repair or a re-sync that ends in the middle because a tab was closed.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::console::problem::Refusal;

/// Runs an action beside the answer, which does not wait for it.
pub(crate) fn beside(doing: impl Future<Output = ()> + Send + 'static) {
    drop(tokio::spawn(doing));
}

/// Runs an action in a task of its own and returns its answer. A lost connection does not end that task.
pub(crate) async fn finished(doing: impl Future<Output = Response> + Send + 'static) -> Response {
    match tokio::spawn(doing).await {
        Ok(answer) => answer,
        Err(error) => {
            tracing::error!(%error, "an action of the console has failed");
            let what = "this failed in the middle; the log says more";
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, what, "look at the Overview before you try again")
                .into_response()
        }
    }
}
