//! What all pages share: who is there, what runs, what was, and the ways to ask.
//!
//! * In: the configuration, the program, an address.
//! * Out: a [`Console`].
//! * Never: more than two questions to the source at once; a connection to the state that nobody uses.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit, watch};

use crate::admin::Hosts;
use crate::config::{Config, ConsoleToken};
use crate::console::config_file::{self, FileText};
use crate::console::demo_child::DemoChild;
use crate::console::drafts::Checked;
use crate::console::history::History;
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

/// Questions that are put to the source at once.
const QUESTIONS: usize = 2;
/// Streams at once.
const STREAMS: usize = 16;
/// The state's connection is let go when nobody has asked for so long.
const STORE_IDLE: Duration = Duration::from_secs(60);

/// Everything that the pages share.
pub(crate) struct Console {
    /// The configuration's file.
    pub(crate) path: PathBuf,
    pub(crate) config: Mutex<Arc<Config>>,
    pub(crate) program: Program,
    pub(crate) hosts: Hosts,
    pub(crate) sessions: Mutex<Sessions>,
    pub(crate) history: Mutex<History>,
    pub(crate) store: tokio::sync::Mutex<Option<(Arc<Store>, Instant)>>,
    pub(crate) questions: Semaphore,
    pub(crate) streams: Arc<Semaphore>,
    /// What `check` said last.
    pub(crate) checks: Mutex<Option<Checked>>,
    /// Sections that are audited now; with a text, whose audit has failed, and why.
    pub(crate) audits: Mutex<BTreeMap<String, Option<String>>>,
    /// What waits for a person's word.
    pub(crate) plans: Mutex<Plans>,
    /// The digest of the file that runs.
    pub(crate) loaded: Mutex<String>,
    /// Who begins anew with another configuration; nobody where nothing runs here.
    wanted: watch::Sender<Option<Arc<Config>>>,
    /// The demonstration that the wizard began.
    pub(crate) demo: Mutex<DemoChild>,
    /// The configuration that the wizard makes; none where there is one.
    setup: Mutex<Option<SetupDraft>>,
    pub(crate) stop: Stop,
    pub(crate) listen: String,
    /// TLS of the port; none: it is plain.
    pub(crate) tls: Option<TlsPort>,
}

impl Console {
    /// For this configuration, at the address `listen`.
    ///
    /// # Errors
    /// Where a token's digest, or the certificate, cannot be read.
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

    /// A link that opens the console once, for whoever sees this process's output.
    pub(crate) fn link(&self) -> Option<String> {
        let key = held(&self.sessions).link(Instant::now())?;
        let scheme = if self.is_secure() { "https" } else { "http" };
        Some(format!("{scheme}://{}/login#k={key}", self.listen))
    }

    /// Hears of each configuration that the instance is to begin anew with.
    pub(crate) fn wanted(&self) -> watch::Receiver<Option<Arc<Config>>> {
        self.wanted.subscribe()
    }

    /// The instance begins anew with this configuration, of the file with this digest.
    ///
    /// # Errors
    /// Where a token's digest cannot be read: then what runs goes on.
    pub(crate) fn apply(&self, next: Config, sha256: String) -> Result<(), Fault> {
        held(&self.sessions).renew(tokens(&next)?);
        let next = Arc::new(next);
        *held(&self.config) = Arc::clone(&next);
        *held(&self.loaded) = sha256;
        self.wanted.send_replace(Some(next));
        Ok(())
    }

    /// The instance goes on with this configuration; `whole`: it is all that the file says.
    pub(crate) fn taken_over(&self, next: &Arc<Config>, whole: bool) {
        *held(&self.config) = Arc::clone(next);
        if let Some(file) = config_file::read(&self.path).ok().filter(|_| whole) {
            *held(&self.loaded) = file.sha256;
        }
    }

    /// Whether an instance can begin in this process: somebody waits for the word, and none runs.
    pub(crate) fn can_run(&self) -> bool {
        !self.program.is_here() && self.wanted.receiver_count() > 0
    }

    /// Whether there is no configuration yet, and the wizard makes one.
    pub(crate) fn in_set_up(&self) -> bool {
        held(&self.setup).is_some()
    }

    /// What the wizard has so far.
    ///
    /// # Errors
    /// Where there is a configuration.
    pub(crate) fn set_up(&self) -> Result<SetupDraft, Refusal> {
        let done = || Refusal::not_found("there is a configuration already: the wizard is for the first one");
        held(&self.setup).clone().ok_or_else(done)
    }

    /// Keeps what the wizard has.
    pub(crate) fn set_up_as(&self, draft: SetupDraft) {
        *held(&self.setup) = Some(draft);
    }

    /// The file is written.
    pub(crate) fn set_up_is_done(&self) {
        *held(&self.setup) = None;
    }

    /// Ends what was begun beside it.
    pub(crate) fn end(&self) {
        held(&self.demo).end();
    }

    /// The file's text; while the wizard makes one, what it would be.
    ///
    /// # Errors
    /// Where it cannot be read, or is no text.
    pub(crate) fn file(&self) -> Result<FileText, Fault> {
        match &*held(&self.setup) {
            Some(draft) => Ok(FileText::of(draft.text())),
            None => config_file::read(&self.path),
        }
    }

    /// Whether the port speaks TLS.
    pub(crate) fn is_secure(&self) -> bool {
        self.tls.is_some()
    }

    /// The configuration that runs.
    pub(crate) fn config(&self) -> Arc<Config> {
        Arc::clone(&held(&self.config))
    }

    /// The name of the session's cookie. Cookies ignore ports, and two instances may share a host.
    pub(crate) fn cookie(&self) -> String {
        let port = self.listen.rsplit(':').next().unwrap_or_default();
        if self.is_secure() { format!("__Host-pg2planhat_{port}") } else { format!("pg2planhat_{port}") }
    }

    /// The state, by a connection that is kept while somebody asks.
    pub(crate) async fn store(&self) -> Result<Arc<Store>, Fault> {
        let mut kept = self.store.lock().await;
        if let Some((store, used)) = kept.as_mut().filter(|(store, _)| !store.is_closed()) {
            *used = Instant::now();
            return Ok(Arc::clone(store));
        }
        let store = Arc::new(operations::store(&self.config()).await?);
        *kept = Some((Arc::clone(&store), Instant::now()));
        Ok(store)
    }

    /// Lets the state's connection go where nobody has asked for a while.
    pub(crate) async fn rest(&self) {
        let mut kept = self.store.lock().await;
        if kept.as_ref().is_some_and(|(_, used)| used.elapsed() > STORE_IDLE) {
            *kept = None;
        }
    }

    /// Leave to put a question to the source: two at a time in all.
    pub(crate) fn question(&self) -> Result<SemaphorePermit<'_>, Refusal> {
        self.questions.try_acquire().map_err(|_| Refusal::busy("two questions are put to the database already"))
    }
}

/// Who may use the console.
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
