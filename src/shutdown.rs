//! The end of the process, asked for by a signal: the first one drains, the second one ends at once.

use tokio::sync::watch;

use crate::model::Fault;

/// The receiving side: it resolves when the process is to end. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Stop(watch::Receiver<bool>);

/// The asking side.
#[derive(Debug)]
pub(crate) struct Stopper(watch::Sender<bool>);

impl Stopper {
    /// Asks for the end.
    pub(crate) fn stop(&self) {
        self.0.send_replace(true);
    }
}

/// A pair that no signal is tied to.
pub(crate) fn pair() -> (Stopper, Stop) {
    let (sender, receiver) = watch::channel(false);
    (Stopper(sender), Stop(receiver))
}

impl Stop {
    /// Whether the end was asked for.
    pub(crate) fn is_asked(&self) -> bool {
        *self.0.borrow()
    }

    /// Resolves once the end was asked for; never where the asking side is gone.
    pub(crate) async fn asked(&self) {
        if self.0.clone().wait_for(|stop| *stop).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Follows SIGTERM, SIGINT and SIGQUIT. The second one ends the process at once: what is under way then is in doubt at the next
/// start, as after any crash.
pub(crate) fn on_signals() -> Result<Stop, Fault> {
    use tokio::signal::unix::{SignalKind, signal};
    let handler = |kind| signal(kind).map_err(|error| Fault::bug(format!("no signal handler: {error}")));
    let (mut term, mut int) = (handler(SignalKind::terminate())?, handler(SignalKind::interrupt())?);
    let mut quit = handler(SignalKind::quit())?;
    let (stopper, stop) = pair();
    tokio::spawn(async move {
        for asked in 1.. {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
                _ = quit.recv() => {}
            }
            if asked == 1 {
                tracing::info!("asked to end: draining; a second signal ends at once");
                stopper.stop();
            } else {
                tracing::warn!("asked twice: ending at once; what is under way will be in doubt");
                crate::telemetry::log_writer::flush();
                std::process::exit(i32::from(crate::model::Exit::Unavailable.code()));
            }
        }
    });
    Ok(stop)
}

/// Calls `reload` at each SIGHUP, which ends nothing any more; one after the other.
pub(crate) fn on_hangup<F>(reload: impl Fn() -> F + Send + 'static) -> Result<(), Fault>
where
    F: Future<Output = ()> + Send,
{
    use tokio::signal::unix::{SignalKind, signal};
    let mut hangup = signal(SignalKind::hangup()).map_err(|error| Fault::bug(format!("no signal handler: {error}")))?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            reload().await;
        }
    });
    Ok(())
}
