//! `--json`: every command's document has exactly the fields that README's table promises, no more and no less.

use std::collections::BTreeMap;

use pg2planhat::testing::sim::SimFault;
use serde_json::Value;

use crate::cli_ops_look::{insert, json, stage, stop, wait_items};
use crate::harness::{App, ConfigText, eventually};

/// What a document looks like, as README writes it: `{"a","b":{…}}`, `[…]`, and `x | y` where it is one of two.
#[derive(Clone, Debug)]
enum Shape {
    /// A name alone: any value.
    Any,
    List(Box<Shape>),
    Object(Vec<(String, Shape)>),
    Either(Vec<Shape>),
}

/// Reads a shape from the front of `text`.
fn shape(text: &mut &str) -> Shape {
    let mut several = vec![one(text)];
    while let Some(rest) = text.trim_start().strip_prefix('|') {
        *text = rest.trim_start();
        several.push(one(text));
    }
    if several.len() == 1 { several.remove(0) } else { Shape::Either(several) }
}

fn one(text: &mut &str) -> Shape {
    if let Some(rest) = text.strip_prefix('[') {
        *text = rest;
        let inner = shape(text);
        *text = text.strip_prefix(']').unwrap_or_else(|| panic!("no ] at {text}"));
        return Shape::List(Box::new(inner));
    }
    let mut members = Vec::new();
    *text = text.strip_prefix('{').unwrap_or_else(|| panic!("no {{ at {text}"));
    loop {
        let rest = text.strip_prefix('"').unwrap_or_else(|| panic!("no name at {text}"));
        let (name, rest) = rest.split_once('"').unwrap();
        *text = rest;
        let inner = match text.strip_prefix(':') {
            Some(rest) => {
                *text = rest;
                shape(text)
            }
            None => Shape::Any,
        };
        members.push((name.to_owned(), inner));
        match text.chars().next() {
            Some(',') => *text = &text[1..],
            Some('}') => {
                *text = &text[1..];
                return Shape::Object(members);
            }
            other => panic!("{other:?} at {text}"),
        }
    }
}

impl Shape {
    /// What in `value` is not as promised. `null` stands for anything unknown.
    fn differs(&self, value: &Value, place: &str) -> Option<String> {
        match (self, value) {
            (Shape::Any, _) | (_, Value::Null) => None,
            (Shape::List(inner), Value::Array(values)) => {
                values.iter().enumerate().find_map(|(at, value)| inner.differs(value, &format!("{place}[{at}]")))
            }
            (Shape::Object(members), Value::Object(values)) => {
                let more = values.keys().find(|key| !members.iter().any(|(name, _)| name == *key));
                let more = more.map(|key| format!("{place}.{key} is not in docs/commands.md"));
                more.or_else(|| {
                    members.iter().find_map(|(name, inner)| match values.get(name) {
                        None => Some(format!("{place}.{name} is promised, and not there")),
                        Some(value) => inner.differs(value, &format!("{place}.{name}")),
                    })
                })
            }
            (Shape::Either(shapes), value) => {
                let mut all: Vec<_> = shapes.iter().map(|shape| shape.differs(value, place)).collect();
                if all.iter().any(Option::is_none) { None } else { all.swap_remove(0) }
            }
            _ => Some(format!("{place} is {value}")),
        }
    }
}

