//! The walk: the quick start, its blocks word by word, from a database without anything of ours to rows at the
//! stand-in. What a user would write is written in: host, port, password, tenant, and where the stand-in is.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use pg2planhat::testing::sim::{Sim, SimOptions, SinkKind};
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::port::Port;
use crate::harness::scratch::Scratch;
use crate::harness::{Cluster, ConfigText, eventually};

const PATIENCE: Duration = Duration::from_secs(40);
/// Where the configuration is written.
const FILE: &str = "pg2planhat.yaml";
const PASSWORD: &str = "it's a \"walk\"";
/// The password of the DBA.
const DBA: &str = "of-the-dba";

/// The fenced blocks of the page's part, each with its language.
fn blocks() -> Vec<(String, String)> {
    let readme = include_str!("../../docs/quickstart.md");
    let part = readme
        .split("\n## Your own database")
        .nth(1)
        .expect("the part of the quick start")
        .split("\n## ")
        .next()
        .unwrap();
    let mut blocks = Vec::new();
    let mut pieces = part.split("\n```");
    pieces.next();
    while let (Some(block), Some(_)) = (pieces.next(), pieces.next()) {
        let (language, text) = block.split_once('\n').unwrap();
        blocks.push((language.to_owned(), text.to_owned()));
    }
    blocks
}

/// One replacement, which must have something to replace.
pub fn fill(text: &str, before: &str, after: &str) -> String {
    assert!(text.contains(before), "the quick start has no {before:?} in\n{text}");
    text.replacen(before, after, 1)
}

/// The commands of all `sh` blocks as one session, which writes the file where the page has it; what does not end by itself goes
/// on beside the rest.
fn session(blocks: &[(String, String)], config: &str) -> String {
    let mut script = "set -eu\n".to_owned();
    let lines = blocks.iter().flat_map(|(language, text)| match language.as_str() {
        "sh" => text.lines().collect(),
        "yaml" => vec![FILE],
        _ => Vec::new(),
    });
    for line in lines {
        if line == FILE {
            script.push_str(&format!("cat > pg2planhat.yaml <<'END'\n{config}\nEND\n"));
            continue;
        }
        let command = line.split("  #").next().unwrap().trim_end();
        let endless = ["run", "status --watch", "logs --follow"].iter().find(|end| command.ends_with(*end));
        script.push_str(&match endless {
            Some(name) => {
                let file = name.split(' ').next().unwrap();
                format!("{command} > {file}.out 2> {file}.err &\necho $! > {file}.pid\n")
            }
            None => format!("{command}\n"),
        });
    }
    script.push_str("wait\n");
    let quoted = format!("'{}'", PASSWORD.replace('\'', "'\\''"));
    let script = fill(&script, "PGHOST=db.internal", "PGHOST=127.0.0.1");
    let script = fill(&script, "PGPASSWORD=…", &format!("PGPASSWORD={quoted}"));
    fill(&script, "PLANHAT_TENANT_UUID=…", &format!("PLANHAT_TENANT_UUID={}", ConfigText::TENANT))
}

/// Where the session finds its programs: ours, and the machine's psql, which knows nothing but what the page says and the
/// password that a DBA would type.
pub fn programs(place: &Path, program: &Path) -> String {
    let bin = place.join("bin");
    std::fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(program, bin.join("pg2planhat")).unwrap();
    let typed = place.join(".pgpass");
    std::fs::write(&typed, format!("*:*:*:postgres:{DBA}\n")).unwrap();
    std::fs::set_permissions(typed, std::fs::Permissions::from_mode(0o600)).unwrap();
    format!("{}:{}", bin.display(), std::env::var("PATH").unwrap())
}

