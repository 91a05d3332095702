//! The attachers under way, and what they tell.
//!
//! * In: the sender that each attacher gets.
//! * Out: [`AttachEvent`]s, in order for each section.
//! * Never: more of them than the loop takes in: the attachers wait.

use tokio::sync::mpsc;

use crate::runtime::attacher::AttachEvent;

/// The attachers under way.
pub(crate) struct Attachments {
    events: mpsc::Receiver<AttachEvent>,
    sender: mpsc::Sender<AttachEvent>,
}

impl Attachments {
    pub(crate) fn new() -> Attachments {
        let (sender, events) = mpsc::channel(16);
        Attachments { events, sender }
    }

    pub(crate) async fn event(&mut self) -> Option<AttachEvent> {
        self.events.recv().await
    }

    /// Where an attacher tells.
    pub(crate) fn sender(&self) -> mpsc::Sender<AttachEvent> {
        self.sender.clone()
    }
}
