//! `discover` and `preview`: from a table to the exact items.

use serde_json::json;

use crate::harness::{App, Cluster, ConfigText, SectionText};

#[tokio::test]
async fn a_guessed_section_loads_and_previews() {
    let cluster = Cluster::start().await;
    cluster
        .sql(
            "CREATE TABLE app_event (id bigserial PRIMARY KEY, user_email text, user_id bigint NOT NULL, event_name text,
                 amount numeric, account_id text, created_at timestamptz, payload jsonb, client_ip inet);
             INSERT INTO app_event (user_email, user_id, event_name, amount, account_id, created_at, payload) VALUES
                 ('a@example.com', 1, 'Login', 1.50, 'acme', '2024-05-01 12:00:00+02', '{\"big\": 12345678901234567890123}'),
                 ('b@example.com', 2, 'Export', 'NaN', 'acme', '2024-05-02', NULL);
             ANALYZE app_event;
             CREATE SCHEMA other; CREATE TABLE other.thing (a text);",
        )
        .await;
    let config = ConfigText::new(&cluster, "http://127.0.0.1:9");
    let schemas = App::command(&config, &["--json", "discover"]).await.json();
    assert_eq!(schemas, json!({"schemas": [{"name": "other", "tables": 1}, {"name": "public", "tables": 1}]}));
    let tables = App::command(&config, &["--json", "discover", "--schema", "public"]).await.json();
    let table = &tables["tables"][0];
    assert_eq!(
        (&table["name"], &table["rows_estimated"], &table["keys"]),
        (&json!("public.app_event"), &json!(2), &json!(["id"]))
    );
    assert!(table["bytes"].as_u64().unwrap() > 0);
    let near = App::command(&config, &["discover", "AppEvents"]).await;
    assert_eq!(near.code, 64);
    assert!(near.stderr.contains("did you mean public.app_event?"), "{}", near.stderr);

    let yaml = App::command(&config, &["discover", "app_event"]).await;
    assert_eq!(yaml.code, 0, "{}", yaml.stderr);
    assert!(yaml.stdout.lines().any(|line| line == "sections:"), "{}", yaml.stdout);
    let whole = format!("{}{}", config.render(), yaml.stdout);
    let loaded =
        pg2planhat::testing::config::parse(&whole, "guessed").unwrap_or_else(|errors| panic!("{errors}\n{whole}"));
    assert_eq!(loaded.sections[0].name.as_str(), "app_event");

    let document = App::command(&config, &["--json", "discover", "app_event"]).await.json();
    assert_eq!(document["columns"][1], json!({"name": "user_email", "type": "text", "nullable": true}));
    let fields = document["section"]["fields"].as_object().unwrap();
    let mut section = SectionText::activity("events", "app_event");
    for field in ["email", "externalId", "action", "weight", "date"] {
        section = section.without(field);
    }
    for (field, column) in fields {
        section = section.field(field, column.as_str().unwrap());
    }
    let config = config.section(SectionText::activity("wrong", "app_event")).section(section);
    preview(&config).await;
}

async fn preview(config: &ConfigText) {
    let output = App::command(config, &["--json", "preview", "events"]).await;
    assert_eq!(output.code, 0, "{}", output.stderr);
    let document = output.json();
    assert_eq!(document["section"], "events");
    let newest = &document["items"][0];
    assert_eq!(newest["key"], "2");
    assert!(newest["refused"].as_str().unwrap().starts_with("weight"), "{newest}");
    // Digits unchanged: as text, for JSON readers round them.
    assert!(output.stdout.contains("12345678901234567890123"), "{}", output.stdout);
    let item = &document["items"][1]["item"];
    assert_eq!(
        (&item["email"], &item["externalId"], &item["date"]),
        (&json!("a@example.com"), &json!("1"), &json!("2024-05-01T10:00:00.000Z"))
    );
    assert!(document["batch"]["rows"].as_u64().unwrap() > 0);
    let oldest = App::command(config, &["--json", "preview", "events", "--oldest", "--rows", "1"]).await.json();
    assert_eq!(oldest["items"][0]["key"], "1");
    let people = App::command(config, &["preview", "events"]).await.stdout;
    assert!(people.contains("1 item, 1 refused; nothing was sent"), "{people}");
    let near = App::command(config, &["preview", "evnts"]).await;
    assert_eq!(near.code, 64);
    assert!(near.stderr.contains("did you mean events?"), "{}", near.stderr);
    let unfit = App::command(config, &["preview", "wrong"]).await;
    assert_eq!(unfit.code, 64);
    assert!(unfit.stderr.contains("no column `weight`"), "{}", unfit.stderr);
}