/// Walks with `program`, as whoever has just installed it.
pub async fn walk(program: &Path) {
    let began = Instant::now();
    let said = |what: &str| eprintln!("{:>6.1} s  {what}", began.elapsed().as_secs_f64());
    let cluster = Cluster::builder().hba("host all all 127.0.0.1/32 scram-sha-256").start().await;
    cluster.sql("CREATE DATABASE app").await;
    cluster.sql(&format!("ALTER ROLE postgres PASSWORD '{DBA}'")).await;
    let dba = cluster.client_of("app").await;
    dba.batch_execute(
        "CREATE TABLE app_event (id bigserial PRIMARY KEY, user_email text, user_id text, event_name text,
             created_at timestamptz NOT NULL DEFAULT now(), account_id text);
         CREATE TABLE usage_daily (id bigserial PRIMARY KEY, account_id text, seats int, day date);
         INSERT INTO app_event (user_email, user_id, event_name, account_id)
             SELECT 'u' || i || '@example.com', 'u' || i, 'login', 'acme' FROM generate_series(1, 300) i;
         INSERT INTO usage_daily (account_id, seats, day) SELECT 'acme', i, date '2024-01-01' + i FROM generate_series(1, 40) i",
    )
    .await
    .unwrap();
    let sim =
        Sim::start(SimOptions { tenants: vec![ConfigText::TENANT.to_owned()], ..SimOptions::default() }).await.unwrap();
    let (blocks, place, admin) = (blocks(), Scratch::new("walk"), Port::reserve());

    let of = |language: &str| {
        let found: Vec<&str> = blocks.iter().filter(|(of, _)| of == language).map(|(_, text)| &**text).collect();
        assert_eq!(found.len(), 1, "one {language} block");
        found[0].to_owned()
    };
    dba.batch_execute(&fill(&of("sql"), "'…'", &format!("'{}'", PASSWORD.replace('\'', "''")))).await.unwrap();
    let here = format!("host: 127.0.0.1, port: {}, tls: disable", cluster.port());
    let config = fill(&of("yaml"), "host: db.internal", &here);
    let config = fill(&config, "planhat: {", &format!("planhat: {{ url: \"{}\",", sim.url()));
    let config = format!("{config}\nadmin: {{ listen: \"127.0.0.1:{}\" }}\n", admin.number());
    let shell = Command::new("sh")
        .args(["-c", &session(&blocks, &config)])
        .current_dir(place.path())
        .process_group(0)
        .env_clear()
        .env("PATH", programs(place.path(), program))
        .env("HOME", place.path())
        .env("PGPORT", cluster.port().to_string())
        .env("PGSSLMODE", "disable")
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(place.path().join("out")).unwrap())
        .stderr(std::fs::File::create(place.path().join("err")).unwrap())
        .spawn()
        .unwrap();
    let read = |name: &str| std::fs::read_to_string(place.path().join(name)).unwrap_or_default();
    let shows = async |name: &str, text: &str| {
        let looked = || async { read(name).contains(text).then_some(()) };
        let found = tokio::time::timeout(PATIENCE, eventually(PATIENCE * 2, text, looked)).await;
        assert!(found.is_ok(), "{name} does not show {text:?}\n{}\n{}\n{}", read("out"), read("err"), read("run.err"));
    };
    said("the server is there, the first command is typed");
    shows("out", "public.app_event").await;
    said("discover has answered");
    shows("out", "ready to run").await;
    said("set up and checked");
    shows("out", "nothing was sent").await;
    said("previewed");
    shows("logs.out", "delivered").await;
    said("the ledger shows the first batch");
    shows("out", "sections:").await;
    let arrived = async |activities, metrics| {
        let all = |stats: &pg2planhat::testing::sim::Stats| {
            (stats.activities.items, stats.metrics.items) == (activities, metrics)
        };
        let found = sim.wait_for(all, PATIENCE).await;
        found.unwrap_or_else(|fault| panic!("{fault}\n{}\n{}", read("err"), read("run.err")));
    };
    arrived(300, 40).await;
    dba.batch_execute(
        "INSERT INTO app_event (user_email, user_id, event_name, account_id)
             SELECT 'u' || i || '@example.com', 'u' || i, 'login', 'acme' FROM generate_series(301, 310) i;
         INSERT INTO usage_daily (account_id, seats, day) VALUES ('acme', 41, '2024-03-01')",
    )
    .await
    .unwrap();
    arrived(310, 41).await;
    said("old rows and new ones are there");
    shows("status.out", "\nrunning\n").await;
    let mut users: Vec<String> = sim
        .items(SinkKind::Activity)
        .iter()
        .map(|item| item.item()["externalId"].as_str().unwrap().to_owned())
        .collect();
    users.sort();
    users.dedup();
    assert_eq!(users.len(), 310, "each row once");

    for name in ["run", "status", "logs"] {
        let process: i32 = read(&format!("{name}.pid")).trim().parse().unwrap();
        kill_process(Pid::from_raw(process).unwrap(), Signal::TERM).unwrap();
    }
    let shell = std::sync::Mutex::new(shell);
    let ended =
        eventually(PATIENCE, "the session to end", || async { shell.lock().unwrap().try_wait().unwrap() }).await;
    said("drained");
    assert!(ended.success(), "{ended}\n{}\n{}", read("err"), read("run.err"));
    assert!(read("run.err").contains("drained"), "{}", read("run.err"));
    assert!(!read("err").contains("error"), "{}", read("err"));
}
