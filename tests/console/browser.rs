//! Node and Chromium in front of the world.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::control;
use crate::world::{OPERATOR, VIEWER, World};

const CHROMIUM: &[&str] = &["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

/// Chromium, and the folder of the packages; or why not.
fn tools() -> Result<String, String> {
    let chromium = CHROMIUM.iter().find(|path| Path::new(path).exists());
    let chromium = chromium.ok_or("no Chromium here: apt-get install chromium")?;
    let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/console/node_modules/playwright-core");
    if !packages.exists() {
        return Err("the packages are not here: npm ci --prefix tests/console".to_owned());
    }
    Ok((*chromium).to_owned())
}

/// Runs one file of browser tests against a world of its own.
async fn run(file: &str) {
    run_in(file, World::new()).await;
}

async fn run_in(file: &str, world: impl Future<Output = World>) {
    let chromium = match tools() {
        Ok(chromium) => chromium,
        // `.ci/test` leaves these tests out by their names where the browser cannot be had, and fails what it does not.
        Err(why) if std::env::var_os("PG2PLANHAT_TEST_STRICT").is_some_and(|strict| strict == "1") => panic!("{why}"),
        Err(why) => {
            eprintln!("SKIPPED: {file}: {why}");
            return;
        }
    };
    let world = world.await;
    let url = format!("http://127.0.0.1:{}", world.port);
    let (control, world) = control::serve(world).await;
    let pictures = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/console-pictures");
    let mut node = Command::new("node");
    node.arg("--test").arg("--test-concurrency=1").arg(format!("tests/console/{file}.test.mjs"));
    node.current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    node.env("CONSOLE_URL", &url).env("CONTROL", format!("http://127.0.0.1:{control}")).env("CHROMIUM", chromium);
    node.env("OPERATOR", OPERATOR).env("VIEWER", VIEWER).env("PICTURES", pictures).kill_on_drop(true);
    let ended = tokio::time::timeout(Duration::from_secs(600), node.output()).await;
    let output = ended.expect("the browser tests took too long").expect("node starts");
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let log = world.lock().await.app.log();
        let tail: Vec<&str> = log.lines().rev().take(30).collect();
        panic!("{file}:\n{text}\n{}\nthe program's log:\n{}", String::from_utf8_lossy(&output.stderr), tail.join("\n"));
    }
    eprintln!("{text}");
}

#[tokio::test]
async fn from_an_empty_folder_to_flowing_rows_needs_chromium() {
    run_in("first_run", World::empty()).await;
}

#[tokio::test]
async fn a_backfill_is_followed_through_a_restart_needs_chromium() {
    run_in("backfill", World::filled(6000)).await;
}

#[tokio::test]
async fn the_keyboard_alone_and_large_text_suffice_needs_chromium() {
    run("keyboard").await;
}

#[tokio::test]
async fn pages_read_and_follow_the_program_needs_chromium() {
    run("pages").await;
}

#[tokio::test]
async fn case_189_hostile_text_stays_text_on_every_page_needs_chromium() {
    run_in("hostile", World::hostile()).await;
}

#[tokio::test]
async fn case_193_230_231_trials_in_the_browser_needs_chromium() {
    run_in("attacks", World::with(|config| config.set("console.hosts", "[console.example]"))).await;
}

#[tokio::test]
async fn case_280_281_282_283_what_strained_other_consoles_needs_chromium() {
    run_in("strain", World::strained()).await;
}

#[tokio::test]
async fn pages_look_right_in_both_themes_and_widths_needs_chromium() {
    let reader = "{ user: reader, password: secret-of-reader }";
    run_in("looks", World::with(move |config| config.set("source.reader", reader))).await;
}

#[tokio::test]
async fn actions_are_planned_and_done_once_needs_chromium() {
    run("actions").await;
}

#[tokio::test]
async fn each_way_of_repair_ends_as_its_text_said_needs_chromium() {
    run("repair").await;
}

#[tokio::test]
async fn the_mapping_is_tried_saved_and_applied_needs_chromium_needs_git() {
    run("mapping").await;
}

/// The page's script has no build of its own: its types are held here.
#[test]
fn the_pages_script_is_typed_needs_chromium() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let compiler = root.join("tests/console/node_modules/typescript/bin/tsc");
    if !compiler.exists() {
        assert!(
            std::env::var_os("PG2PLANHAT_TEST_STRICT").is_none_or(|strict| strict != "1"),
            "npm ci --prefix tests/console"
        );
        eprintln!("SKIPPED: the packages are not here: npm ci --prefix tests/console");
        return;
    }
    let mut tsc = std::process::Command::new("node");
    tsc.arg(compiler).args(["--noEmit", "--allowJs", "--checkJs", "--strict", "--target", "es2022"]);
    tsc.args(["--lib", "es2023,dom,dom.iterable", "src/console/static/live.js", "src/console/static/acts.js"]);
    tsc.current_dir(root);
    let output = tsc.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// A world to look at by hand: `cargo test --test console -- --ignored --nocapture a_world_to_look_at`.
#[tokio::test]
#[ignore = "it stays until it is interrupted"]
async fn a_world_to_look_at() {
    let world = World::new().await;
    world.insert(2000).await;
    let url = format!("http://127.0.0.1:{}", world.port);
    let (control, _world) = control::serve(world).await;
    let chromium = tools().unwrap_or_default();
    eprintln!(
        "export CONSOLE_URL={url} CONTROL=http://127.0.0.1:{control} OPERATOR={OPERATOR} VIEWER={VIEWER} CHROMIUM={chromium}"
    );
    std::future::pending::<()>().await;
}
