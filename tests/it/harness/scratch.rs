//! Where throwaway things live, and how they end.
//!
//! * Every directory of a test process lies in one *run directory*, and every process that a test starts has its working
//!   directory in there. So "end all that lives under this directory, then remove it" is the whole clean-up, and no
//!   process id is ever trusted after its process has gone.
//! * [`Scratch`] does that when dropped, also while a panic unwinds. For the rest (abort, SIGKILL, `exit`) there is a
//!   watchdog: a shell that reads from a pipe held by this process, and does the same when the pipe closes.
//! * As root, servers run as `postgres` (or `nobody`), because PostgreSQL refuses to run as root; so the base directory
//!   is one that every user can reach, not the project's target directory.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::bound::bound_this_test;

/// Reads until the test process is gone, then ends what lives under `$1` and removes it. Nothing to do in the usual
/// case: every [`Scratch`] was dropped and the directory is empty.
const WATCHDOG: &str = r#"
trap '' INT TERM HUP
read -r line
rmdir "$1" 2>/dev/null && exit
inhabitants() {
    for process in /proc/[0-9]*; do
        place=$(readlink "$process/cwd" 2>/dev/null) || continue
        case $place in "$1" | "$1"/*) echo "${process#/proc/}" ;; esac
    done
}
left=$(inhabitants "$1")
if [ -n "$left" ]; then
    kill -QUIT $left
    kill -CONT $left
    tries=0
    while left=$(inhabitants "$1"); [ -n "$left" ] && [ $tries -lt 50 ]; do
        sleep 0.1
        tries=$((tries + 1))
    done
    [ -z "$left" ] || kill -KILL $left
fi
rm -rf "$1"
"#;

/// A directory of its own, gone with everything that runs in it when dropped.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// A new empty directory, owned by the user that servers run as.
    pub fn new(label: &str) -> Scratch {
        bound_this_test();
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let path = run_directory().join(format!("{label}{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir(&path).unwrap();
        server_user().own(&path);
        Scratch { path }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        end_inhabitants(&self.path);
        if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("could not remove {}: {error}", self.path.display());
        }
    }
}

/// The ids of the processes whose working directory is `directory` or below it.
pub fn inhabitants(directory: &Path) -> Vec<Pid> {
    let processes = fs::read_dir("/proc").expect("the harness needs /proc");
    let numbers = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    numbers
        .filter(|id| fs::read_link(format!("/proc/{id}/cwd")).is_ok_and(|place| place.starts_with(directory)))
        .filter_map(Pid::from_raw)
        .collect()
}

/// Sends one signal to each; a process that has gone meanwhile is not an error.
pub fn signal_all(processes: &[Pid], signal: Signal) {
    for process in processes {
        match kill_process(*process, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => eprintln!("signal {signal:?} to {process:?}: {error}"),
        }
    }
}

/// Ends whatever runs under `directory`: SIGQUIT first, which PostgreSQL takes as an immediate shutdown that still
/// frees its shared memory, then SIGKILL.
pub fn end_inhabitants(directory: &Path) {
    let left = inhabitants(directory);
    signal_all(&left, Signal::QUIT);
    signal_all(&left, Signal::CONT);
    let begun = Instant::now();
    while !inhabitants(directory).is_empty() {
        if begun.elapsed() > Duration::from_secs(5) {
            signal_all(&inhabitants(directory), Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The directory that all test processes share: binaries, templates, port locks, run directories.
pub fn base() -> &'static Path {
    static BASE: OnceLock<PathBuf> = OnceLock::new();
    BASE.get_or_init(|| {
        let mine = rustix::process::geteuid().as_raw();
        let base = reachable_temp_dir().join(format!("pg2planhat-{mine}"));
        make_dir(&base);
        let owner = fs::symlink_metadata(&base).unwrap();
        assert!(owner.is_dir() && owner.uid() == mine, "{} is not ours: remove it", base.display());
        base
    })
}

/// Makes a directory that everyone may look into; one that is there already is fine.
pub fn make_dir(path: &Path) {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(path).unwrap();
}

/// Takes the lock file `path` for as long as the returned file lives; other processes wait.
pub fn lock(path: &Path) -> fs::File {
    let file = fs::File::create(path).unwrap();
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
    file
}

/// The temporary directory, or `/tmp` where other users cannot get into it, or where a socket's path would not fit.
fn reachable_temp_dir() -> PathBuf {
    let wanted = fs::canonicalize(std::env::temp_dir()).unwrap();
    let open = |path: &Path| fs::metadata(path).is_ok_and(|found| found.mode() & 0o001 != 0);
    if wanted.as_os_str().len() < 50 && wanted.ancestors().all(open) { wanted } else { PathBuf::from("/tmp") }
}

/// This process's run directory, with its watchdog.
pub fn run_directory() -> &'static Path {
    static RUN: OnceLock<(PathBuf, Child)> = OnceLock::new();
    let (path, _watchdog) = RUN.get_or_init(|| {
        let path = base().join("run").join(format!("{}-{:04x}", std::process::id(), fastrand::u16(..)));
        make_dir(&path);
        // A group of its own: what ends this process's group must not end its watchdog. No output: a test runner
        // would take it for a leak. Standard input stays open in `Child` until this process is gone.
        let watchdog = Command::new("sh")
            .args(["-c", WATCHDOG, "watchdog"])
            .arg(&path)
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        (path, watchdog)
    });
    path
}

/// Who servers run as: another user if we are root, ourselves otherwise.
#[derive(Clone, Copy, Debug)]
pub struct ServerUser(Option<(u32, u32)>);

impl ServerUser {
    /// Makes `command` run as this user, in a process group of its own, without the caller's environment.
    pub fn apply(self, command: &mut Command) {
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("LC_ALL", "C").env("TZ", "UTC");
        command.process_group(0);
        if let Some((uid, gid)) = self.0 {
            command.uid(uid).gid(gid);
        }
    }

    /// Gives `path` to this user.
    pub fn own(self, path: &Path) {
        if let Some((uid, gid)) = self.0 {
            std::os::unix::fs::chown(path, Some(uid), Some(gid)).unwrap();
        }
    }
}

/// Who servers run as here.
pub fn server_user() -> ServerUser {
    static USER: OnceLock<ServerUser> = OnceLock::new();
    *USER.get_or_init(|| {
        if !rustix::process::geteuid().is_root() {
            return ServerUser(None);
        }
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let ids = |wanted: &str| {
            let mut fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
            let entry = fields.find(|fields| fields.len() > 3 && fields[0] == wanted)?;
            Some((entry[2].parse().ok()?, entry[3].parse().ok()?))
        };
        let ids = ids("postgres").or_else(|| ids("nobody"));
        ServerUser(Some(ids.expect("root cannot run PostgreSQL, and there is no user postgres or nobody to run it as")))
    })
}

/// Runs a helper program to its end; what it said in the error.
pub fn run(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().map_err(|problem| format!("{name}: {problem}"))?;
    if output.status.success() {
        return Ok(());
    }
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Err(format!("{name}: {}\n{stdout}{stderr}", output.status))
}
