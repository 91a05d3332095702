//! More trials from the bug reports of other consoles, over plain sockets: doors, plans that were confirmed already, a
//! database that does not answer, and searches that do not look at everything.

use std::time::{Duration, Instant};

use pg2planhat::testing::console::routes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::port::Port;
use crate::harness::{App, ConfigText, SectionText, Stop, eventually};
use crate::world::{Answered, OPERATOR, VIEWER, World, bearer};

const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";
const HERE: &str = "Sec-Fetch-Site: same-origin\r\n";

/// The cookie that a login has set, as `NAME=VALUE`.
fn cookie_of(answer: &Answered) -> String {
    answer.header("set-cookie").join("").split(';').next().unwrap_or_default().to_owned()
}

/// A world of `ui` in front of what listens on `source`, without an instance.
fn watcher(source: u16, port: &Port) -> (App, ConfigText) {
    let digest = pg2planhat::testing::console::digest(OPERATOR);
    let config = ConfigText::for_port(source, "http://127.0.0.1:9")
        .set("console.tokens", format!("[{{ name: maria, role: operator, sha256: {digest} }}]"))
        .section(SectionText::activity("logins", "app_event"))
        .section(SectionText::metric("seats", "usage_daily"));
    let listen = format!("127.0.0.1:{}", port.number());
    (App::launch(&config).arguments(&["ui", "--listen", &listen]).start(), config)
}

/// One request to a console on this port; the answer's status and body, or 0 where none came in time.
async fn asked(port: u16, path: &str, extra: &str, within: Duration) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n{extra}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    tokio::time::timeout(within, stream.read_to_end(&mut bytes)).await.ok();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    (text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0), text)
}

#[tokio::test]
async fn case_231_a_piece_that_was_replaced_by_a_loss_is_sent_again() {
    let world = World::new().await;
    let port = Port::reserve();
    let (app, _) = watcher(world.cluster.port(), &port);
    app.wait_log("one use within ten minutes").await;
    let mut stream = TcpStream::connect(("127.0.0.1", port.number())).await.unwrap();
    let request =
        format!("GET /live?page=overview HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n{}\r\n", port.number(), bearer(OPERATOR));
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    let mut wait_for = async |what: &str, holds: &dyn Fn(&str) -> bool| {
        let begun = Instant::now();
        let mut bytes = [0; 65536];
        while !holds(&text) {
            assert!(begun.elapsed() < Duration::from_secs(60), "{what}\n{text}");
            let read =
                tokio::time::timeout(Duration::from_secs(20), stream.read(&mut bytes)).await.expect(what).unwrap();
            text.push_str(&String::from_utf8_lossy(&bytes[..read]));
        }
    };
    wait_for("the sections", &|text| text.contains("event: sections")).await;
    world.cluster.stop(Stop::Immediate).await;
    wait_for("the loss", &|text| text.contains("event: gone")).await;
    world.cluster.start_again().await;
    // The sections have not changed; the page has replaced its verdict by "lost" meanwhile.
    let after = |text: &str| text.rsplit("event: gone").next().unwrap_or_default().contains("event: sections");
    wait_for("the sections once more", &after).await;
    let since = |text: &str| text.rsplit("event: gone").next().unwrap_or_default().contains("event: clock");
    wait_for("the clock", &since).await;
}

#[tokio::test]
async fn case_231_an_answer_is_not_changed_on_its_way() {
    let world = World::new().await;
    let answer = world.ask("GET", "/live?page=none", &bearer(OPERATOR), "").await;
    let kept = answer.header("cache-control").join("");
    assert!(kept.contains("no-store") && kept.contains("no-transform"), "{kept}");
}

#[tokio::test]
async fn case_232_a_database_that_does_not_answer_keeps_nobody_out() {
    // It takes connections, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let source = silent.local_addr().unwrap().port();
    let held = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = silent.accept().await {
            held.push(stream);
        }
    });
    let port = Port::reserve();
    let (app, _) = watcher(source, &port);
    app.wait_log("one use within ten minutes").await;
    let (number, operator) = (port.number(), bearer(OPERATOR));
    // More than one page waits for the state, which cannot be reached within 10 s.
    let pages = (0..4).map(|_| asked(number, "/logs", &operator, Duration::from_secs(40)));
    let began = Instant::now();
    let waiting = futures_util::future::join_all(pages);
    let others = async {
        let mut slowest = Duration::ZERO;
        while began.elapsed() < Duration::from_secs(8) {
            let asked_at = Instant::now();
            let (status, text) = asked(number, "/login", "", Duration::from_secs(30)).await;
            assert_eq!(status, 200, "{text}");
            slowest = slowest.max(asked_at.elapsed());
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        slowest
    };
    let (pages, slowest) = tokio::join!(async { (waiting.await, began.elapsed()) }, others);
    assert!(slowest < Duration::from_secs(1), "the login took {slowest:?}");
    let (answers, took) = pages;
    assert!(answers.iter().all(|(status, _)| *status == 503), "{:?}", answers.iter().map(|a| a.0).collect::<Vec<_>>());
    assert!(took < Duration::from_secs(16), "four pages failed one after the other: {took:?}");
    held.abort();
}

