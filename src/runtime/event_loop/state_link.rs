//! The event loop's side of the state: lists of writes out, their durability in.
//!
//! * In: what the writer of the state tells.
//! * Out: numbered lists; what the loop must do about an answer.
//! * Never: a list out of order.

use tokio::sync::mpsc;

use crate::model::Fault;
use crate::runtime::event_loop::loop_exit::LoopExit;
use crate::runtime::start_error::NeedsPerson;
use crate::runtime::state_writer::Written;
use crate::state::{Op, StateError};
use crate::telemetry::status_document::Reason;

/// The link to the one writer of the state.
pub(crate) struct StateLink {
    writes: mpsc::UnboundedSender<(u64, Vec<Op>)>,
    acks: mpsc::UnboundedReceiver<Written>,
    /// Why nothing can be written just now.
    fault: Option<Fault>,
}

/// The effect of a writer's answer.
pub(crate) enum StateEffect {
    /// Every list up to this one is durable.
    Durable(u64),
    /// Nothing but what the status shows.
    Noted,
    /// The loop must end.
    Exit(LoopExit),
}

impl StateLink {
    pub(crate) fn new(
        writes: mpsc::UnboundedSender<(u64, Vec<Op>)>,
        acks: mpsc::UnboundedReceiver<Written>,
    ) -> StateLink {
        StateLink { writes, acks, fault: None }
    }

    /// Hands a list to the writer.
    pub(crate) fn write(&self, number: u64, ops: Vec<Op>) -> Result<(), LoopExit> {
        let gone = |_| LoopExit::Failed(Fault::bug("the writer of the state has gone"));
        self.writes.send((number, ops)).map_err(gone)
    }

    pub(crate) async fn answer(&mut self) -> Option<Written> {
        self.acks.recv().await
    }

    /// Why nothing can be written just now.
    pub(crate) fn fault(&self) -> Option<&Fault> {
        self.fault.as_ref()
    }

    /// Takes an answer of the writer.
    pub(crate) fn on_written(&mut self, written: Written) -> StateEffect {
        match written {
            Written::Durable(number) => return StateEffect::Durable(number),
            Written::Waiting(fault) => {
                if self.fault.is_none() {
                    tracing::warn!(what = fault.what, remedy = fault.remedy, "the state cannot be written just now");
                }
                self.fault = Some(fault);
            }
            Written::Recovered => {
                tracing::info!("the state can be written again");
                self.fault = None;
            }
            Written::Fenced => {
                let fault = StateError::Fenced.fault();
                tracing::error!(what = fault.what, "fenced: stopping at once");
                return StateEffect::Exit(LoopExit::Fenced(fault));
            }
            Written::Unwritable(fault) => {
                return StateEffect::Exit(LoopExit::NeedsPerson(NeedsPerson {
                    reason: Reason::StateUnwritable,
                    fault,
                }));
            }
        }
        StateEffect::Noted
    }
}
