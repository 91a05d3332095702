//! How a release is made, and what it is refused for.

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

/// What stands in Cargo.toml's `repository` until `make dist` is given an address.
const PLACEHOLDER: &str = "https://example.invalid/pg2planhat";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn release(repository: Option<&str>, environment: &[(&str, &str)]) -> Output {
    let mut dist = Command::new("bash");
    dist.arg(".ci/dist").env("RELEASE", "1").env_remove("REPOSITORY").current_dir(root());
    dist.envs(repository.map(|address| ("REPOSITORY", address)));
    dist.env("OUT", std::env::temp_dir().join("pg2planhat-no-release"));
    dist.envs(environment.iter().copied()).output().unwrap()
}

#[test]
fn a_release_that_names_no_repository_is_refused() {
    for repository in [None, Some(PLACEHOLDER)] {
        let output = release(repository, &[]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(69), "{said}");
        assert!(said.contains("REPOSITORY"), "{said}");
    }
}

/// Where git cannot say what is committed (another owner, an unpacked archive), nothing is.
#[test]
fn a_release_of_what_nobody_has_committed_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let git = folder.path().join("git");
    std::fs::write(&git, "#!/bin/sh\nexit 128\n").unwrap();
    std::fs::set_permissions(&git, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let output = release(Some("https://git.example.com/pg2planhat"), &[("PATH", &path)]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{said}");
    assert!(said.contains("git status fails"), "{said}");
}

/// The placeholder is where `make dist` looks for it, and in nothing that is delivered as it is.
#[test]
fn the_placeholder_is_in_one_place() {
    let read = |file: &str| std::fs::read_to_string(root().join(file)).unwrap();
    assert_eq!(read("Cargo.toml").matches(PLACEHOLDER).count(), 1);
    assert!(read(".ci/dist").contains(&format!("placeholder={PLACEHOLDER}\n")));
    for file in ["README.md", "SECURITY.md", "CHANGELOG.md", "deploy/helm/pg2planhat/Chart.yaml", "deploy/Dockerfile"] {
        assert!(!read(file).contains("example.invalid"), "{file}");
    }
}

/// The changelog has a section for the version, on top, with a date once it is tagged.
#[test]
fn the_changelog_begins_with_this_version() {
    let changelog = std::fs::read_to_string(root().join("CHANGELOG.md")).unwrap();
    let first = changelog.lines().find(|line| line.starts_with("## ")).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    assert!(first.starts_with(&format!("## [{version}]")), "{first}");
    let tag = Command::new("git").args(["tag", "--points-at", "HEAD"]).current_dir(root()).output();
    let tags = tag.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    if tags.lines().any(|tag| tag == format!("v{version}")) {
        assert!(!first.contains("Unreleased"), "{first}");
    }
}

/// The program is the only one that `cargo install` would make. That it compiles without what the tests bring (their dependencies
/// switch features of ours on), links and is installed is for the release's tests: it keeps both cores busy for minutes.
#[test]
fn cargo_would_install_one_program() {
    let arguments = ["metadata", "--locked", "--no-deps", "--format-version", "1"];
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let targets = metadata["packages"][0]["targets"].as_array().unwrap().iter();
    let programs: Vec<&Value> =
        targets.filter(|target| target["kind"][0] == "bin").map(|target| &target["name"]).collect();
    assert_eq!(programs, ["pg2planhat"]);
}

mod needs_dist {
    use super::*;

    /// Unoptimised, so that what the tests have built serves.
    #[test]
    fn cargo_installs_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut install = Command::new(env!("CARGO"));
        install.args(["install", "--quiet", "--locked", "--debug", "--path", "."]).current_dir(root());
        let installed = install.arg("--root").arg(folder.path()).output().unwrap();
        assert!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));
        let programs: Vec<_> =
            std::fs::read_dir(folder.path().join("bin")).unwrap().map(|file| file.unwrap().file_name()).collect();
        assert_eq!(programs, ["pg2planhat"]);
        let version = Command::new(folder.path().join("bin/pg2planhat")).arg("--version").output().unwrap();
        let version = String::from_utf8_lossy(&version.stdout).into_owned();
        assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
    }
}

/// The crates that the locked versions say, by name.
pub fn locked() -> Vec<(String, String)> {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let value = |line: Option<&str>| line.and_then(|line| line.split('"').nth(1)).unwrap_or_default().to_owned();
    let package = |text: &str| (value(text.lines().nth(1)), value(text.lines().nth(2)));
    lock.split("[[package]]").skip(1).map(package).collect()
}

/// The components of a list of contents, by name and version.
pub fn components(contents: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let all = contents["components"].as_array().unwrap().iter();
    all.map(|component| (text(&component["name"]), text(&component["version"]))).collect()
}
