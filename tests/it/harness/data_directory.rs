//! Data directories: made once by `initdb`, then copied.
//!
//! All copies share one system identifier, as a base backup shares it with its origin.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::scratch::{self, base, lock, make_dir, server_user};
use super::servers::Binaries;

/// The template for these binaries, made by whoever asks first.
pub fn template(binaries: &Binaries) -> PathBuf {
    let name = binaries.build.replace(|c: char| !c.is_ascii_alphanumeric() && c != '.', "-");
    let templates = base().join("templates");
    make_dir(&templates);
    let (path, complete) = (templates.join(&name), templates.join(format!("{name}.complete")));
    let _lock = lock(&templates.join(format!("{name}.lock")));
    if !complete.exists() {
        if path.exists() {
            fs::remove_dir_all(&path).unwrap();
        }
        fs::create_dir(&path).unwrap();
        server_user().own(&path);
        initdb(binaries, &path);
        fs::write(complete, "").unwrap();
    }
    path
}

/// A new data directory in the empty one `data`.
pub fn initdb(binaries: &Binaries, data: &Path) {
    let mut command = Command::new(binaries.directory.join("initdb"));
    server_user().apply(&mut command);
    command.current_dir(data).arg("-D").arg(data);
    command.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]);
    scratch::run(&mut command).unwrap();
}

/// Copies a stopped server's data; where the file system can, without copying its blocks.
pub fn copy(from: &Path, to: &Path) {
    let copy = |options: &[&str]| scratch::run(Command::new("cp").args(options).arg(from.join(".")).arg(to));
    // BusyBox knows no --reflink.
    copy(&["-a", "--reflink=auto"]).or_else(|_| copy(&["-a"])).unwrap();
}

/// Copies a running server's data between the start and the stop of a backup: files may vanish while one copies, and
/// what belongs to the running server alone is left out.
pub fn copy_running(from: &Path, to: &Path) {
    if let Err(problem) = scratch::run(Command::new("cp").arg("-a").arg(from.join(".")).arg(to)) {
        assert!(to.join("global/pg_control").exists(), "{problem}");
    }
    for name in ["postmaster.pid", "postmaster.opts"] {
        fs::remove_file(to.join(name)).unwrap();
    }
    for slot in fs::read_dir(to.join("pg_replslot")).unwrap() {
        fs::remove_dir_all(slot.unwrap().path()).unwrap();
    }
    // Promoted, it would wait for a standby of its own.
    let altered = to.join("postgresql.auto.conf");
    let settings = fs::read_to_string(&altered).unwrap();
    let kept = settings.lines().filter(|line| !line.starts_with("synchronous_standby_names"));
    fs::write(altered, kept.map(|line| format!("{line}\n")).collect::<String>()).unwrap();
}