#[tokio::test]
async fn case_234_two_consoles_on_one_host_keep_their_sessions_apart() {
    let world = World::new().await;
    // As `kubectl port-forward deploy/a 8081:9188` and `… deploy/b 8082:9188` are seen: one host, two ports.
    let (first, second) = ("localhost:8081", "localhost:8082");
    let form = format!("{FORM}{HERE}");
    let login = async |host: &str, token: &str| {
        cookie_of(&world.ask_as(host, "POST", "/session", &form, &format!("token={token}")).await)
    };
    let (of_first, of_second) = (login(first, OPERATOR).await, login(second, VIEWER).await);
    let name = |cookie: &str| cookie.split('=').next().unwrap_or_default().to_owned();
    assert_ne!(name(&of_first), name(&of_second), "a browser keeps one of them");
    let both = format!("Cookie: {of_first}; {of_second}\r\n");
    for (host, who) in [(first, "maria · operator"), (second, "support · viewer")] {
        let page = world.ask_as(host, "GET", "/", &both, "").await;
        assert!(page.body.contains(who), "{host}: {}", page.status);
    }
}

#[tokio::test]
async fn case_235_a_plan_that_was_confirmed_says_so() {
    let world = World::new().await;
    world.insert(20).await;
    world.wait_delivered(20).await;
    let page = format!("{}{FORM}", bearer(OPERATOR));
    let json = format!("{page}Accept: application/json\r\n");
    let planned = world.ask("POST", "/sections/logins/resync", &json, "by=all").await;
    let document: serde_json::Value = serde_json::from_str(&planned.body).unwrap();
    let id = document["plan"].as_str().unwrap();
    let body = format!("plan={id}&typed=20");
    assert_eq!(world.ask("POST", "/plans", &page, &body).await.status, 303);
    // A second press, and the back button.
    for again in
        [world.ask("POST", "/plans", &page, &body).await, world.ask("GET", &format!("/plans/{id}"), &page, "").await]
    {
        assert_eq!(again.status, 409);
        assert!(again.body.contains("confirmed") && !again.body.contains("nothing was done"), "{}", again.body);
    }
    let other = world.ask("POST", "/plans", &page, "plan=0&typed=20").await;
    assert!(other.status == 409 && other.body.contains("nothing was done"), "{}", other.body);
}

#[tokio::test]
async fn case_236_no_address_answers_with_an_empty_page() {
    let world = World::new().await;
    let operator = bearer(OPERATOR);
    let filled = |path: &str| path.replace("{name}", "logins").replace("{build}", "none").replace("{id}", "none");
    // What a person gets who presses Enter in the address bar after a form was sent.
    let mut odd: Vec<(String, String)> = routes()
        .into_iter()
        .filter(|(method, _, _)| method == "POST")
        .map(|(_, path, _)| ("GET".to_owned(), filled(path)))
        .collect();
    odd.extend([("DELETE", "/"), ("PUT", "/logs")].map(|(method, path)| (method.to_owned(), path.to_owned())));
    odd.push(("GET".to_owned(), "/login?next=%ff&next=%fe&%zz".to_owned()));
    for (method, path) in odd {
        for (accept, sign) in [("text/html", "<h1"), ("application/json", "\"status\"")] {
            let extra = format!("{operator}{HERE}Accept: {accept}\r\n");
            let answer = world.ask(&method, &path, &extra, "").await;
            let spoken = answer.body.contains(sign) || answer.status < 400;
            assert!(spoken, "{method} {path} as {accept}: {} {:?}", answer.status, answer.body);
        }
    }
}

#[tokio::test]
async fn case_237_a_search_that_leaves_something_out_says_so() {
    let many = |config: ConfigText| {
        let off = (1..=20).map(|at| SectionText::activity(&format!("a{at:02}"), "app_event").set("sync", "off"));
        let config = off.fold(config.without_sections(), ConfigText::section);
        config.section(SectionText::activity("logins", "app_event"))
    };
    let world = World::with(many).await;
    world.insert(5).await;
    world.wait_delivered(5).await;
    // Each section is asked by a connection of its own.
    let within = Duration::from_secs(60);
    let (_, page) = asked(world.port, "/trace?key=5", &bearer(OPERATOR), within).await;
    assert!(page.contains("20 of 21 sections"), "{page}");
    let (_, page) = asked(world.port, "/trace?key=5&section=logins", &bearer(OPERATOR), within).await;
    assert!(!page.contains("20 of 21 sections") && page.contains("delivered"), "{page}");
}

#[tokio::test]
async fn case_239_audits_do_not_take_the_places_of_questions() {
    let reader = "{ user: reader, password: secret-of-reader }";
    let world = World::with(move |config| config.set("source.reader", reader)).await;
    world.cluster.sql("CREATE ROLE reader LOGIN PASSWORD 'secret-of-reader'").await;
    world.insert(50).await;
    world.wait_delivered(50).await;
    let json = format!("{}{FORM}Accept: application/json\r\n", bearer(OPERATOR));
    // Whatever reads the tables waits.
    let holder = world.cluster.client().await;
    holder.batch_execute("BEGIN; LOCK TABLE app_event, usage_daily IN ACCESS EXCLUSIVE MODE").await.unwrap();
    for section in ["logins", "seats"] {
        let path = format!("/sections/{section}/audit");
        assert_eq!(world.ask("POST", &path, &json, "").await.status, 200);
    }
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    let waiting = || async { (world.cluster.text(waits).await != "0").then_some(()) };
    eventually(Duration::from_secs(20), "an audit to wait", waiting).await;
    let answer = world.ask("POST", "/sql", &json, "sql=SELECT+1").await;
    drop(holder);
    assert_eq!(answer.status, 200, "{}", answer.body);
}
