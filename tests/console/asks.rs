//! What an outsider found: answers that were another than the question, files that ended before their log, ids that two
//! elements shared, an Apply that asked for less than it did, and a cookie without `Secure` behind a proxy.

use std::collections::BTreeSet;
use std::time::Duration;

use pg2planhat::testing::console::routes;

use crate::harness::port::Port;
use crate::harness::{App, ConfigText, eventually};
use crate::world::{OPERATOR, VIEWER, World, bearer};

const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";
const HERE: &str = "Sec-Fetch-Site: same-origin\r\n";
const JSON: &str = "Accept: application/json\r\n";

/// The ids that more than one element of a page has.
fn shared_ids(page: &str) -> Vec<String> {
    let (mut seen, mut shared) = (BTreeSet::new(), Vec::new());
    for id in page.split(" id=\"").skip(1).filter_map(|rest| rest.split('"').next()) {
        if !seen.insert(id.to_owned()) {
            shared.push(id.to_owned());
        }
    }
    shared
}

#[tokio::test]
async fn case_250_no_id_is_on_a_page_twice() {
    let reader = "{ user: reader, password: secret-of-reader }";
    let world = World::with(move |config| config.set("source.reader", reader)).await;
    world.insert(20).await;
    world.wait_delivered(20).await;
    let operator = bearer(OPERATOR);
    assert_eq!(world.ask("POST", "/checks", &format!("{operator}{FORM}"), "").await.status, 303);
    // A file that has changed, with a number to type.
    let path = world.app.config_path();
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, renamed(&text)).unwrap();
    let filled = |path: &str| path.replace("{name}", "logins").replace("{build}", "none").replace("{id}", "none");
    let mut paths: Vec<String> = routes()
        .into_iter()
        .filter(|(method, path, _)| method == "GET" && *path != "/live")
        .map(|(_, path, _)| filled(path))
        .collect();
    paths.extend(
        ["/logs?tab=events", "/logs?tab=program", "/checks?all=1", "/mapping?table=app_event"].map(str::to_owned),
    );
    paths.extend(["/trace?key=5", "/sections/seats", "/sections/seats/mapping"].map(str::to_owned));
    for path in paths {
        let answer = world.ask("GET", &path, &operator, "").await;
        assert_eq!(shared_ids(&answer.body), [""; 0], "{path}: {}", answer.status);
    }
    std::fs::write(&path, text).unwrap();
    // The choices of a field stand where the field looks for them.
    let page = world.ask("GET", "/sections/logins/mapping", &operator, "").await.body;
    let list = page.split("id=\"key\"").nth(1).and_then(|rest| rest.split("list=\"").nth(1)).unwrap_or_default();
    let list = list.split('"').next().unwrap_or_default();
    assert!(page.contains(&format!("<datalist id=\"{list}\">")), "{list}");
}

/// The header lines of a person who came to the wizard by its link.
async fn by_link(world: &World) -> String {
    let log = world.app.log();
    let key = log.split("/login#k=").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap();
    let login = world.ask("POST", "/session", &format!("{FORM}{HERE}"), &format!("token={key}")).await;
    let cookie = login.header("set-cookie").join("").split(';').next().unwrap_or_default().to_owned();
    format!("Cookie: {cookie}\r\n{HERE}{FORM}")
}

/// What is typed of the two ends.
fn ends(world: &World) -> String {
    let port = world.cluster.port();
    let tenant = ConfigText::TENANT;
    format!("host=127.0.0.1&port={port}&database=postgres&user=postgres&tls=disable&tenant={tenant}")
}

#[tokio::test]
async fn case_250_no_id_is_on_a_page_of_the_wizard_twice() {
    let world = World::empty().await;
    let (session, ends) = (by_link(&world).await, ends(&world));
    assert_eq!(world.ask("POST", "/setup/connect", &session, &ends).await.status, 303);
    assert_eq!(shared_ids(&world.ask("GET", "/setup", &session, "").await.body), [""; 0]);
    let tables = "schema=public&table=app_event&table=usage_daily";
    let taken = world.ask("POST", "/setup/tables", &session, tables).await;
    assert_eq!(taken.status, 303, "{}", taken.body);
    for step in ["connect", "tables", "map", "check", "prepare", "run"] {
        let answer = world.ask("GET", &format!("/setup?step={step}"), &session, "").await;
        assert_eq!((answer.status, shared_ids(&answer.body)), (200, Vec::new()), "{step}");
    }
}

