//! The project's own rules, held by a test: who may import whom, how large a room may be, what stands at its door.
//!
//! Rules are data, at the top. They read the source as text, and report every offender as `file:line`. Each rule has a test
//! of its own at the end that shows it an offender.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the verdict")]

#[path = "tidy/graph.rs"]
mod graph;
#[path = "tidy/names.rs"]
mod names;

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

/// The import table, from the ground up: a room may import rooms of the levels above its own line, never of its own
/// line or below. `main`, `lib` and `testing` are the roof and stand outside.
const LEVELS: &[&[&str]] = &[
    &["model"],
    &["config", "audit", "sql"],
    &["postgres", "mapping", "planhat", "state", "sim"],
    &["delivery", "telemetry"],
    &["shutdown", "terminal"],
    &["admin"],
    &["runtime"],
    &["operations"],
    &["demo", "console"],
    &["cli"],
];

/// Who may import a room of its own level: (who, whom). Never both ways.
const BESIDE: &[(&str, &str)] = &[];

/// Where something may be set going beside the caller: a file, or a directory. Everything else is called and returns.
const SPAWNERS: &[&str] = &[
    "src/runtime/",
    "src/shutdown.rs",                    // the task that hears signals
    "src/postgres/connection/session.rs", // the task that moves a connection's bytes
    "src/postgres/replication/stream.rs", // the connection's own thread, which paces its reading
    "src/telemetry/log_writer.rs",        // the thread that waits for whoever reads stderr
    "src/sim/",                           // a server of its own
    "src/demo/",
    "src/console/web_server.rs", // a task for each connection
    "src/console/finish.rs",     // what must not end with a connection
];

/// What sets something going.
const SPAWNING: &[&str] =
    &["tokio::spawn", "task::spawn", "spawn_blocking", "spawn_local", "thread::spawn", "thread::Builder", "JoinSet"];

/// What must not stay behind. In pieces, so that this file does not find itself.
const LEFTOVERS: &[&str] = &[concat!("to", "do!"), concat!("FIX", "ME"), concat!("XX", "X")];

/// Lines of a source file, its tests not counted.
const MOST_LINES: usize = 400;

/// What a visitor may see at the top.
const TOP_LEVEL: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "askama.toml",
    "Makefile",
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "docs",
    "LICENSE",
    "src",
    "deploy",
    "tests",
    "benches",
    "fuzz",
    "target",
];

/// A rule broken at a place.
#[derive(Debug, PartialEq, Eq)]
struct Offence {
    file: String,
    line: usize,
    what: String,
}

impl fmt::Display for Offence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.what)
    }
}

/// A source file: its path from the project's root, and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// The lines before its tests, numbered from 1.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut lines = self.text.lines().peekable();
        let mut before_tests = Vec::new();
        while let Some(line) = lines.next() {
            let tests_follow = lines.peek().is_some_and(|next| next.contains("mod ") && next.ends_with('{'));
            if line == "#[cfg(test)]" && tests_follow {
                break;
            }
            before_tests.push(line);
        }
        before_tests.into_iter().enumerate().map(|(at, line)| (at + 1, line))
    }

    /// The same, without comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.lines().map(|(number, line)| (number, line.split("//").next().unwrap_or_default()))
    }

    /// The room that the file belongs to: `src/postgres/catalog/slot.rs` and `src/postgres.rs` are `postgres`.
    fn room(&self) -> &str {
        let inside = self.path.strip_prefix("src/").unwrap_or(&self.path);
        inside.split('/').next().unwrap_or(inside).trim_end_matches(".rs")
    }

    fn offence(&self, line: usize, what: impl Into<String>) -> Offence {
        Offence { file: self.path.clone(), line, what: what.into() }
    }
}

fn is_roof(room: &str) -> bool {
    ["main", "lib", "testing"].contains(&room)
}

