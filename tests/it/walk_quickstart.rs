//! The walks by the quick start and by the README's short form, with the program as it is built for tests. `tests/dist` walks with
//! what is released.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pg2planhat::testing::sim::{Sim, SimOptions};
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::port::Port;
use crate::harness::scratch::Scratch;
use crate::harness::{Cluster, ConfigText, eventually};
use crate::walk_scene::{fill, programs, walk};

const PROGRAM: &str = env!("CARGO_BIN_EXE_pg2planhat");

#[tokio::test]
async fn walk_from_an_empty_database_to_flowing_rows_by_the_quick_start_needs_psql() {
    walk(PROGRAM.as_ref()).await;
}

/// A shell with these commands, at a server that it knows by libpq's variables alone.
fn shell(place: &Path, path: &str, cluster: &Cluster, script: &str) -> Child {
    let output = |name: &str| std::fs::File::create(place.join(name)).unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-euc", script]).current_dir(place).env_clear().env("PATH", path).env("HOME", place);
    shell.env("PGPORT", cluster.port().to_string()).env("PGSSLMODE", "disable");
    shell.stdin(Stdio::null()).stdout(output("out")).stderr(output("err")).spawn().unwrap()
}

/// The commands of README.md, of which the last one runs until it is told to end.
fn script_of_the_readme(cluster: &Cluster, sink: &str, admin: &Port) -> String {
    let part = include_str!("../../README.md").split("\n## Your own database").nth(1).unwrap();
    let block = part.split("```sh\n").nth(1).unwrap().split("```").next().unwrap();
    let commands: Vec<&str> = block.lines().map(|line| line.split("  #").next().unwrap().trim_end()).collect();
    // The browser's way has tests of its own.
    assert_eq!((commands[0], commands[commands.len() - 1]), ("pg2planhat ui", "pg2planhat run"));
    let script = format!("{}\n", commands[1..].join("\n"));
    let script = fill(&script, "PGHOST=db.internal", "PGHOST=127.0.0.1");
    let script = fill(&script, "PGPASSWORD=…", "PGPASSWORD=x");
    let script = fill(&script, "TENANT_UUID=…", &format!("TENANT_UUID={}", ConfigText::TENANT));
    let here = format!("planhat: {{ url: \"{sink}\",");
    let script = fill(&script, "echo 'planhat: {", &format!("echo '{here}"));
    let admin = format!("UUID }} }}\nadmin: {{ listen: \"127.0.0.1:{}\" }}'", admin.number());
    let script = fill(&script, "UUID } }'", &admin);
    let dba = format!("psql -qX -v ON_ERROR_STOP=1 -U postgres -h 127.0.0.1 -p {} -d app -f setup.sql", cluster.port());
    let script = fill(&script, "--print-sql\n", &format!("--print-sql > setup.sql\n{dba}\n"));
    fill(&script, "pg2planhat run\n", "exec pg2planhat run\n")
}

#[tokio::test]
async fn walk_from_a_role_that_only_reads_to_flowing_rows_by_the_readme_needs_psql() {
    let cluster = Cluster::start().await;
    cluster.sql("CREATE DATABASE app").await;
    let dba = cluster.client_of("app").await;
    dba.batch_execute(
        "CREATE TABLE app_event (id bigserial PRIMARY KEY, user_email text, user_id text, event_name text,
             created_at timestamptz NOT NULL DEFAULT now(), account_id text);
         INSERT INTO app_event (user_email, user_id, event_name, account_id)
             SELECT 'u' || i || '@example.com', 'u' || i, 'login', 'acme' FROM generate_series(1, 300) i;
         CREATE ROLE pg2planhat LOGIN; GRANT SELECT ON app_event TO pg2planhat",
    )
    .await
    .unwrap();
    let sim =
        Sim::start(SimOptions { tenants: vec![ConfigText::TENANT.to_owned()], ..SimOptions::default() }).await.unwrap();
    let (place, admin) = (Scratch::new("readme"), Port::reserve());
    let path = programs(place.path(), PROGRAM.as_ref());
    let read = |name: &str| std::fs::read_to_string(place.path().join(name)).unwrap_or_default();

    // A server without TLS, before there is a file that could say so.
    let script = "export PGHOST=127.0.0.1 PGDATABASE=app PGUSER=pg2planhat PGSSLMODE=verify-full; pg2planhat discover";
    let refused = shell(place.path(), &path, &cluster, script).wait().unwrap();
    assert!(!refused.success() && read("err").contains("PGSSLMODE=disable"), "{}", read("err"));

    let mut session = shell(place.path(), &path, &cluster, &script_of_the_readme(&cluster, &sim.url(), &admin));
    let limit = Duration::from_secs(40);
    let found = sim.wait_for(|stats| stats.activities.items == 300, limit).await;
    found.unwrap_or_else(|fault| panic!("{fault}\n{}\n{}", read("out"), read("err")));
    let said = read("out");
    for words in ["public.app_event", "ready to run", "nothing was sent"] {
        assert!(said.contains(words), "{words} is not in\n{said}");
    }
    dba.batch_execute("INSERT INTO app_event (user_email, event_name) VALUES ('new@example.com', 'login')")
        .await
        .unwrap();
    sim.wait_for(|stats| stats.activities.items == 301, limit).await.unwrap();
    // The shell has become the program.
    kill_process(Pid::from_child(&session), Signal::TERM).unwrap();
    let session = std::sync::Mutex::new(&mut session);
    let ended = eventually(limit, "the end", || async { session.lock().unwrap().try_wait().unwrap() }).await;
    assert!(ended.success(), "{ended}\n{}", read("err"));
}
