//! The demonstration's directory, and the watchdog that removes it with all processes.
//!
//! * In: the ids of the processes that the demonstration starts.
//! * Out: a directory; the user that a server may run as.
//! * Never: a process or a directory left behind, whatever ends us; a signal to a process that we did not start.
//!
//! There is one way in which things end: a shell reads from a pipe that this process holds, and when the pipe closes (by
//! the end of the demonstration, a panic, SIGKILL) it ends what was started and removes the directory.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use crate::model::{Exit, Fault};

/// Standard input: the directory, `keep` or `remove`, then a process id a line. An id counts only while the command line
/// of its process names the directory, for ids are used again. SIGQUIT is PostgreSQL's immediate shutdown.
const WATCHDOG: &str = r#"
trap '' INT TERM HUP
read -r place
read -r fate
started=
while read -r id; do started="$started $id"; done
left() {
    for id in $started; do
        if [ -d /proc/self ]; then
            line=$(tr '\0' ' ' <"/proc/$id/cmdline")
        else
            line=$(ps -o command= -p "$id")
        fi
        case $line in *"$place"*) printf '%s ' "$id" ;; esac
    done 2>/dev/null
}
now=$(left)
[ -z "$now" ] || kill -QUIT $now 2>/dev/null
tries=0
while now=$(left); [ -n "$now" ] && [ $tries -lt 50 ]; do
    sleep 0.1
    tries=$((tries + 1))
done
[ -z "$now" ] || kill -KILL $now 2>/dev/null
[ "$fate" = keep ] && exit
tries=0
until rm -rf "$place" 2>/dev/null || [ $tries -ge 20 ]; do
    sleep 0.1
    tries=$((tries + 1))
done
"#;

/// A socket's path has room for about a hundred bytes.
const LONGEST_BASE: usize = 50;

/// A directory of its own, gone with what runs in it when dropped.
#[derive(Debug)]
pub(crate) struct Workdir {
    path: PathBuf,
    user: ServerUser,
    pipe: Option<ChildStdin>,
    watchdog: Child,
}