/// The table of docs/commands.md, by command.
fn promised() -> BTreeMap<String, Shape> {
    let readme = include_str!("../../docs/commands.md");
    let table = readme.split("| command | document |").nth(1).expect("the table of documents");
    let mut found = BTreeMap::new();
    for line in table.lines().skip(2).take_while(|line| line.starts_with('|')) {
        let line = line.replace("\\|", "\u{1}");
        let cells: Vec<String> = line.trim_matches('|').split(" | ").map(|cell| cell.replace('\u{1}', "|")).collect();
        let ticked = |cell: &str| -> Vec<String> { cell.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
        let (names, documents) = (ticked(&cells[0]), ticked(&cells[1]));
        let mut text = documents[0].as_str();
        let read = shape(&mut text);
        assert_eq!(text, "", "{line}");
        for name in names {
            found.insert(name, read.clone());
        }
    }
    found
}

/// The promises, and those that were kept.
struct Promises {
    open: BTreeMap<String, Shape>,
    kept: Vec<String>,
}

impl Promises {
    fn hold(&mut self, command: &str, value: &Value) {
        let shape = self.open.get(command).unwrap_or_else(|| panic!("docs/commands.md does not document {command}"));
        if let Some(why) = shape.differs(value, command) {
            panic!("{why}\n{value:#}");
        }
        self.kept.push(command.to_owned());
    }

    async fn run(&mut self, command: &str, config: &ConfigText, arguments: &[&str]) -> Value {
        let value = json(config, arguments).await;
        self.hold(command, &value);
        value
    }
}

#[tokio::test]
async fn every_document_is_as_docs_promise() {
    let mut promises = Promises { open: promised(), kept: Vec::new() };
    let (cluster, sim, config) = stage().await;
    cluster.sql("CREATE ROLE onlooker LOGIN; GRANT SELECT ON app_event TO onlooker").await;
    let config = config.set("source.reader", "{ user: onlooker }");
    sim.queue_fault(SimFault::RefuseFirst { count: 3, error: "no such user".into() });
    promises.run("setup --print-sql", &config, &["setup", "--print-sql"]).await;
    promises.run("setup", &config, &["setup"]).await;
    promises.run("discover", &config, &["discover"]).await;
    promises.run("discover --schema S", &config, &["discover", "--schema", "public"]).await;
    promises.run("discover TABLE", &config, &["discover", "app_event"]).await;
    promises.run("check", &config, &["check"]).await;
    cluster.sql("UPDATE app_event SET email = NULL, user_id = NULL WHERE id = 100").await;
    let preview = promises.run("preview", &config, &["preview", "logins"]).await;
    assert!(preview["items"][0]["refused"].is_string() && preview["items"][1]["item"].is_object(), "{preview}");
    promises.run("query", &config, &["query", "SELECT id, email FROM app_event"]).await;

    let planned = promises.run("plan", &config, &["plan"]).await;
    assert_eq!(planned["changes"][0]["kind"], "new", "{planned}");
    let app = App::run(&config);
    wait_items(&sim, 96).await;
    app.wait_status("the stream", |status| (status["sections"][0]["state"] == "streaming").then_some(())).await;
    promises.hold("/status", &app.status().await);
    promises.run("status", &config, &["status"]).await;
    let floor = || async {
        let known = "SELECT count(*) FROM pg2planhat.instance WHERE xmin_floor IS NOT NULL";
        (cluster.number(known).await == 1).then_some(())
    };
    promises.run("logs", &config, &["logs"]).await;
    let traced = promises.run("trace", &config, &["trace", "logins", "1"]).await;
    assert_eq!(traced["source"], "present", "{traced}");
    promises.run("audit", &config, &["audit", "logins"]).await;
    let held = || async {
        let held = json(&config, &["quarantine", "list"]).await;
        (held.as_array().unwrap().len() == 4).then_some(held)
    };
    let held = eventually(std::time::Duration::from_secs(20), "four rows in quarantine", held).await;
    promises.hold("quarantine list", &held);
    let (first, second) = (held[0]["id"].to_string(), held[1]["id"].to_string());
    promises.run("quarantine show", &config, &["quarantine", "show", &first]).await;
    promises.run("quarantine retry", &config, &["quarantine", "retry", &first]).await;
    promises.run("quarantine drop", &config, &["quarantine", "drop", &second, "--yes"]).await;
    promises.run("pause", &config, &["pause", "logins"]).await;
    promises.run("resume", &config, &["resume", "logins"]).await;
    promises.run("resync", &config, &["resync", "logins", "--from-key", "95", "--yes"]).await;
    let none = promises.run("resync", &config, &["resync", "logins", "--from-time", "2090-01-01T00:00:00Z"]).await;
    assert_eq!(none["rows"], 0, "{none}");
    eventually(std::time::Duration::from_secs(30), "an xmin floor", floor).await;
    let lines = App::launch(&config).arguments(&["--json", "status", "--watch"]).beside(&app).start();
    lines.wait_out("\n").await;
    stop(&app).await;

    let nothing = promises.run("repair", &config, &["repair", "--gap"]).await;
    assert_eq!(nothing["repaired"], Value::Null);
    cluster.sql("SELECT pg_drop_replication_slot('pg2planhat')").await;
    insert(&cluster, 3).await;
    promises.run("status", &config, &["status"]).await;
    let repaired = promises.run("repair", &config, &["repair", "--gap", "--yes"]).await;
    assert!(repaired["repaired"]["sections"][0]["keys"].is_array(), "{repaired}");
    promises.run("teardown", &config, &["teardown", "--yes"]).await;
    let stand_in = App::launch(&config).arguments(&["--json", "sim", "--listen", "127.0.0.1:0"]).start();
    stand_in.wait_out("}").await;
    promises.hold("sim", &serde_json::from_str(&stand_in.out()).unwrap());

    let unkept: Vec<_> = promises.open.keys().filter(|name| !promises.kept.contains(name)).collect();
    assert!(unkept.is_empty(), "in README, and not tried here: {unkept:?}");
}

#[test]
fn a_shape_tells_what_is_missing_and_what_is_too_much() {
    let read = |mut text| shape(&mut text);
    let shape = read(r#"{"a","b":[{"c"} | {"d"}]}"#);
    let differs = |text: &str| shape.differs(&serde_json::from_str(text).unwrap(), "x");
    assert_eq!(differs(r#"{"a": 1, "b": [{"c": {}}, {"d": 2}]}"#), None);
    assert_eq!(differs(r#"{"a": 1, "b": null}"#), None);
    assert_eq!(differs(r#"{"a": 1}"#).unwrap(), "x.b is promised, and not there");
    assert_eq!(differs(r#"{"a": 1, "b": [], "e": 1}"#).unwrap(), "x.e is not in docs/commands.md");
    assert!(differs(r#"{"a": 1, "b": [{"f": 1}]}"#).is_some());
}
