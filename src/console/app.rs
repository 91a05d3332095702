//! The state that all pages share: sessions, the program, its history, plans that wait, and the connections to ask by.
//!
//! * In: the configuration, the program, an address.
//! * Out: a [`Console`].
//! * Never: more than two questions and an audit put to the source at once; a connection to the state that nobody uses.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit, watch};

use crate::admin::Hosts;
use crate::config::{self, Config, ConsoleToken};
use crate::console::config_file::{self, FileText};
use crate::console::demo_child::DemoChild;
use crate::console::history::History;
use crate::console::last_check::Checked;
use crate::console::lock::held;
use crate::console::people::{Person, Sessions, Token, unhex};
use crate::console::plans::Plans;
use crate::console::problem::Refusal;
use crate::console::program::Program;
use crate::console::setup_draft::SetupDraft;
use crate::console::tls_port::TlsPort;
use crate::model::Fault;
use crate::operations;
use crate::shutdown::Stop;
use crate::state::Store;

/// The console puts at most this many questions to the source at once.
const QUESTIONS: usize = 2;
/// At most this many pages follow the program at once.
const STREAMS: usize = 16;
/// The console closes its connection to the state when no page has used it for this long.
const STORE_IDLE: Duration = Duration::from_secs(60);

/// The connection to the state, which pages share.
#[derive(Default)]
enum StateConnection {
    #[default]
    Closed,
    /// Open, and used last at that time.
    Open(Arc<Store>, Instant),
    /// Not to be opened at that time, and why.
    Failed(Fault, Instant),
}

/// The state that all pages share.
pub(crate) struct Console {
    /// The path of the configuration's file.
    pub(crate) path: PathBuf,
    pub(crate) config: Mutex<Arc<Config>>,
    pub(crate) program: Program,
    pub(crate) hosts: Hosts,
    pub(crate) sessions: Mutex<Sessions>,
    pub(crate) history: Mutex<History>,
    store: tokio::sync::Mutex<StateConnection>,
    questions: Semaphore,
    /// Audits go one after the other, beside the questions: one may take an hour, and a repair must not wait for it.
    pub(crate) audit_turn: Semaphore,
    pub(crate) streams: Arc<Semaphore>,
    /// The findings of the last `check`; `None` before the first one.
    pub(crate) checks: Mutex<Option<Checked>>,
    /// Sections whose audit runs, by name. A text stands for an audit that failed, and says why.
    pub(crate) audits: Mutex<BTreeMap<String, Option<String>>>,
    /// Plans that wait for a person to confirm them.
    pub(crate) plans: Mutex<Plans>,
    /// The SHA-256 of the file that the running instance was started with.
    pub(crate) loaded: Mutex<String>,
    /// Sends the next configuration to the instance of this process. Nobody receives it where this process runs none.
    wanted: watch::Sender<Option<Arc<Config>>>,
    /// The demonstration that the wizard started.
    pub(crate) demo: Mutex<DemoChild>,
    /// The configuration that the wizard makes; `None` once a file exists.
    setup: Mutex<Option<SetupDraft>>,
    pub(crate) stop: Stop,
    pub(crate) listen: String,
    /// The certificate of the port; `None` where the port speaks plain HTTP.
    pub(crate) tls: Option<TlsPort>,
}

impl Console {
    /// Makes the console of this configuration for a port that is bound to `listen`.
    ///
    /// # Errors
    /// A token's digest, or the certificate, cannot be read.
    pub(crate) fn new(
        config: &Arc<Config>,
        path: PathBuf,
        program: Program,
        listen: &str,
        stop: Stop,
    ) -> Result<Console, Fault> {
        let tokens = tokens(config)?;
        let tls = match (&config.console.cert, &config.console.key) {
            (Some(cert), Some(key)) => Some(TlsPort::new(cert, key)?),
            (Some(_), None) | (None, Some(_)) | (None, None) => None,
        };
        Ok(Console {
            loaded: Mutex::new(config_file::read(&path).map(|file| file.sha256).unwrap_or_default()),
            wanted: watch::Sender::default(),
            path,
            config: Mutex::new(Arc::clone(config)),
            program,
            hosts: Hosts::new(listen, &config.console.hosts),
            sessions: Mutex::new(Sessions::new(tokens)),
            history: Mutex::default(),
            store: tokio::sync::Mutex::default(),
            questions: Semaphore::new(QUESTIONS),
            audit_turn: Semaphore::new(1),
            streams: Arc::new(Semaphore::new(STREAMS)),
            checks: Mutex::default(),
            audits: Mutex::default(),
            plans: Mutex::default(),
            demo: Mutex::default(),
            setup: Mutex::default(),
            stop,
            listen: listen.to_owned(),
            tls,
        })
    }