/// The rooms that `source` names, each with its line: `crate::room`, and `use crate::{a, b::c}` over several lines.
fn imports(source: &Source) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut depth = 0_usize; // within the braces of `use crate::{`
    for (number, line) in source.code() {
        let mut rest = line;
        while let Some(at) = if depth == 0 { rest.find("crate::") } else { Some(0) } {
            if depth == 0 {
                let own = !rest[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
                rest = &rest[at + "crate::".len()..];
                if own && rest.starts_with('{') {
                    (depth, rest) = (1, &rest[1..]);
                } else if own {
                    found.push((number, name_at(rest)));
                }
                continue;
            }
            let mut names_next = true;
            let mut end = rest.len();
            for (at, character) in rest.char_indices() {
                match character {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    ',' if depth == 1 => names_next = true,
                    c if names_next && depth == 1 && c.is_alphabetic() && starts_name(rest, at) => {
                        found.push((number, name_at(&rest[at..])));
                        names_next = false;
                    }
                    _ => {}
                }
                if depth == 0 {
                    end = at + 1;
                    break;
                }
            }
            rest = &rest[end..];
            if rest.is_empty() {
                break;
            }
        }
    }
    found.retain(|(_, name)| !name.is_empty());
    found
}

/// Whether the name at `at` is the first of its path.
fn starts_name(text: &str, at: usize) -> bool {
    !text[..at].trim_end().ends_with("::") && !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_')
}

fn name_at(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn level(room: &str) -> Option<usize> {
    LEVELS.iter().position(|rooms| rooms.contains(&room))
}

/// (a) Imports run one way.
fn wrong_imports(source: &Source) -> Vec<Offence> {
    let room = source.room();
    if is_roof(room) {
        return Vec::new();
    }
    let Some(own) = level(room) else {
        return vec![source.offence(1, format!("the room `{room}` is not in the import table of tests/tidy.rs"))];
    };
    let allowed = |other: &str| {
        let beside = BESIDE.contains(&(room, other));
        other == room || beside || level(other).is_none_or(|level| level < own)
    };
    let wrong = imports(source).into_iter().filter(|(_, other)| !allowed(other));
    let mut offences: Vec<Offence> =
        wrong.map(|(line, other)| source.offence(line, format!("`{room}` must not import `{other}`"))).collect();
    let climbing = source.code().filter(|(_, line)| line.contains("super::"));
    offences.extend(
        climbing.map(|(line, _)| source.offence(line, "a path by `super`: write `crate::`, which can be followed")),
    );
    offences
}

/// (b) A room is small.
fn too_long(source: &Source) -> Vec<Offence> {
    let lines = source.lines().count();
    let long = lines > MOST_LINES;
    long.then(|| source.offence(MOST_LINES + 1, format!("{lines} lines without tests: at most {MOST_LINES}")))
        .into_iter()
        .collect()
}

/// (c) A door says what is behind it.
fn no_module_doc(source: &Source) -> Vec<Offence> {
    let doc = source.text.starts_with("//! ");
    (!doc).then(|| source.offence(1, "no module doc (`//!`) at the top")).into_iter().collect()
}

/// (d) Nothing is left for later.
fn leftovers(source: &Source) -> Vec<Offence> {
    let lines = source.text.lines().enumerate();
    let found = lines
        .flat_map(|(at, line)| LEFTOVERS.iter().filter(|left| line.contains(**left)).map(move |left| (at + 1, left)));
    found.map(|(line, left)| source.offence(line, format!("`{left}` left behind"))).collect()
}

/// A test that ends early because a program is not there would count as passed: its name says what it needs (`needs_psql`), and
/// `.ci/test` leaves it out.
fn left_out_in_silence(source: &Source) -> Vec<Offence> {
    // Where strictness makes a failure of it, nothing passes.
    if source.text.contains("PG2PLANHAT_TEST_STRICT") {
        return Vec::new();
    }
    let said = source.text.lines().enumerate().filter(|(_, line)| line.to_lowercase().contains("println!(\"skipp"));
    said.map(|(at, _)| source.offence(at + 1, "a test leaves itself out: name it `needs_PROGRAM`")).collect()
}

/// (e) Few places set something going.
fn spawning(source: &Source) -> Vec<Offence> {
    let covers = |place: &str| source.path == place || (place.ends_with('/') && source.path.starts_with(place));
    if SPAWNERS.iter().any(|place| covers(place)) {
        return Vec::new();
    }
    let lines = source.code().flat_map(|(number, line)| {
        let found = SPAWNING.iter().find(|word| line.contains(**word));
        found.map(|word| {
            source.offence(number, format!("`{word}` outside the files that may (SPAWNERS in tests/tidy.rs)"))
        })
    });
    lines.collect()
}

/// (f) The top level shows only what a visitor needs.
fn clutter(names: &[String]) -> Vec<Offence> {
    let visible = names.iter().filter(|name| !name.starts_with('.') && !TOP_LEVEL.contains(&name.as_str()));
    visible
        .map(|name| Offence { file: name.clone(), line: 1, what: "does not belong at the top level".to_owned() })
        .collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Tests and their fixtures that stand in files of their own beside the code: no part of the program.
fn is_test_code(path: &Path) -> bool {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    path.components().any(|part| part.as_os_str() == "src")
        && (stem == "tests" || stem == "fixture" || stem.ends_with("_tests"))
}

/// The Rust files below `directory`.
fn sources(directory: &str) -> Vec<Source> {
    let mut places = vec![root().join(directory)];
    let mut sources = Vec::new();
    while let Some(place) = places.pop() {
        let Ok(entries) = fs::read_dir(&place) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                places.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") && !is_test_code(&path) {
                let text = fs::read_to_string(&path).unwrap();
                sources.push(Source { path: from_root(&path), text });
            }
        }
    }
    sources.sort_by(|one, other| one.path.cmp(&other.path));
    sources
}

