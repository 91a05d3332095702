//! `console`: makes tokens for the web page; and the opening of the page beside another command.

use std::path::Path;
use std::sync::Arc;

use tokio::net::TcpListener;

use crate::cli::context::Context;
use crate::config::Config;
use crate::console::people::{digest, hex, new_token};
use crate::console::{Console, Program, web_server};
use crate::model::{Exit, Fault};
use crate::shutdown::Stop;

/// Arguments of `console`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do
    #[command(subcommand)]
    pub action: ConsoleAction,
}

/// What to do about the console.
#[derive(Debug, clap::Subcommand)]
pub enum ConsoleAction {
    /// Make a token: prints it once, and the line for the configuration, which holds its digest alone
    Token {
        /// Who will use it, as it is recorded: a-z, A-Z, 0-9, _ and -
        #[arg(long, value_name = "NAME")]
        name: String,
        /// What it may do
        #[arg(long, value_enum, default_value = "viewer")]
        role: RoleName,
    },
}

/// What a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum RoleName {
    /// Look
    Viewer,
    /// Look, and do what the commands do
    Operator,
}

/// Runs the command.
pub(crate) async fn run(context: &Context, args: Args) -> Result<Exit, Fault> {
    let ConsoleAction::Token { name, role } = args.action;
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if name.is_empty() || name.len() > 63 || !name.bytes().all(fine) {
        return Err(Fault::usage(format!("{name:?} is no name"), "write 1 to 63 of a-z, A-Z, 0-9, _ and -"));
    }
    let token = new_token().ok_or_else(|| Fault::unavailable("the system gives no random bits", "try again"))?;
    let sha256 = hex(&digest(&token));
    let role = match role {
        RoleName::Viewer => "viewer",
        RoleName::Operator => "operator",
    };
    if context.json() {
        let document = serde_json::json!({ "name": name, "role": role, "token": token, "sha256": sha256 });
        context.output.document(&document)?;
        return Ok(Exit::Done);
    }
    context.output.line(format!("The token, shown this once; give it to {name}:\n\n  {token}\n"))?;
    context.output.line("Its line under `tokens` of `console` in the configuration:\n")?;
    context.output.line(format!("  - {{ name: {name}, role: {role}, sha256: {sha256} }}"))?;
    Ok(Exit::Done)
}

/// Opens the console at `listen`, if an address is given, and prints its link.
pub(crate) async fn open(
    config: &Arc<Config>,
    path: &Path,
    program: &Program,
    listen: Option<&str>,
    stop: &Stop,
) -> Result<Option<(Arc<Console>, TcpListener)>, Fault> {
    let Some(listen) = listen else { return Ok(None) };
    let listener = web_server::bind(listen).await?;
    let bound = listener.local_addr().map_or_else(|_| listen.to_owned(), |address| address.to_string());
    let console = Console::new(config, path.to_path_buf(), program.clone(), &bound, stop.clone())?;
    match config.console.tokens.is_empty().then(|| console.link()).flatten() {
        Some(link) => eprint(&format!("The console, for one use within ten minutes: {link}")),
        None => tracing::info!(listen = bound, "the console listens"),
    }
    Ok(Some((Arc::new(console), listener)))
}

/// Writes a line to stderr for the person at the terminal. It is no line of the log, which others collect.
pub(crate) fn eprint(text: &str) {
    use std::io::Write as _;
    writeln!(std::io::stderr(), "{text}").ok();
}
