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
    assert!(csv.stderr.contains("more rows"), "{}", csv.stderr);
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
        "SELECT * FROM secrets",
        "SELECT * FROM notes FOR UPDATE",
        "SELECT nextval('usage_id_seq')",
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

    // As the connection's own role, a superuser's here: the guard and the transaction alone must hold.
    for sql in ["SELECT writes()", "SELECT thaws()", "SELECT pg_read_file('/etc/passwd')", "SELECT * FROM trap"] {
        let output = App::command(&off, &["query", "--allow-source-role", sql]).await;
        assert_eq!(output.code, 64, "{sql}: {} {}", output.stdout, output.stderr);
    }
    assert_eq!(cluster.number("SELECT count(*) FROM notes").await, 52);
}