fn from_root(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned()
}

/// What is at the top: what git tracks, so that a note of one's own does not count; without git, what is there.
fn top_level() -> Vec<String> {
    let git = Command::new("git").args(["ls-files"]).current_dir(root()).output();
    let tracked = git.ok().filter(|output| output.status.success() && !output.stdout.is_empty());
    let Some(tracked) = tracked else {
        let entries = fs::read_dir(root()).unwrap();
        return entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    };
    let paths = String::from_utf8(tracked.stdout).unwrap();
    let mut names: Vec<String> = paths.lines().map(|path| path.split('/').next().unwrap_or(path).to_owned()).collect();
    names.dedup();
    names
}

/// Fails with every offender.
fn hold(offences: impl IntoIterator<Item = Offence>) {
    let all: Vec<String> = offences.into_iter().map(|offence| offence.to_string()).collect();
    assert!(all.is_empty(), "\n{}\n", all.join("\n"));
}

fn in_src(rule: impl Fn(&Source) -> Vec<Offence>) {
    let sources = sources("src");
    assert!(sources.len() > 5, "the source was not found");
    hold(sources.iter().flat_map(rule));
}

#[test]
fn imports_run_one_way() {
    in_src(wrong_imports);
}

#[test]
fn exceptions_are_one_way() {
    let both = BESIDE.iter().filter(|(one, other)| BESIDE.contains(&(*other, *one)));
    assert_eq!(both.count(), 0, "a pair that may import each other");
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    hold(graph::circles(&sources("src")));
}

#[test]
fn a_type_name_has_one_meaning() {
    hold(names::types_twice(&sources("src")));
}

#[test]
fn a_file_name_has_one_meaning() {
    hold(names::files_twice(&sources("src")));
}

#[test]
fn documents_that_are_named_are_there() {
    let texts = names::texts(root());
    assert!(texts.len() > 100, "the texts were not found");
    hold(names::missing_documents(&texts, |path| root().join(path).exists()));
}

#[test]
fn rooms_are_small() {
    in_src(too_long);
}

#[test]
fn doors_say_what_is_behind_them() {
    in_src(no_module_doc);
}

#[test]
fn nothing_is_left_for_later() {
    hold(["src", "tests", "benches"].into_iter().flat_map(sources).flat_map(|source| leftovers(&source)));
}

#[test]
fn case_197_no_test_leaves_itself_out_in_silence() {
    hold(sources("tests").iter().flat_map(left_out_in_silence));
}

#[test]
fn few_places_spawn() {
    in_src(spawning);
}

#[test]
fn the_top_level_is_bare() {
    hold(clutter(&top_level()));
}

