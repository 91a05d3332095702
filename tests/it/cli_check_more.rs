//! `check`, further: what stands between (a pooler, a page), what was recorded and is not so any more, and what the rows
//! themselves tell.

use std::process::{Command, Stdio};
use std::time::Duration;

use pg2planhat::testing::sim::{Sim, SimOptions};

use crate::cli_check::{check, expect};
use crate::cli_ops_look::{insert, json, stage, stop, wait_items};
use crate::harness::port::Port;
use crate::harness::scratch::{Scratch, server_user};
use crate::harness::{App, Cluster, ConfigText, SectionText, Version, eventually};

#[tokio::test]
async fn case_17_a_standby_is_named() {
    let cluster = Cluster::start().await;
    cluster.sql(&SectionText::metric_table("usage")).await;
    let standby = cluster.standby().await;
    let config = ConfigText::new(&cluster, "http://127.0.0.1:9").section(SectionText::metric("seats", "usage"));
    let there = || async { standby.try_sql("SELECT id FROM usage").await.ok() };
    eventually(Duration::from_secs(20), "the table at the standby", there).await;
    let (code, found) = check(&config.through(standby.port())).await;
    assert_eq!(code, 1);
    expect(&found, "standby", "error", "target_session_attrs=read-write");
    expect(&found, "sink_unreachable", "error", "planhat.url");
}