    /// Makes a link that opens one session without a token, for the person who reads this process's output. Others can
    /// reach a port beyond this machine, and its output goes to where logs are collected: it has none.
    pub(crate) fn link(&self) -> Option<String> {
        if !config::is_loopback(&self.listen) {
            return None;
        }
        let key = held(&self.sessions).link(Instant::now())?;
        let scheme = if self.is_secure() { "https" } else { "http" };
        Some(format!("{scheme}://{}/login#k={key}", self.listen))
    }

    /// Returns a receiver of each configuration that the instance is to restart with.
    pub(crate) fn wanted(&self) -> watch::Receiver<Option<Arc<Config>>> {
        self.wanted.subscribe()
    }

    /// Restarts the instance with this configuration, whose file has the digest `sha256`.
    ///
    /// # Errors
    /// A token's digest cannot be read. The running instance then goes on as it was.
    pub(crate) fn apply(&self, next: Config, sha256: String) -> Result<(), Fault> {
        held(&self.sessions).renew(tokens(&next)?);
        let next = Arc::new(next);
        *held(&self.config) = Arc::clone(&next);
        *held(&self.loaded) = sha256;
        self.wanted.send_replace(Some(next));
        Ok(())
    }

    /// Records the configuration that the instance took over while it ran. `whole` says that the file holds nothing
    /// else.
    pub(crate) fn taken_over(&self, next: &Arc<Config>, whole: bool) {
        *held(&self.config) = Arc::clone(next);
        if let Some(file) = config_file::read(&self.path).ok().filter(|_| whole) {
            *held(&self.loaded) = file.sha256;
        }
    }

    /// Returns whether an instance can start in this process: the command waits for one, and none runs.
    pub(crate) fn can_run(&self) -> bool {
        !self.program.is_here() && self.wanted.receiver_count() > 0
    }

    /// Returns whether no configuration exists yet, and the wizard makes one.
    pub(crate) fn in_set_up(&self) -> bool {
        held(&self.setup).is_some()
    }

    /// Returns what the wizard holds so far.
    ///
    /// # Errors
    /// A configuration exists already.
    pub(crate) fn set_up(&self) -> Result<SetupDraft, Refusal> {
        let done = || Refusal::not_found("there is a configuration already: the wizard is for the first one");
        held(&self.setup).clone().ok_or_else(done)
    }

    /// Replaces what the wizard holds.
    pub(crate) fn set_up_as(&self, draft: SetupDraft) {
        *held(&self.setup) = Some(draft);
    }

    /// Ends the wizard, once its file is written.
    pub(crate) fn set_up_is_done(&self) {
        *held(&self.setup) = None;
    }

    /// Ends the demonstration that the wizard started.
    pub(crate) fn end(&self) {
        held(&self.demo).end();
    }

    /// Returns the file's text; while the wizard makes a configuration, the text that it would write.
    ///
    /// # Errors
    /// The file cannot be read, or is no UTF-8.
    pub(crate) fn file(&self) -> Result<FileText, Fault> {
        match &*held(&self.setup) {
            Some(draft) => Ok(FileText::of(draft.text())),
            None => config_file::read(&self.path),
        }
    }

    /// Returns whether the port speaks TLS.
    pub(crate) fn is_secure(&self) -> bool {
        self.tls.is_some()
    }