/// The oldest versions that have the fixes of known vulnerabilities (RustSec): a requirement may not allow older ones.
const MINIMUMS: &[(&str, &str)] = &[
    ("bytes", "1.11.1"),              // RUSTSEC-2026-0007
    ("futures-util", "0.3.7"),        // RUSTSEC-2020-0059
    ("postgres-protocol", "0.6.12"),  // RUSTSEC-2026-0179, -0180
    ("ring", "0.17.12"),              // RUSTSEC-2025-0009
    ("rustls", "0.23.18"),            // RUSTSEC-2024-0399
    ("tokio", "1.44.2"),              // RUSTSEC-2025-0023
    ("tokio-postgres", "0.7.18"),     // RUSTSEC-2026-0178
    ("tracing", "0.1.40"),            // RUSTSEC-2023-0078
    ("tracing-subscriber", "0.3.20"), // RUSTSEC-2025-0055
];

/// `1.44.2` as numbers; what is not given is 0.
fn numbers(version: &str) -> [u64; 3] {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or_default());
    [(); 3].map(|()| parts.next().unwrap_or_default())
}

/// The crates whose requirement in `cargo_toml` lets in a version older than their minimum.
fn too_old(cargo_toml: &str) -> Vec<&'static str> {
    let dependencies = cargo_toml.split("\n[dependencies]\n").nth(1).unwrap_or_default();
    let dependencies = dependencies.split("\n[").next().unwrap_or_default();
    let required = |name: &str| {
        let line = dependencies.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
        line.and_then(|line| line.split('"').nth(1)).map(numbers)
    };
    let old = MINIMUMS.iter().filter(|(name, least)| required(name).is_some_and(|given| given < numbers(least)));
    old.map(|(name, _)| *name).collect()
}

#[test]
fn minimums_of_dependencies_have_the_known_fixes() {
    let cargo_toml = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert_eq!(too_old(&cargo_toml), [""; 0]);
}

/// Cargo.toml alone says which Rust is needed; the scripts read it there, README.md repeats it, and the image's is no older.
#[test]
fn one_place_says_which_rust_is_needed() {
    let read = |file: &str| fs::read_to_string(root().join(file)).unwrap();
    let cargo_toml = read("Cargo.toml");
    let needed = cargo_toml.split("\nrust-version = \"").nth(1).unwrap().split('"').next().unwrap();
    let common = read(".ci/common");
    assert!(common.contains("Install Rust $rust or newer"), "a version of its own");
    assert!(read("README.md").contains(&format!("`cargo` ({needed} or newer)")), "README.md: {needed}");
    let dockerfile = read("deploy/Dockerfile");
    let image = dockerfile.split("RUST_IMAGE=rust:").nth(1).unwrap().split(['-', '\n']).next().unwrap();
    assert!(numbers(image) >= numbers(needed), "the image's Rust {image} is older than {needed}");
}