/// The file with a section under another name that would read everything again.
fn renamed(text: &str) -> String {
    text.replace("name: logins", "name: entries\n    start: backfill")
}

/// The plan and the word to type of the Configuration page.
async fn to_apply(world: &World) -> (String, String) {
    let page = world.ask("GET", "/config", &bearer(OPERATOR), "").await.body;
    let value = |before: &str| page.split(before).nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
    (value("name=\"plan\" value=\"").to_owned(), value("data-typed=\"").to_owned())
}

#[tokio::test]
async fn case_251_apply_asks_for_the_number_of_rows_and_counts_again() {
    let world = World::new().await;
    world.insert(501).await;
    world.wait_delivered(501).await;
    let recorded = async || {
        let asked = "SELECT coalesce((SELECT rows_delivered FROM pg2planhat.section WHERE name = 'logins'), 0)";
        (world.cluster.number(asked).await >= 501).then_some(())
    };
    eventually(Duration::from_secs(20), "the rows in the state", recorded).await;
    let path = world.app.config_path();
    let text = std::fs::read_to_string(&path).unwrap();
    let extra = format!("{}{FORM}", bearer(OPERATOR));
    let applied = async |plan: &str, typed: &str| {
        world.ask("POST", "/plans", &extra, &format!("plan={plan}&typed={typed}")).await
    };
    // A danger that has a number.
    std::fs::write(&path, renamed(&text)).unwrap();
    let (plan, word) = to_apply(&world).await;
    assert_eq!(word, "501");
    assert_eq!(applied(&plan, "pg2planhat").await.status, 422, "the slot's name is not what is at stake");
    // What harms nobody when it is looked at, and is dangerous when it is confirmed: meanwhile a gap was opened.
    std::fs::write(&path, text.replacen("    table: app_event", "    in_doubt: hold\n    table: app_event", 1))
        .unwrap();
    let (plan, word) = to_apply(&world).await;
    assert_eq!(word, "", "a press is enough");
    world
        .cluster
        .sql("INSERT INTO pg2planhat.gap (section, reason, detail) VALUES ('logins', 'switched_off', 'by hand')")
        .await;
    let answer = applied(&plan, "").await;
    assert_eq!(answer.status, 409, "{}", answer.body);
    assert!(answer.body.contains("Type <b>logins</b>") && answer.body.contains("while it was off"), "{}", answer.body);
    let events = "SELECT count(*) FROM pg2planhat.event WHERE action = 'config_apply'";
    assert_eq!(world.cluster.text(events).await, "0", "nothing was done");
    let anew = answer.body.split("name=\"plan\" value=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    assert_eq!(applied(anew, "seats").await.status, 422);
    assert_eq!(applied(anew, "logins").await.status, 303);
    assert_eq!(world.cluster.text(events).await, "1");
}

#[tokio::test]
async fn case_252_a_parameter_that_is_none_is_refused_and_never_passed_over() {
    let world = World::new().await;
    world.insert(20).await;
    world.wait_delivered(20).await;
    let operator = bearer(OPERATOR);
    for path in [
        "/logs?outcome=nope",
        "/logs?section=nope",
        "/logs?tab=nope",
        "/logs?format=xml",
        "/logs?tab=program&level=LOUD",
        "/logs?since=garbage",
        "/logs?format=csv&outcome=nope",
        "/quarantine?section=nope",
        "/quarantine?reason=nope",
        "/quarantine?id=nope",
        "/trace?key=5&section=nope",
        "/live?page=logs&outcome=nope",
    ] {
        for accept in ["", JSON] {
            let answer = world.ask("GET", path, &format!("{operator}{accept}"), "").await;
            assert_eq!(answer.status, 422, "{path}: {}", answer.body);
            assert!(accept.is_empty() || answer.body.contains("remedy"), "{path}: {}", answer.body);
        }
    }
    let all = "id=nope&all=1";
    assert_eq!(world.ask("POST", "/quarantine/drop", &format!("{operator}{FORM}"), all).await.status, 422);
}

#[tokio::test]
async fn case_252_each_log_has_a_file_of_its_own() {
    let world = World::new().await;
    world.insert(20).await;
    world.wait_delivered(20).await;
    let operator = bearer(OPERATOR);
    for (tab, name, head) in [
        ("batches", "batches.csv", "id,section,phase"),
        ("events", "events.csv", "id,at,actor"),
        ("program", "program.csv", "line"),
    ] {
        let page = world.ask("GET", &format!("/logs?tab={tab}"), &operator, "").await.body;
        let link = page.split("<a class=\"btn\" href=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
        let link = link.replace("&#38;", "&").replace("&amp;", "&");
        assert!(link.contains(&format!("tab={tab}")) && link.contains("format=csv"), "{link}");
        for link in [link, format!("/logs?tab={tab}&format=csv")] {
            let file = world.ask("GET", &link, &operator, "").await;
            assert!(file.header("content-disposition").join("").contains(name), "{link}: {}", file.head);
            assert!(file.body.contains(head), "{link}: {}", file.body);
        }
    }
    // Who may not see rows has none of the program's log, and is not given another one.
    for format in ["", "&format=csv"] {
        let answer = world.ask("GET", &format!("/logs?tab=program{format}"), &bearer(VIEWER), "").await;
        assert_eq!(answer.status, 403, "{}", answer.body);
    }
}

#[tokio::test]
async fn case_252_a_document_of_checks_is_never_empty_for_want_of_a_look() {
    let world = World::new().await;
    let viewer = world.ask("GET", "/checks", &format!("{}{JSON}", bearer(VIEWER)), "").await;
    assert!(viewer.status == 409 && viewer.body.contains("nobody has looked yet"), "{}", viewer.body);
    let answer = world.ask("GET", "/checks", &format!("{}{JSON}", bearer(OPERATOR)), "").await;
    let document: serde_json::Value =
        serde_json::from_str(answer.body.lines().find(|line| line.starts_with('{')).unwrap()).unwrap();
    assert!(document["findings"].as_array().is_some_and(|findings| findings.len() > 3), "{document}");
    // Once somebody has looked, everybody reads it.
    let viewer = world.ask("GET", "/checks", &format!("{}{JSON}", bearer(VIEWER)), "").await;
    assert!(viewer.status == 200 && viewer.body.contains("\"findings\":[{"), "{}", viewer.body);
    let empty = world.ask("GET", "/trace", &format!("{}{JSON}", bearer(OPERATOR)), "").await;
    assert_eq!(empty.status, 422, "{}", empty.body);
}

#[tokio::test]
async fn case_254_a_file_of_csv_holds_the_whole_log() {
    let world = World::new().await;
    let sql = "INSERT INTO pg2planhat.delivery (id, section, phase, rows, bytes, first_key, last_key, outcome, under_way, attempts, epoch, changed)
            SELECT 100000 + g, 'logins', 'stream', 1, 10, g::text, g::text, 'delivered', false, 1, 1, 100000 + g FROM generate_series(1, 12345) g;
        INSERT INTO pg2planhat.event (actor, action, args) SELECT 'somebody', 'odd', '{}' FROM generate_series(1, 6789) g";
    let filled = world.cluster.try_sql(sql).await;
    filled.unwrap_or_else(|error| panic!("{error:?}"));
    let lines = async |path: &str| {
        let answer = world.ask("GET", path, &bearer(OPERATOR), "").await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body.matches("\r\n1").count().max(answer.body.lines().filter(|line| line.contains(',')).count() - 1)
    };
    assert!(lines("/logs?format=csv&section=logins").await >= 12_345, "batches");
    assert!(lines("/logs?format=csv&tab=events").await >= 6789, "events");
    // A search for a key looks at all of them, too.
    let file = world.ask("GET", "/logs?format=csv&key=1", &bearer(OPERATOR), "").await.body;
    assert!(file.contains("100001,logins"), "{file}");
}

#[tokio::test]
async fn case_255_behind_a_proxy_with_tls_the_cookie_goes_over_nothing_else() {
    let proxy = "{ from: [127.0.0.1/32], user: X-Forwarded-User }";
    let world =
        World::with(move |config| config.set("console.proxy", proxy).set("console.hosts", "[console.example]")).await;
    let body = format!("token={OPERATOR}");
    let login = async |extra: &str| {
        let answer = world.ask_as("console.example", "POST", "/session", &format!("{FORM}{HERE}{extra}"), &body).await;
        assert_eq!(answer.status, 303, "{}", answer.body);
        answer.header("set-cookie").join("")
    };
    for extra in ["Origin: https://console.example\r\n", "X-Forwarded-Proto: https\r\n"] {
        let cookie = login(extra).await;
        assert!(cookie.starts_with("__Host-pg2planhat_") && cookie.contains("; Secure"), "{extra}: {cookie}");
        let session = format!("Cookie: {}\r\n", cookie.split(';').next().unwrap());
        let page = world.ask_as("console.example", "GET", "/", &session, "").await;
        assert!(page.status == 200 && page.body.contains("maria · operator"), "{}", page.status);
        // It ends with the log-out, under each of its names.
        let out = world.ask_as("console.example", "POST", "/session/end", &format!("{session}{FORM}{HERE}"), "").await;
        assert_eq!((out.status, out.header("set-cookie").len()), (303, 2));
        assert_eq!(world.ask_as("console.example", "GET", "/logs", &session, "").await.status, 303);
    }
    for extra in ["", "Origin: http://console.example\r\n", "X-Forwarded-Proto: http\r\n"] {
        let cookie = login(extra).await;
        assert!(cookie.starts_with("pg2planhat_") && !cookie.contains("Secure"), "{extra}: {cookie}");
    }
    // A client that is no proxy says nothing by that header.
    let world = World::new().await;
    let answer = world.ask("POST", "/session", &format!("{FORM}{HERE}X-Forwarded-Proto: https\r\n"), &body).await;
    assert!(answer.status == 303 && !answer.header("set-cookie").join("").contains("Secure"), "{}", answer.head);
}

#[tokio::test]
async fn case_257_an_instance_that_ended_in_the_console_is_said_on_the_overview() {
    let mut world = World::new().await;
    // The same server, another database, the same slot.
    world.cluster.sql("CREATE DATABASE app2").await;
    world.cluster.client_of("app2").await.batch_execute(
        "CREATE TABLE app_event (id bigserial PRIMARY KEY, email text, user_id text, action text, weight numeric, at timestamptz DEFAULT now());
         CREATE TABLE usage_daily (id bigserial PRIMARY KEY, external_id text, value numeric, at timestamptz DEFAULT now())",
    ).await.unwrap();
    let port = Port::reserve();
    let config = world
        .config
        .clone()
        .set("source.database", "app2")
        .set("console.listen", format!("127.0.0.1:{}", port.number()));
    let listen = format!("127.0.0.1:{}", port.number());
    let made = App::command(&config.clone().set("source.slot", "other"), &["setup"]).await;
    assert_eq!(made.code, 0, "{}", made.stderr);
    let app = App::launch(&config).arguments(&["ui", "--listen", &listen]).start();
    app.wait_log("one use within ten minutes").await;
    world.port = port.number();
    let extra = format!("{}{FORM}", bearer(OPERATOR));
    assert_eq!(world.ask("POST", "/run", &extra, "").await.status, 303);
    let said = || async {
        let page = world.ask("GET", "/", &bearer(OPERATOR), "").await.body;
        (page.contains("The instance that ran here has ended") && page.contains("slot")).then_some(())
    };
    eventually(Duration::from_secs(30), "the end, with its reason", said).await;
}

#[tokio::test]
async fn case_256_the_wizard_takes_a_slot_of_its_own_where_another_database_has_the_usual_one() {
    let world = World::empty().await;
    world.cluster.sql("CREATE DATABASE app").await;
    let made = "SELECT pg_create_logical_replication_slot('pg2planhat', 'pgoutput')";
    world.cluster.client_of("app").await.batch_execute(made).await.unwrap();
    let session = by_link(&world).await;
    let connected = world.ask("POST", "/setup/connect", &session, &ends(&world)).await;
    assert_eq!(connected.status, 303, "{}", connected.body);
    let page = world.ask("GET", "/setup", &session, "").await.body;
    assert!(
        page.contains("in use for the database app: this instance gets one of its own, pg2planhat_postgres"),
        "{page}"
    );
    assert_eq!(world.ask("POST", "/setup/tables", &session, "schema=public&table=app_event").await.status, 303);
    let page = world.ask("GET", "/setup?step=check", &session, "").await.body;
    assert!(!page.contains("it decodes another database"), "{page}");
    let page = world.ask("GET", "/setup?step=run", &session, "").await.body;
    assert!(page.contains("slot: pg2planhat_postgres"), "{page}");
}
