//! `query`: it reads by a login of its own, whose rights are the boundary, and `check` proves them.

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
             CREATE ROLE support LOGIN; GRANT SELECT ON notes TO support;
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
    assert!(output.stderr.contains("query is off") && output.stderr.contains("reader: {"), "{}", output.stderr);
    let output = App::command(&off, &["query", "--allow-source-role", "SELECT 1"]).await;
    assert!(output.code == 64 && output.stderr.contains("reader: {"), "{}", output.stderr);
    let old = off.clone().set("source.query_role", "support");
    let output = App::command(&old, &["query", "SELECT 1"]).await;
    assert!(
        output.code == 64 && output.stderr.contains("query_role") && output.stderr.contains("reader: {"),
        "{output:?}"
    );
    let output = App::command(&off, &["query", "--timeout", "2h", "SELECT 1"]).await;
    assert!(output.code == 64 && output.stderr.contains("1h at most"), "{output:?}");
    let config = off.clone().set("source.reader", "{ user: support }");
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
        "SELECT query_to_xml('SELECT * FROM secrets', true, true, '')",
        "SELECT pg_read_file('/etc/passwd')",
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
        "EXPLAIN --\rANALYZE SELECT set_config('role', 'none', true), pg_drop_replication_slot('pg2planhat')",
        "COPY notes FROM '/etc/passwd'",
        "COPY notes FROM PROGRAM 'id'",
        "SELECT pg_ls_dir('.')",
        "SELECT lo_export(1, '/tmp/pg2planhat_stolen')",
        "SELECT * FROM dblink('host=127.0.0.1', 'DELETE FROM notes') AS t (a int)",
        "SELECT pg_replication_slot_advance('pg2planhat', '0/1')",
        "SELECT * FROM pg_logical_slot_get_changes('pg2planhat', NULL, NULL)",
        "SELECT * FROM notes FOR SHARE",
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
    cluster.sql("CREATE ROLE support LOGIN; GRANT SELECT ON huge TO support").await;
    let config = ConfigText::new(&cluster, "http://127.0.0.1:9").set("source.reader", "{ user: support }");
    let ask = ["--json", "query", "SELECT body, id FROM huge"];
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
    let people = App::command(&config, &["query", "--format", "csv", "SELECT body FROM huge WHERE id = 1"]).await;
    assert_eq!(people.stdout.chars().count(), "body\r\n".len() + (1 << 20) + "…\r\n".chars().count());
    assert!(people.stderr.contains("1,048,576 characters"), "{}", people.stderr);
    // What is narrow stands in a table, what is wide in blocks; the columns' names are the query's own.
    let narrow = App::command(&config, &["query", "SELECT id AS \"Id\" FROM huge WHERE id < 3 ORDER BY 1"]).await;
    assert_eq!(narrow.stdout, "Id\n 1\n 2\n(2 rows)\n");
    let wide = App::command(&config, &["query", "SELECT repeat('x', 90) AS a, 1 AS \"bB\""]).await;
    assert_eq!(wide.stdout, format!("-[ row 1 ]-\na   {}\nbB  1\n(1 row)\n", "x".repeat(90)));
}

/// What the planner folds is no value that could be cut: the message itself is bounded. So are rows of nothing.
#[tokio::test]
async fn case_102_what_explain_writes_and_rows_of_null_are_bounded() {
    let cluster = Cluster::start().await;
    cluster.sql("CREATE ROLE support LOGIN").await;
    let config = ConfigText::new(&cluster, "http://127.0.0.1:9").set("source.reader", "{ user: support }");
    let peak = async |arguments: &[&str]| {
        let app = App::launch(&config).arguments(arguments).start();
        let mut peak = 0;
        while app.is_running() {
            let status = std::fs::read_to_string(format!("/proc/{}/status", app.id())).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:").map(str::to_owned));
            let now = line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok());
            peak = peak.max(now.unwrap_or(0));
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        (peak, app.wait_exit(std::time::Duration::from_secs(10)).await, app.log())
    };
    let (memory, code, log) = peak(&["query", "EXPLAIN VERBOSE SELECT repeat('x', 300000000)"]).await;
    assert!(memory < 100 * 1024 && code == 64 && log.contains("ask for less"), "{memory} KiB, {code}: {log}");
    let nulls = "SELECT NULL FROM generate_series(1, 20000000)";
    let (memory, code, log) = peak(&["query", "-n", "20000000", "--format", "csv", nulls]).await;
    assert!(memory < 150 * 1024 && code == 0 && log.contains("not all of it"), "{memory} KiB, {code}: {log}");
}