/// A PgBouncer in front of the cluster.
fn pgbouncer(cluster: &Cluster) -> (std::process::Child, Port, Scratch) {
    let program = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/usr/local/bin/pgbouncer"]
        .into_iter()
        .find(|path| std::path::Path::new(path).exists())
        .expect("PgBouncer (Debian's package of that name)");
    let (port, place) = (Port::reserve(), Scratch::new("pooler"));
    let file = place.path().join("pgbouncer.ini");
    let text = format!(
        "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {}\n\
         unix_socket_dir =\nauth_type = any\n",
        cluster.port(),
        port.number()
    );
    // With `any` every client is the server's superuser, so the entry names him.
    std::fs::write(&file, text.replace("port=", "user=postgres port=")).unwrap();
    let user = server_user();
    user.own(place.path());
    user.own(&file);
    let mut command = Command::new(program);
    user.apply(&mut command);
    let child = command.arg(&file).current_dir(place.path()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    (child.unwrap(), port, place)
}

#[tokio::test]
async fn case_17_a_pooler_in_the_way_is_named_needs_pgbouncer() {
    let cluster = Cluster::start().await;
    cluster.sql(&SectionText::metric_table("usage")).await;
    let (mut pooler, port, place) = pgbouncer(&cluster);
    let listens = || async { tokio::net::TcpStream::connect(("127.0.0.1", port.number())).await.ok().map(drop) };
    eventually(Duration::from_secs(20), "pgbouncer to listen", listens).await;
    let config = ConfigText::new(&cluster, "http://127.0.0.1:9").section(SectionText::metric("seats", "usage"));
    let (code, found) = check(&config.through(port.number())).await;
    pooler.kill().unwrap();
    pooler.wait().unwrap();
    drop(place);
    assert_eq!(code, 1, "{found:?}");
    expect(&found, "pooler", "error", "source.port");
}

#[tokio::test]
async fn case_17_settings_that_harm_are_named_with_their_remedy() {
    let cluster = Cluster::builder().setting("synchronous_standby_names", "FIRST 1 (*)").start().await;
    // The set-up of this test must not wait for the standby that there is not.
    cluster.sql("SET synchronous_commit = local; CREATE TABLE usage (id bigserial PRIMARY KEY, external_id text, value float8, at timestamptz)").await;
    let config = ConfigText::new(&cluster, "http://127.0.0.1:9").section(SectionText::metric("seats", "usage"));
    let (code, found) = check(&config).await;
    assert_eq!(code, 1);
    expect(&found, "synchronous_stream", "error", "ALTER SYSTEM SET synchronous_standby_names = ");
    cluster.set("synchronous_standby_names", "somebody_else").await;
    let (_, found) = check(&config).await;
    assert!(!found.contains_key("synchronous_stream"), "{found:?}");
    expect(&found, "synchronous_standby", "info", "");
    cluster.set("synchronous_standby_names", "").await;
    // A managed server's own name for it: the role that only that provider makes tells.
    cluster.sql("CREATE ROLE rds_superuser; CREATE ROLE plain LOGIN; GRANT SELECT ON usage TO plain").await;
    let (_, found) = check(&config.set("source.user", "plain")).await;
    expect(&found, "slot_wal_unbounded", "warning", "parameter group");
}

#[tokio::test]
async fn case_17_keys_partitions_and_types_that_do_not_fit_are_named() {
    let cluster = Cluster::start().await;
    cluster
        .sql(
            "CREATE TABLE by_text (id text PRIMARY KEY, external_id text, value float8, at timestamptz);
             CREATE TABLE loose (id bigint NOT NULL, external_id text, value float8, at timestamptz);
             CREATE TABLE typed (id bigserial PRIMARY KEY, external_id text, value bool, at jsonb);
             CREATE TABLE parts (id bigint NOT NULL, external_id text, value float8, at timestamptz NOT NULL)
                 PARTITION BY RANGE (id);
             CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (1000);
             CREATE UNIQUE INDEX ON parts (id);
             CREATE PUBLICATION direct FOR TABLE parts WITH (publish = 'insert');
             CREATE PUBLICATION rooted FOR TABLE parts WITH (publish = 'insert', publish_via_partition_root = true)",
        )
        .await;
    let metric = |name: &str| SectionText::metric(name, name);
    let config = ConfigText::new(&cluster, "http://127.0.0.1:9");
    let all = config.clone().section(metric("by_text")).section(metric("loose")).section(metric("typed"));
    let (code, found) = check(&all).await;
    assert_eq!(code, 1);
    assert!(!found["column_type"].iter().any(|one| one.to_string().contains("by_text")), "any unique type is a key");
    expect(&found, "column_type", "error", "section typed, set value to");
    expect(&found, "column_type", "error", "section typed, set date to");
    expect(&found, "key_not_unique", "error", "CREATE UNIQUE INDEX CONCURRENTLY ON \"public\".\"loose\" (\"id\")");
    expect(&found, "key_index", "warning", "\"loose\"");
    let parts = config.section(metric("parts"));
    let (_, found) = check(&parts.clone().set("source.publication", "direct")).await;
    expect(&found, "publication_via_root", "error", "SET (publish_via_partition_root = true)");
    let (_, found) = check(&parts.set("source.publication", "rooted")).await;
    assert!(!found.contains_key("publication_via_root"), "{found:?}");
    expect(&found, "publication", "ok", "");
    expect(&found, "table_partitioned", "info", "");
}

#[tokio::test]
async fn the_newest_rows_are_tried() {
    let cluster = Cluster::start().await;
    let sim = Sim::start(SimOptions::default()).await.unwrap();
    cluster
        .sql(
            "CREATE TABLE usage (id bigserial PRIMARY KEY, name text, external_id text, value float8, at timestamptz DEFAULT now());
             INSERT INTO usage (name, external_id, value) VALUES ('seats used', 'a', 1), ('seats', 'a', 'NaN'), ('seats', NULL, 2)",
        )
        .await;
    let section = SectionText::metric("seats", "usage").field("dimensionId", "name");
    let config = ConfigText::new(&cluster, &sim.url()).section(section);
    let (code, found) = check(&config).await;
    assert_eq!(code, 1);
    expect(&found, "dimension_id", "error", "letters, digits");
    expect(&found, "rows_refused", "warning", "pg2planhat preview seats");
    let message = found["rows_refused"][0]["message"].as_str().unwrap();
    assert!(message.contains("of the newest 3 rows 2 would go into quarantine"), "{message}");
    cluster.sql("DELETE FROM usage WHERE id <> 2; UPDATE usage SET value = 1").await;
    let (code, found) = check(&config).await;
    assert_eq!(code, 0, "{found:?}");
}

/// Answers every request with this.
async fn answering(answer: &'static str) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            if stream.read(&mut request).await.is_ok_and(|bytes| bytes > 0) {
                stream.write_all(answer.as_bytes()).await.ok();
            }
        }
    });
    url
}

#[tokio::test]
async fn case_46_whoever_answers_in_planhats_place_is_named() {
    let cluster = Cluster::start().await;
    cluster.sql(&SectionText::metric_table("usage")).await;
    let page = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 21\r\nconnection: close\r\n\r\n<html>log in</html>\r\n";
    let away = "HTTP/1.1 302 Found\r\nlocation: https://portal.example/login?token=secret\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let later = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    for (answer, code, severity) in
        [(page, "sink_page", "error"), (away, "sink_redirect", "error"), (later, "sink_failing", "warning")]
    {
        let config = ConfigText::new(&cluster, &answering(answer).await).section(SectionText::metric("seats", "usage"));
        let (_, found) = check(&config).await;
        expect(&found, code, severity, "");
        assert!(!format!("{found:?}").contains("secret"), "{found:?}");
    }
}