impl Workdir {
    /// A new directory, with its watchdog. `keep`: the directory stays behind, the processes never.
    pub(crate) fn make(keep: bool) -> Result<Workdir, Fault> {
        let user = ServerUser::find()?;
        let base = base(user.is_other());
        let path = base.join(format!("pg2planhat-demo-{}-{:08x}", std::process::id(), fastrand::u32(..)));
        // Others must get through to what the server's user owns; what is secret in it has a mode of its own.
        let mode = if user.is_other() { 0o711 } else { 0o700 };
        fs::DirBuilder::new().mode(mode).create(&path).map_err(|error| unwritable(&path, &error))?;
        match guard(&path, keep) {
            Ok((watchdog, pipe)) => Ok(Workdir { path, user, pipe: Some(pipe), watchdog }),
            Err(error) => {
                fs::remove_dir(&path).map_err(|error| unwritable(&path, &error))?;
                Err(Fault::unavailable(format!("sh cannot be started: {error}"), "put a POSIX shell on the PATH"))
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Who the server runs as.
    pub(crate) fn user(&self) -> ServerUser {
        self.user
    }

    /// A directory below, owned by the server's user and closed to others.
    pub(crate) fn server_directory(&self, name: &str) -> Result<PathBuf, Fault> {
        let path = self.path.join(name);
        let made = fs::DirBuilder::new().mode(0o700).create(&path).and_then(|()| self.user.own(&path));
        made.map_err(|error| unwritable(&path, &error))?;
        Ok(path)
    }

    /// A file below that only its owner reads.
    pub(crate) fn secret_file(&self, name: &str, content: &str) -> Result<PathBuf, Fault> {
        use std::os::unix::fs::OpenOptionsExt;
        let path = self.path.join(name);
        let file = fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path);
        file.and_then(|mut file| file.write_all(content.as_bytes())).map_err(|error| unwritable(&path, &error))?;
        Ok(path)
    }

    /// A log file below, to give to a child.
    pub(crate) fn log_file(&self, name: &str) -> Result<fs::File, Fault> {
        let path = self.path.join(name);
        fs::OpenOptions::new().create(true).append(true).open(&path).map_err(|error| unwritable(&path, &error))
    }

    /// The last lines of a log file below.
    pub(crate) fn log_tail(&self, name: &str) -> String {
        let bytes = fs::read(self.path.join(name)).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// Tells the watchdog of a process whose command line names the directory. It ends with the directory.
    pub(crate) fn started(&mut self, process: u32) -> Result<(), Fault> {
        let Some(pipe) = &mut self.pipe else { return Ok(()) };
        writeln!(pipe, "{process}").map_err(|error| {
            Fault::unavailable(format!("the demonstration's watchdog has ended: {error}"), "start the demo again")
        })
    }
}

impl Drop for Workdir {
    fn drop(&mut self) {
        drop(self.pipe.take());
        // Where it was ended from outside there is nothing left to wait for.
        drop(self.watchdog.wait());
    }
}

fn guard(path: &Path, keep: bool) -> std::io::Result<(Child, ChildStdin)> {
    // The watchdog has a process group of its own, because Ctrl-C goes to this process's group.
    let mut watchdog = Command::new("sh")
        .args(["-c", WATCHDOG, "watchdog"])
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let mut pipe = watchdog.stdin.take().ok_or(std::io::ErrorKind::BrokenPipe)?;
    let fate = if keep { "keep" } else { "remove" };
    writeln!(pipe, "{}\n{fate}", path.display())?;
    Ok((watchdog, pipe))
}

/// The temporary directory, or `/tmp` where the server's user cannot get into it or a socket's path would not fit.
fn base(for_another_user: bool) -> PathBuf {
    let wanted = fs::canonicalize(std::env::temp_dir()).unwrap_or_else(|_| PathBuf::from("/tmp"));
    let open = |path: &Path| fs::metadata(path).is_ok_and(|found| found.mode() & 0o001 != 0);
    let reachable = !for_another_user || wanted.ancestors().all(open);
    if reachable && wanted.as_os_str().len() <= LONGEST_BASE { wanted } else { PathBuf::from("/tmp") }
}

fn unwritable(path: &Path, error: &std::io::Error) -> Fault {
    Fault::unavailable(format!("{} cannot be written: {error}", path.display()), "set TMPDIR to a directory with room")
}

/// Who the server runs as: PostgreSQL refuses root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ServerUser(Option<(u32, u32)>);

impl ServerUser {
    fn find() -> Result<ServerUser, Fault> {
        if !rustix::process::geteuid().is_root() {
            return Ok(ServerUser(None));
        }
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let ids = ids_of(&users, "postgres").or_else(|| ids_of(&users, "nobody"));
        ids.map(|ids| ServerUser(Some(ids))).ok_or_else(|| {
            Fault::new(
                Exit::Usage,
                "PostgreSQL refuses to run as root, and there is no user postgres or nobody to run it as",
                "run the demo as an ordinary user, or make one: useradd --system postgres",
            )
        })
    }

    fn is_other(self) -> bool {
        self.0.is_some()
    }

    /// Makes `command` run as this user, out of the reach of our terminal and environment.
    pub(crate) fn apply(self, command: &mut tokio::process::Command) {
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("LC_ALL", "C").env("TZ", "UTC");
        command.process_group(0);
        if let Some((uid, gid)) = self.0 {
            command.uid(uid).gid(gid);
        }
    }

    /// Gives `path` to this user.
    pub(crate) fn own(self, path: &Path) -> std::io::Result<()> {
        match self.0 {
            Some((uid, gid)) => std::os::unix::fs::chown(path, Some(uid), Some(gid)),
            None => Ok(()),
        }
    }
}

/// User and group of `name` in the text of `/etc/passwd`.
fn ids_of(users: &str, name: &str) -> Option<(u32, u32)> {
    let mut entries = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let entry = entries.find(|fields| fields.len() > 3 && fields[0] == name)?;
    Some((entry[2].parse().ok()?, entry[3].parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    /// A process whose command line names the directory.
    fn inhabitant(place: &Workdir) -> Child {
        let script = format!("trap '' QUIT; : {}; while sleep 1; do :; done", place.path().display());
        Command::new("sh").args(["-c", &script]).stdin(Stdio::null()).spawn().unwrap()
    }

    #[test]
    fn users_are_found_by_their_whole_name() {
        let users = "root:x:0:0::/root:/bin/sh\npostgresql:x:7:8::/:/\npostgres:x:26:27::/:/\nnobody:x:65534:1::/:/\n";
        assert_eq!(ids_of(users, "postgres"), Some((26, 27)));
        assert_eq!(ids_of(users, "nobody"), Some((65534, 1)));
        assert_eq!(ids_of(users, "post"), None);
        assert_eq!(ids_of("postgres:x:many:1:", "postgres"), None);
    }

    #[test]
    fn what_was_started_ends_with_the_place_and_nothing_else_does() {
        let mut place = Workdir::make(false).unwrap();
        let path = place.path().to_owned();
        let mut stranger = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
        let mut ours = Command::new("sleep").arg("60").arg0(path.join("sleeper")).stdin(Stdio::null()).spawn().unwrap();
        place.started(stranger.id()).unwrap();
        place.started(ours.id()).unwrap();
        drop(place);
        assert!(!path.exists());
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ours.wait().unwrap()), Some(3));
        // An id that now belongs to someone else.
        assert!(stranger.try_wait().unwrap().is_none());
        stranger.kill().unwrap();
        stranger.wait().unwrap();
    }

    #[test]
    fn a_deaf_one_is_killed_and_a_kept_place_stays() {
        let mut place = Workdir::make(true).unwrap();
        let path = place.path().to_owned();
        let mut deaf = inhabitant(&place);
        place.started(deaf.id()).unwrap();
        let begun = Instant::now();
        drop(place);
        assert!(begun.elapsed() < Duration::from_secs(30));
        assert!(deaf.wait().unwrap().code().is_none());
        assert!(path.exists());
        fs::remove_dir_all(&path).unwrap();
    }
}