/// The login is proven, right by right, and each finding's own remedy mends it.
#[tokio::test]
async fn case_101_check_proves_that_the_reader_can_neither_write_nor_replicate() {
    let cluster = Cluster::start().await;
    cluster
        .sql(
            "CREATE TABLE notes (id int PRIMARY KEY, note text); CREATE SEQUENCE numbers; CREATE TABLE mine (id int);
             CREATE ROLE writers; CREATE ROLE support LOGIN; GRANT SELECT ON notes TO support;
             REVOKE CREATE ON SCHEMA public FROM PUBLIC; REVOKE TEMPORARY ON DATABASE postgres FROM PUBLIC",
        )
        .await;
    cluster.sql("CREATE TABLE usage (id bigserial PRIMARY KEY, external_id text, value float8, at timestamptz)").await;
    let config = ConfigText::new(&cluster, "http://127.0.0.1:9")
        .set("source.reader", "{ user: support }")
        .section(SectionText::metric("seats", "usage"));
    let findings = async || {
        let output = App::command(&config, &["--json", "check"]).await;
        let all = output.json()["findings"].as_array().unwrap().clone();
        let of = |finding: &serde_json::Value| finding["subject"] == "reader support";
        all.into_iter().filter(of).collect::<Vec<_>>()
    };
    let clean = findings().await;
    assert!(clean.len() == 1 && clean[0]["severity"] == "ok", "{clean:?}");
    for (right, code) in [
        ("ALTER ROLE support SUPERUSER", "reader_superuser"),
        ("ALTER ROLE support REPLICATION", "reader_replicates"),
        ("ALTER ROLE support BYPASSRLS", "reader_bypasses_rls"),
        ("ALTER ROLE support CREATEROLE", "reader_makes_roles"),
        ("ALTER ROLE support CREATEDB", "reader_makes_databases"),
        ("GRANT INSERT ON notes TO support", "reader_writes"),
        ("GRANT UPDATE (note) ON notes TO support", "reader_writes"),
        ("GRANT DELETE ON notes TO PUBLIC", "reader_writes"),
        ("GRANT TRUNCATE ON notes TO writers; GRANT writers TO support", "reader_writes"),
        ("ALTER TABLE mine OWNER TO support", "reader_writes"),
        ("GRANT USAGE ON SEQUENCE numbers TO support", "reader_sequences"),
        ("GRANT CREATE ON SCHEMA public TO support", "reader_creates"),
        ("GRANT CREATE ON DATABASE postgres TO support", "reader_creates"),
        ("GRANT TEMPORARY ON DATABASE postgres TO support", "reader_temporary"),
        ("GRANT pg_write_all_data TO support", "reader_membership"),
        ("GRANT pg_signal_backend TO support", "reader_membership"),
        ("ALTER ROLE writers REPLICATION; GRANT writers TO support", "reader_replicates"),
    ] {
        cluster.sql(right).await;
        let found = findings().await;
        let errors: Vec<_> = found.iter().filter(|finding| finding["severity"] == "error").collect();
        assert!(errors.iter().any(|finding| finding["code"] == code), "{right}: {found:?}");
        for error in errors {
            cluster.sql(error["remedy"].as_str().unwrap()).await;
        }
        cluster.sql("REVOKE writers FROM support").await;
        let left = findings().await;
        assert!(left.len() == 1 && left[0]["severity"] == "ok", "{right}: {left:?}");
    }
    // What everybody may by default is said, and is no error: to take it away could harm the application.
    cluster.sql("GRANT TEMPORARY ON DATABASE postgres TO PUBLIC").await;
    let found = findings().await;
    assert!(found.iter().any(|finding| finding["code"] == "reader_temporary" && finding["severity"] == "warning"));
}

/// The DBA's script makes the login, whatever it is called, and with it alone `query` works and `check` is content.
#[tokio::test]
async fn case_101_104_the_script_makes_the_reader_whatever_its_name() {
    let cluster = Cluster::start().await;
    cluster.sql("CREATE TABLE notes (id bigserial PRIMARY KEY, external_id text, value float8, at timestamptz)").await;
    cluster.sql("INSERT INTO notes (value) VALUES (7)").await;
    let name = "o'brien $$ \"x\" \\ y";
    let config = ConfigText::new(&cluster, "http://127.0.0.1:9")
        .set("source.reader", format!("{{ user: '{}' }}", name.replace('\'', "''")))
        .section(SectionText::metric("seats", "notes"));
    let script = App::command(&config, &["setup", "--print-sql"]).await.stdout;
    // The rest of it is psql's, and is run elsewhere.
    let from = script.find("-- The login of").unwrap();
    let part = &script[from..][..script[from..].find("-- 2.").unwrap()];
    cluster.sql(part).await;
    let output = App::command(&config, &["--json", "query", "SELECT value, current_user FROM notes"]).await;
    assert_eq!(output.json()["rows"], serde_json::json!([["7", name]]), "{output:?}");
    let check = App::command(&config, &["--json", "check"]).await.json();
    let findings = check["findings"].as_array().unwrap().clone();
    let reader = |finding: &&serde_json::Value| finding["subject"] == format!("reader {name}");
    assert!(findings.iter().filter(reader).all(|finding| finding["severity"] != "error"), "{findings:?}");
}
