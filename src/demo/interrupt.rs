//! Ctrl-C, once and twice.
//!
//! * In: SIGINT and SIGTERM.
//! * Out: the first one, to whoever waits for it.
//! * Never: a second one that waits for anything. What is left then is the watchdog's.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::model::Fault;

/// As shells name an end by SIGINT.
const INTERRUPTED: i32 = 130;

/// Watches for them until dropped.
#[derive(Debug)]
pub(crate) struct Interrupts {
    asked: watch::Receiver<bool>,
    task: AbortHandle,
}

impl Interrupts {
    /// From now on signals come here.
    pub(crate) fn watch() -> Result<Interrupts, Fault> {
        let listen = |kind| signal(kind).map_err(|error| Fault::bug(format!("signals cannot be caught: {error}")));
        let (interrupt, terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
        let (tell, asked) = watch::channel(false);
        let task = tokio::spawn(count(interrupt, terminate, tell)).abort_handle();
        Ok(Interrupts { asked, task })
    }

    /// Ends with the first signal; at once where that was before.
    pub(crate) async fn first(&mut self) {
        if self.asked.wait_for(|asked| *asked).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn count(mut interrupt: Signal, mut terminate: Signal, tell: watch::Sender<bool>) {
    loop {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        if tell.send_replace(true) {
            std::process::exit(INTERRUPTED);
        }
    }
}
