//! `query`: it reads, and no known trick makes it do anything else.

use crate::harness::{App, Cluster, ConfigText, SectionText};

#[tokio::test]
async fn it_reads_within_bounds_and_nothing_else() {
    let cluster = Cluster::start().await;
    cluster
        .sql(
            "CREATE TABLE notes (id int PRIMARY KEY, note text);
             INSERT INTO notes SELECT i, 'note ' || i FROM generate_series(1, 50) i;
             INSERT INTO notes VALUES (51, NULL), (52, 'a,\"b\"');
             CREATE TABLE secrets (secret text); INSERT INTO secrets VALUES ('hidden');
             CREATE ROLE support NOLOGIN; GRANT SELECT ON notes TO support;
             CREATE VIEW trap AS SELECT set_config('role', 'none', true) AS x; GRANT SELECT ON trap TO support;
             CREATE FUNCTION writes() RETURNS int LANGUAGE plpgsql AS 'BEGIN INSERT INTO notes VALUES (99); RETURN 1; END';
             CREATE FUNCTION thaws() RETURNS int LANGUAGE plpgsql AS
                $$BEGIN SET TRANSACTION READ WRITE; INSERT INTO notes VALUES (99); RETURN 1; END$$;
             CREATE FUNCTION escapes() RETURNS text LANGUAGE plpgsql AS
                $$DECLARE found text; BEGIN EXECUTE 'RESET ROLE'; SELECT secret INTO found FROM secrets; RETURN found; END$$;
             CREATE FUNCTION hides() RETURNS text LANGUAGE sql STABLE AS 'SELECT escapes()';
             CREATE VIEW cover AS SELECT escapes() AS x; GRANT SELECT ON cover TO support;
             CREATE TABLE usage (id bigserial PRIMARY KEY, external_id text, value float8, at timestamptz);",
        )
        .await;
    let off = ConfigText::new(&cluster, "http://127.0.0.1:9").section(SectionText::metric("seats", "usage"));
    let output = App::command(&off, &["query", "SELECT 1"]).await;
    assert_eq!(output.code, 64);
    assert!(output.stderr.contains("query is off"), "{}", output.stderr);
    let config = off.clone().set("source.query_role", "support");
    let ask = async |arguments: &[&str]| App::command(&config, &[&["query"], arguments].concat()).await;

    let json =
        App::command(&config, &["--json", "query", "SELECT id, note FROM notes WHERE id >= 50 ORDER BY id"]).await;
    let expected = serde_json::json!({"columns": ["id", "note"],
        "rows": [["50", "note 50"], ["51", null], ["52", "a,\"b\""]], "truncated": false});
    assert_eq!(json.json(), expected);
    let csv = ask(&["--format", "csv", "-n", "2", "SELECT note FROM notes ORDER BY id DESC"]).await;
    assert_eq!(csv.stdout, "note\r\n\"a,\"\"b\"\"\"\r\n\r\n");
    assert!(csv.stderr.contains("not all of it: 2 rows are shown"), "{}", csv.stderr);
    let table = ask(&["TABLE notes"]).await;
    assert!(table.stdout.contains("(52 rows)"), "{}", table.stdout);
    assert!(ask(&["SHOW transaction_read_only"]).await.stdout.contains("on"));
    assert!(ask(&["EXPLAIN SELECT * FROM notes;"]).await.stdout.contains("Seq Scan"));

    let tricks = [
        "DELETE FROM notes",
        "DELETE FROM notes RETURNING id",
        "WITH gone AS (DELETE FROM notes RETURNING id) SELECT * FROM gone",
        "SELECT 1; DELETE FROM notes",
        "SELECT 1 /* */; -- \n COMMIT; DELETE FROM notes",
        "COMMIT",
        "SET TRANSACTION READ WRITE",
        "RESET ROLE",
        "SET ROLE postgres",
        "DO $$ BEGIN DELETE FROM notes; END $$",
        "COPY notes TO '/tmp/pg2planhat_stolen'",
        "COPY (SELECT 1) TO PROGRAM 'touch /tmp/pg2planhat_stolen'",
        "SELECT 1) TO PROGRAM 'touch /tmp/pg2planhat_stolen' --",
        "SELECT set_config('transaction_read_only', 'off', true)",
        "SELECT \"set_config\" ('role', 'none', true), secret FROM secrets",
        "SELECT U&\"\\0073et_config\"('role', 'none', true)",
        "SELECT * FROM trap",
        "SELECT query_to_xml('SELECT * FROM secrets', true, true, '')",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity",
        "SELECT pg_drop_replication_slot('pg2planhat')",
        "SELECT lo_import('/etc/passwd')",
        "SELECT * INTO stolen FROM notes",
        "CREATE TABLE stolen AS SELECT 1",
        "EXPLAIN ANALYZE DELETE FROM notes",
        "SELECT writes()",
        "SELECT thaws()",
        "SELECT escapes()",
        "SELECT public.\"escapes\" ()",
        "SELECT hides()",
        "SELECT * FROM cover",
        "SELECT * FROM escapes() AS e",
        "SELECT * FROM secrets",
        "SELECT * FROM notes FOR UPDATE",
        "SELECT nextval('usage_id_seq')",
        "SELECT setval('usage_id_seq', 1)",
        "COPY notes FROM '/etc/passwd'",
        "COPY notes FROM PROGRAM 'id'",
        "SELECT pg_ls_dir('.')",
        "SELECT lo_export(1, '/tmp/pg2planhat_stolen')",
        "SELECT lo_from_bytea(0, 'x')",
        "SELECT * FROM dblink('host=127.0.0.1', 'DELETE FROM notes') AS t (a int)",
        "SELECT pg_sleep(3600)",
        "SELECT pg_advisory_lock(1)",
        "SELECT pg_logical_emit_message(true, 'a', 'b')",
        "SELECT pg_replication_slot_advance('pg2planhat', '0/1')",
        "SELECT * FROM pg_logical_slot_get_changes('pg2planhat', NULL, NULL)",
        "SELECT * FROM notes FOR SHARE",
        "EXPLAIN ANALYZE SELECT * FROM trap",
        "EXPLAIN (ANALYZE) SELECT thaws()",
        "SELECT 1) AS asked (c1); DELETE FROM notes; SELECT (1",
        "SELECT 1) AS asked (c1) --",
        "SELECT $1",
        "PREPARE x AS SELECT 1",
        "EXECUTE x",
        "DECLARE c CURSOR FOR SELECT 1",
        "FETCH ALL FROM pg2planhat_console",
        "SET LOCAL statement_timeout = 0",
        "BEGIN",
        "ROLLBACK; BEGIN READ WRITE",
        "SAVEPOINT a",
        "ROLLBACK TO fence",
        "CALL writes()",
        "REFRESH MATERIALIZED VIEW x",
        "LOCK TABLE notes",
        "NOTIFY x",
        "LISTEN x",
        "VACUUM",
        "",
        "-- nothing",
    ];
    for sql in tricks {
        let output = ask(&["--", sql]).await;
        assert_eq!((output.code, output.stdout.as_str()), (64, ""), "{sql}: {}", output.stderr);
        assert_eq!(output.stderr.lines().count(), 2, "{sql}: {}", output.stderr);
    }
    assert_eq!(cluster.number("SELECT count(*) FROM notes").await, 52);
    assert!(!std::path::Path::new("/tmp/pg2planhat_stolen").exists());

    let long = "SELECT count(*) FROM generate_series(1, 10000000000) a";
    let output = ask(&["--timeout", "200ms", long]).await;
    assert_eq!(output.code, 69, "{}", output.stderr);

    for (sql, shown) in [
        ("VALUES (1, 'a'), (2, NULL)", "[[\"1\",\"a\"],[\"2\",null]]"),
        ("TABLE notes LIMIT 1;  -- the end", "[[\"1\",\"note 1\"]]"),
        ("WITH n AS (SELECT id FROM notes) SELECT max(id) FROM n", "[[\"52\"]]"),
        (
            "SELECT true, NULL, '', 'a  '::char(4), inet '10.0.0.1', ARRAY[1,2], ROW(1, NULL), 1 AS x, 2 AS x",
            "[[\"t\",null,\"\",\"a   \",\"10.0.0.1\",\"{1,2}\",\"(1,)\",\"1\",\"2\"]]",
        ),
        ("SELECT id FROM notes ORDER BY id DESC LIMIT 2", "[[\"52\"],[\"51\"]]"),
        ("SHOW search_path", "[[\"public\"]]"),
        ("SELECT current_user", "[[\"support\"]]"),
    ] {
        let output = App::command(&config, &["--json", "query", "--", sql]).await;
        assert_eq!(output.code, 0, "{sql}: {}", output.stderr);
        assert_eq!(output.json()["rows"].to_string(), shown, "{sql}");
    }

    // As the connection's own role, a superuser's here: the guard and the transaction alone must hold.
    for sql in ["SELECT writes()", "SELECT thaws()", "SELECT pg_read_file('/etc/passwd')", "SELECT * FROM trap"] {
        let output = App::command(&off, &["query", "--allow-source-role", sql]).await;
        assert_eq!(output.code, 64, "{sql}: {} {}", output.stdout, output.stderr);
    }
    assert_eq!(cluster.number("SELECT count(*) FROM notes").await, 52);
}