    /// Returns the configuration that the instance runs with.
    pub(crate) fn config(&self) -> Arc<Config> {
        Arc::clone(&held(&self.config))
    }

    /// Returns the name of the session's cookie for a request to `host`, by an `encrypted` connection or not. It holds the
    /// port by which the browser comes: cookies ignore ports, and two instances may share a host (`kubectl port-forward`
    /// gives each a port of its own).
    pub(crate) fn cookie(host: &str, encrypted: bool) -> String {
        let port = host.rsplit_once(':').map_or("", |(_, port)| port);
        let port = if port.bytes().all(|byte| byte.is_ascii_digit()) { port } else { "" };
        if encrypted { format!("__Host-pg2planhat_{port}") } else { format!("pg2planhat_{port}") }
    }

    /// Returns a connection to the state. Pages share it until none has used it for a minute.
    pub(crate) async fn store(&self) -> Result<Arc<Store>, Fault> {
        let asked = Instant::now();
        let mut kept = self.store.lock().await;
        match &mut *kept {
            StateConnection::Open(store, used) if !store.is_closed() => {
                *used = Instant::now();
                return Ok(Arc::clone(store));
            }
            // It failed while this page waited: pages do not fail one after the other.
            StateConnection::Failed(fault, at) if *at > asked => return Err(fault.clone()),
            StateConnection::Closed | StateConnection::Open(..) | StateConnection::Failed(..) => {}
        }
        match operations::store(&self.config()).await {
            Ok(store) => {
                let store = Arc::new(store);
                *kept = StateConnection::Open(Arc::clone(&store), Instant::now());
                Ok(store)
            }
            Err(fault) => {
                *kept = StateConnection::Failed(fault.clone(), Instant::now());
                Err(fault)
            }
        }
    }

    /// Closes the connection to the state when no page has used it for a minute.
    pub(crate) fn rest(&self) {
        // Whoever holds it may wait for a server that does not answer; the port takes connections meanwhile.
        let Ok(mut kept) = self.store.try_lock() else { return };
        if matches!(&*kept, StateConnection::Open(_, used) if used.elapsed() > STORE_IDLE) {
            *kept = StateConnection::Closed;
        }
    }

    /// Returns a permit to put one question to the source. Two exist; further requests are refused.
    pub(crate) fn question(&self) -> Result<SemaphorePermit<'_>, Refusal> {
        self.questions.try_acquire().map_err(|_| Refusal::busy("two questions are put to the database already"))
    }
}

/// Returns the tokens of the configuration, each with its person.
fn tokens(config: &Config) -> Result<Vec<Token>, Fault> {
    let token = |token: &ConsoleToken| {
        let text = token.sha256.reveal()?;
        let sha256 = unhex(&text).ok_or_else(|| {
            let what = format!("the console's token {}: its sha256 has not 64 hexadecimal digits", token.name);
            Fault::usage(what, "`pg2planhat console token` prints it")
        })?;
        Ok::<_, Fault>(Token { person: Person { name: token.name.clone(), role: token.role }, sha256 })
    };
    config.console.tokens.iter().map(token).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_238_a_port_beyond_this_machine_has_no_link() {
        let text = "planhat: { tenant: t }\nconsole: { proxy: { from: [10.0.0.0/8], user: X-User } }\nsections:\n  - { name: a, \
            kind: user_activity, table: t, key: id, fields: { email: e } }\n";
        let config = Arc::new(config::parse(text, "test").unwrap_or_else(|error| panic!("{error:?}")));
        let link = |listen: &str| {
            let (_stopper, stop) = crate::shutdown::pair();
            let console = Console::new(&config, "none".into(), Program::elsewhere(), listen, stop);
            console.unwrap_or_else(|fault| panic!("{fault:?}")).link()
        };
        assert!(link("127.0.0.1:9188").is_some_and(|link| link.starts_with("http://127.0.0.1:9188/login#k=")));
        assert!(link("[::1]:9188").is_some());
        assert_eq!((link("0.0.0.0:9188"), link("10.1.2.3:9188"), link("[::]:9188")), (None, None, None));
    }
}