/// Each rule, shown an offender.
mod rules_bite {
    #[test]
    fn a_requirement_that_lets_an_old_version_in_is_seen() {
        let text = "[package]\n\n[dependencies]\nbytes = \"1\"\ntokio = { version = \"1.44.2\" }\n\n[profile]\n";
        assert_eq!(super::too_old(text), ["bytes"]);
    }

    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source { path: path.to_owned(), text: text.to_owned() }
    }

    fn lines(offences: &[Offence]) -> Vec<usize> {
        offences.iter().map(|offence| offence.line).collect()
    }

    #[test]
    fn an_import_upwards_is_seen() {
        let text = "//! Doc of crate::cli.\nuse crate::runtime::Board;\nuse crate::model::{Key, Row};\nfn f() { crate::planhat::send() }\n";
        assert_eq!(lines(&wrong_imports(&source("src/postgres/catalog/slot.rs", text))), [2, 4]);
        assert_eq!(lines(&wrong_imports(&source("src/cli/run.rs", text))), []);
    }

    #[test]
    fn a_group_over_several_lines_is_seen() {
        let text = "use crate::{\n    config::{Config, Section},\n    model::Fault, state::Ledger,\n    planhat,\n};\nuse crate::{sim, model};\n";
        assert_eq!(lines(&wrong_imports(&source("src/mapping/mod.rs", text))), [3, 4, 6]);
        assert_eq!(imports(&source("src/mapping/mod.rs", text)).len(), 6);
    }

    #[test]
    fn a_path_by_super_is_seen() {
        let text =
            "use super::row;\nfn f() { super::super::state::f() }\n#[cfg(test)]\nmod tests {\n    use super::*;\n}\n";
        assert_eq!(lines(&wrong_imports(&source("src/mapping/item.rs", text))), [1, 2]);
    }

    #[test]
    fn a_circle_of_files_is_seen_through_a_door_and_by_a_path() {
        let files = [
            source("src/state/mod.rs", "mod a;\npub use crate::state::a::Thing;\npub(crate) mod b;\n"),
            source("src/state/a.rs", "use crate::{model::Key, state::b::{Other, self}};\n"),
            source("src/state/b.rs", "fn f() -> crate::state::Thing {}\n"),
            source("src/model/mod.rs", "pub struct Key;\n"),
        ];
        let found = graph::circles(&files);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].what.contains("src/state/a.rs, src/state/b.rs"), "{found:?}");
        assert!(graph::circles(&[source("src/state/a.rs", "use crate::state::a::X;\n")]).is_empty());
    }

    #[test]
    fn a_name_with_two_meanings_is_seen() {
        let files =
            [source("src/sim/store.rs", "pub(crate) struct Store;\n"), source("src/state/store.rs", "enum Store {}\n")];
        assert_eq!(lines(&names::types_twice(&files)), [1]);
        assert_eq!(names::files_twice(&files).len(), 1);
        let mirrored =
            [source("src/cli/status.rs", "struct Args;"), source("src/operations/status.rs", "struct Report;")];
        assert!(names::files_twice(&mirrored).is_empty());
    }

    #[test]
    fn a_document_that_is_not_there_is_seen() {
        let texts = [("src/a.rs".to_owned(), "// see docs/gone.md and README.md, not https://x.y/z.md\n".to_owned())];
        assert_eq!(lines(&names::missing_documents(&texts, |path| path == "README.md")), [1]);
        let texts = [("src/a.rs".to_owned(), format!("// {} section 3\n", concat!("DES", "IGN")))];
        assert_eq!(lines(&names::missing_documents(&texts, |_| true)), [1]);
    }

    #[test]
    fn an_unknown_room_is_seen_and_tests_are_not() {
        assert_eq!(lines(&wrong_imports(&source("src/util.rs", ""))), [1]);
        let tests = "#[cfg(test)]\nmod tests {\n    use crate::cli;\n}\n";
        assert_eq!(lines(&wrong_imports(&source("src/model/row.rs", tests))), []);
    }

    #[test]
    fn a_long_file_is_seen() {
        assert_eq!(lines(&too_long(&source("src/model/row.rs", &"x\n".repeat(401)))), [401]);
        let tested = "x\n".repeat(400) + "#[cfg(test)]\nmod tests {\n" + &"x\n".repeat(99);
        assert_eq!(lines(&too_long(&source("src/model/row.rs", &tested))), []);
    }

    #[test]
    fn a_missing_doc_is_seen() {
        assert_eq!(lines(&no_module_doc(&source("src/model/row.rs", "use a;\n//! Late.\n"))), [1]);
        assert_eq!(lines(&no_module_doc(&source("src/model/row.rs", "//! Rows.\n"))), []);
    }

    #[test]
    fn a_leftover_is_seen() {
        let text = format!("fn f() {{\n    {}()\n}} // {}\n", LEFTOVERS[0], LEFTOVERS[1]);
        assert_eq!(lines(&leftovers(&source("src/model/row.rs", &text))), [2, 3]);
    }

    #[test]
    fn case_197_a_test_that_leaves_itself_out_is_seen() {
        let text = format!("if !there {{\n    e{}ped: no psql\");\n}}\n", "println!(\"skip");
        assert_eq!(lines(&left_out_in_silence(&source("tests/it/walk.rs", &text))), [2]);
    }

    #[test]
    fn a_spawn_is_seen() {
        let text = "// tokio::spawn\ntokio::spawn(f());\nstd::thread::spawn(f);\nCommand::new(x).spawn();\n";
        assert_eq!(lines(&spawning(&source("src/state/ledger.rs", text))), [2, 3]);
        assert_eq!(lines(&spawning(&source("src/runtime/startup.rs", text))), []);
        assert_eq!(lines(&spawning(&source("src/sim/server.rs", text))), []);
    }

    #[test]
    fn clutter_is_seen() {
        let names = ["src", ".ci", "notes.txt", "Cargo.toml"].map(str::to_owned);
        assert_eq!(clutter(&names).iter().map(|offence| offence.file.as_str()).collect::<Vec<_>>(), ["notes.txt"]);
    }
}
