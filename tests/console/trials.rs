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

