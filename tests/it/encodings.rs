//! Databases that are not in UTF-8 (FAULTS 99): each row is itself, and a byte without a character is one row's fault.

use pg2planhat::testing::sim::SinkKind;

use crate::harness::{App, Cluster, ConfigText, SectionText, eventually};
use crate::main_job_oracle::{PATIENCE, arrived, section_is, sink, sorted, text};

/// Keys as text, columns and values beyond ASCII, and bytes that WIN1252 has no character for (`chr(129)`), in older rows
/// and in streamed ones, by three ways of reading: the backfill, the stream, a comparison.
#[tokio::test]
async fn case_99_a_byte_without_a_character_is_one_rows_fault() {
    let (cluster, sim) = (Cluster::start().await, sink().await);
    cluster.sql("CREATE DATABASE western ENCODING 'WIN1252' LOCALE 'C' TEMPLATE template0").await;
    let client = cluster.client_of("western").await;
    let rows = |when: &str| {
        format!(
            "INSERT INTO usage (id, \"prénom\", value) VALUES ('é-{when}', 'café € {when}', 1), ('bad-{when}', 'x' || chr(129), 2),
             ('ß-{when}', 'plain {when}', 3)"
        )
    };
    client
        .batch_execute(&format!(
            "CREATE TABLE usage (id text PRIMARY KEY, \"prénom\" text, value int); {}; CREATE VIEW seen AS SELECT * FROM usage",
            rows("old")
        ))
        .await
        .unwrap();
    let section = |name: &str, table: &str| {
        let named = SectionText::metric(name, table).field("dimensionId", &format!("{{ value: {name} }}"));
        named.field("externalId", "prénom").without("date").set("date", "receipt")
    };
    let config = ConfigText::new(&cluster, &sim.url())
        .set("source.database", "western")
        .section(section("rows", "usage"))
        .section(section("compared", "seen").set("read", "diff").set("every", "1s"));
    let app = App::run(&config);
    section_is(&app, "rows", "streaming").await;
    client.batch_execute(&rows("new")).await.unwrap();
    let items = arrived(&sim, SinkKind::Metric, 8).await;
    for name in ["rows", "compared"] {
        let of_it = items.iter().filter(|item| text(item, "dimensionId") == name);
        let got = sorted(of_it.map(|item| text(item, "externalId")).collect());
        assert_eq!(got, ["café € new", "café € old", "plain new", "plain old"], "{name}\n{}", app.log());
    }
    let quarantine = "SELECT string_agg(section || ' ' || key, ', ' ORDER BY section COLLATE \"C\", key COLLATE \"C\") FROM pg2planhat.quarantine";
    let expected = "compared bad-new, compared bad-old, rows bad-new, rows bad-old";
    eventually(PATIENCE, "the rows with such a byte to wait in quarantine", async || {
        let found: Option<String> = client.query_one(quarantine, &[]).await.unwrap().get(0);
        (found.as_deref() == Some(expected)).then_some(())
    })
    .await;
    let audit = App::command(&config, &["audit", "--all", "--json"]).await;
    assert_eq!(audit.code, 0, "{} {}", audit.stdout, audit.stderr);
    let trace = App::command(&config, &["trace", "rows", "é-old", "--json"]).await;
    assert_eq!(trace.json()["outcome"], "delivered", "{}", trace.stdout);
    assert!(app.is_running() && !app.log().contains("22P05"), "{}", app.log());
}