/// Values are cut by the server: what a gigabyte would take never comes here.
#[tokio::test]
async fn a_huge_value_is_cut_and_memory_stays_bounded() {
    let cluster = Cluster::start().await;
    cluster
        .sql(
            "CREATE TABLE huge (id int, body text);
             INSERT INTO huge SELECT g, repeat('0123456789abcdef', 2000000) FROM generate_series(1, 12) g",
        )
        .await;
    let config = ConfigText::new(&cluster, "http://127.0.0.1:9");
    let ask = ["--json", "query", "--allow-source-role", "SELECT body, id FROM huge"];
    let app = App::launch(&config).arguments(&ask).start();
    let mut peak = 0;
    while app.is_running() {
        let status = std::fs::read_to_string(format!("/proc/{}/status", app.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:").map(str::to_owned));
        let now = line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok());
        peak = peak.max(now.unwrap_or(0));
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert!(peak > 0 && peak < 200 * 1024, "{peak} KiB for 384 MB of values");
    assert_eq!(app.wait_exit(std::time::Duration::from_secs(10)).await, 0, "{}", app.log());
    app.wait_out("\"truncated\": true").await;
    let people = App::command(
        &config,
        &["query", "--allow-source-role", "--format", "csv", "SELECT body FROM huge WHERE id = 1"],
    )
    .await;
    assert_eq!(people.stdout.chars().count(), "body\r\n".len() + (1 << 20) + "…\r\n".chars().count());
    assert!(people.stderr.contains("1,048,576 characters"), "{}", people.stderr);
    // What is narrow stands in a table, what is wide in blocks; the columns' names are the query's own.
    let narrow = App::command(
        &config,
        &["query", "--allow-source-role", "SELECT id AS \"Id\" FROM huge WHERE id < 3 ORDER BY 1"],
    )
    .await;
    assert_eq!(narrow.stdout, "Id\n 1\n 2\n(2 rows)\n");
    let wide =
        App::command(&config, &["query", "--allow-source-role", "SELECT repeat('x', 90) AS a, 1 AS \"bB\""]).await;
    assert_eq!(wide.stdout, format!("-[ row 1 ]-\na   {}\nbB  1\n(1 row)\n", "x".repeat(90)));
}