#[tokio::test]
async fn what_was_recorded_and_is_not_so_any_more_is_named_and_not_made_in_silence() {
    let (cluster, sim, config) = stage().await;
    let app = App::run(&config);
    wait_items(&sim, 100).await;
    app.wait_status("the stream", |status| (status["sections"][0]["state"] == "streaming").then_some(())).await;
    let known = "SELECT count(*) FROM pg2planhat.instance WHERE xmin_floor IS NOT NULL";
    let floor = || async { (cluster.number(known).await == 1).then_some(()) };
    eventually(Duration::from_secs(30), "an xmin floor", floor).await;
    let (code, found) = check(&config).await;
    assert_eq!(code, 0, "{found:?}");
    expect(&found, "slot_active", "info", "");
    stop(&app).await;
    json(&config, &["pause", "logins"]).await;
    let (_, found) = check(&config).await;
    expect(&found, "section_paused", "warning", "pg2planhat resume logins");
    json(&config, &["resume", "logins"]).await;

    // Taken out of the publication while nothing runs: what is written now the server skips.
    cluster.sql("ALTER PUBLICATION pg2planhat DROP TABLE app_event").await;
    insert(&cluster, 5).await;
    let (code, found) = check(&config).await;
    assert_eq!(code, 1);
    expect(&found, "publication_drift", "error", "repair --gap");
    assert!(!found.contains_key("publication_tables"), "it would be put back in silence: {found:?}");
    let refused = App::command(&config, &["setup"]).await;
    assert!(refused.code == 75 && refused.stderr.contains("skipped in silence"), "{refused:?}");
    // Nor does a new section bring it back at the next start.
    cluster.sql(&SectionText::metric_table("usage")).await;
    let both = config.clone().section(SectionText::metric("seats", "usage"));
    let app = App::run(&both);
    let halted = |status: &serde_json::Value| (status["sections"][0]["state"] == "halted").then_some(());
    app.wait_status("the section to halt", halted).await;
    assert_eq!(cluster.number("SELECT count(*) FROM pg_publication_tables WHERE tablename = 'app_event'").await, 0);
    stop(&app).await;
    let repaired = json(&both, &["repair", "--gap", "--yes"]).await;
    assert_eq!(repaired["repaired"]["sections"][0]["section"], "logins", "{repaired}");
    let app = App::run(&both);
    let books = |stats: &pg2planhat::testing::sim::Stats| stats.activities.items >= 105;
    sim.wait_for(books, Duration::from_secs(30)).await.unwrap_or_else(|fault| panic!("{fault}\n{}", app.log()));
    insert(&cluster, 1).await;
    let received = || async { (crate::cli_ops_look::received(&sim).len() == 106).then_some(()) };
    eventually(Duration::from_secs(30), "every row", received).await;
    stop(&app).await;

    cluster.sql("SELECT pg_drop_replication_slot('pg2planhat')").await;
    let (code, found) = check(&both).await;
    assert_eq!(code, 1);
    expect(&found, "slot_missing", "error", "repair --gap");
    let refused = App::command(&both, &["setup"]).await;
    assert!(refused.code == 75 && refused.stderr.contains("is gone"), "{refused:?}");
    assert_eq!(cluster.number("SELECT count(*) FROM pg_replication_slots").await, 0, "made in silence");
}

#[tokio::test]
async fn case_77_a_table_that_is_emptied_and_filled_anew_is_named() {
    for version in Version::asked() {
        let Some(cluster) = Cluster::builder().version(version).start_or_skip().await else { continue };
        for table in ["nightly", "purged"] {
            cluster.sql(&SectionText::metric_table(table)).await;
            let delete = if table == "nightly" { "TRUNCATE nightly RESTART IDENTITY" } else { "DELETE FROM purged" };
            for _ in 0..4 {
                cluster.sql(delete).await;
                let fill =
                    format!("INSERT INTO {table} (external_id, value) SELECT 'c', g FROM generate_series(1, 100) g");
                cluster.sql(&fill).await;
            }
        }
        let config = ConfigText::new(&cluster, "http://127.0.0.1:9")
            .section(SectionText::metric("nightly", "nightly"))
            .section(SectionText::metric("purged", "purged"));
        let counted = || async {
            let sql = "SELECT count(*) FROM pg_stat_user_tables WHERE n_tup_ins >= 400";
            (cluster.number(sql).await == 2).then_some(())
        };
        eventually(Duration::from_secs(30), "the statistics", counted).await;
        let checked = App::command(&config, &["--json", "check"]).await.json();
        let named: Vec<&str> = checked["findings"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|finding| finding["code"] == "table_replaced")
            .map(|finding| finding["subject"].as_str().unwrap())
            .collect();
        assert_eq!(named, ["table public.nightly"], "{version}: {checked}");
    }
}
