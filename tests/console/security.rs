//! Who may ask what, and what every answer carries: over plain sockets, from the router's own table.

use std::time::Duration;

use pg2planhat::testing::console::routes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::ConfigText;
use crate::world::{OPERATOR, VIEWER, World, bearer};

/// A path of a route, with its parameters filled in.
fn filled(path: &str) -> String {
    path.replace("{name}", "logins").replace("{build}", "none")
}

const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\nAccept: application/json\r\n";

#[tokio::test]
async fn roles_are_held_by_every_route() {
    let world = World::new().await;
    let expired = "pg2planhat_of_nobody";
    for (method, path, access) in routes() {
        let path = filled(path);
        // An operator's change would be one: what the others may not is what this is about.
        for (who, token) in
            [("none", None), ("viewer", Some(VIEWER)), ("operator", Some(OPERATOR)), ("expired", Some(expired))]
        {
            if who == "operator" && method != "GET" {
                continue;
            }
            let header = token.map(bearer).unwrap_or_default();
            // Without a token a request that changes something must say where it comes from, to come so far.
            let site = if token.is_none() { "Sec-Fetch-Site: same-origin\r\n" } else { "" };
            let answer = world.ask(&method, &path, &format!("{header}{site}{FORM}"), "").await;
            let refused = match (access, who) {
                ("anybody", _) => None,
                (_, "none" | "expired") => Some(401),
                ("operator", "viewer") => Some(403),
                _ => None,
            };
            match refused {
                Some(status) => assert_eq!(answer.status, status, "{method} {path} as {who}: {}", answer.body),
                None => assert!(
                    ![401, 403, 500].contains(&answer.status) || (access == "anybody" && path == "/session"),
                    "{method} {path} as {who}: {} {}",
                    answer.status,
                    answer.body
                ),
            }
        }
    }
}

#[tokio::test]
async fn strangers_are_refused_and_answers_are_dressed() {
    let world = World::new().await;
    let operator = bearer(OPERATOR);
    // DNS rebinding.
    for host in ["evil.example", "evil.example:80", "[::1].evil.example"] {
        let answer = world.ask_as(host, "GET", "/", &operator, "").await;
        assert_eq!(answer.status, 421, "{host}");
        assert!(!answer.body.contains("logins"));
    }
    // Another site makes the browser ask; the token does not help.
    for extra in ["Sec-Fetch-Site: cross-site\r\n", "Sec-Fetch-Site: same-site\r\n", "Origin: https://evil.example\r\n"]
    {
        let answer = world.ask("POST", "/checks", &format!("{operator}{extra}{FORM}"), "").await;
        assert_eq!(answer.status, 403, "{extra}");
    }
    let answer = world.ask("POST", "/session", FORM, "token=x").await;
    assert_eq!(answer.status, 403, "neither says from where");
    let answer = world.ask("POST", "/checks", &format!("{operator}Content-Type: text/plain\r\n"), "x").await;
    assert_eq!(answer.status, 415);
    // A body that is too large.
    let answer =
        world.ask("POST", "/session", &format!("{FORM}Sec-Fetch-Site: same-origin\r\n"), &"a".repeat(1 << 21)).await;
    assert!([413, 0].contains(&answer.status), "{}", answer.status);
    // Every answer: refusals, pages, files, nothing at all.
    for (path, extra) in
        [("/", operator.as_str()), ("/", ""), ("/nowhere", ""), ("/login", ""), ("/assets/none/live.js", "")]
    {
        let answer = world.ask("GET", path, extra, "").await;
        assert_eq!(answer.header("x-content-type-options"), ["nosniff"], "{path}");
        assert_eq!(answer.header("referrer-policy"), ["no-referrer"], "{path}");
        assert_eq!(answer.header("cross-origin-resource-policy"), ["same-origin"], "{path}");
        assert_eq!(answer.header("cache-control"), ["no-store"], "{path}");
        let policy = answer.header("content-security-policy").join(";");
        for word in
            ["default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"]
        {
            assert!(policy.contains(word), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert!(!answer.head.to_lowercase().contains("access-control-allow"), "{path}: {}", answer.head);
    }
    let page = world.ask("GET", "/", &operator, "").await;
    assert_eq!(page.status, 200);
    for word in ["<script>", "onclick=", "onload=", " style=\"", " style='", "<style"] {
        assert!(!page.body.contains(word), "{word}");
    }
}

#[tokio::test]
async fn logins_open_a_session_once_and_are_bounded() {
    let world = World::new().await;
    let form = "Content-Type: application/x-www-form-urlencoded\r\nSec-Fetch-Site: same-origin\r\n";
    let answer = world.ask("POST", "/session", form, &format!("token={OPERATOR}&next=/logs")).await;
    assert_eq!((answer.status, answer.header("location")), (303, vec!["/logs"]));
    let cookie = answer.header("set-cookie").join("");
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    let session = format!("Cookie: {}\r\n", cookie.split(';').next().unwrap());
    assert_eq!(world.ask("GET", "/", &session, "").await.status, 200);
    assert_eq!(world.ask("POST", "/session/end", &format!("{session}{form}"), "").await.status, 303);
    assert_eq!(world.ask("GET", "/live", &session, "").await.status, 401);
    let answer = world.ask("GET", "/sections/logins?span=1h", "", "").await;
    assert_eq!((answer.status, answer.header("location")), (303, vec!["/login?next=/sections/logins%3Fspan%3D1h"]));
    let mut statuses = Vec::new();
    for _ in 0..8 {
        statuses.push(world.ask("POST", "/session", form, "token=wrong").await.status);
    }
    assert!(statuses.contains(&401) && statuses.contains(&429), "{statuses:?}");
}

#[tokio::test]
async fn streams_and_slow_clients_are_bounded() {
    let world = World::new().await;
    let mut open = Vec::new();
    for number in 0..17 {
        let mut stream = TcpStream::connect(("127.0.0.1", world.port)).await.unwrap();
        let request = format!("GET /live?page=none HTTP/1.1\r\nHost: 127.0.0.1\r\n{}\r\n", bearer(VIEWER));
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.unwrap();
        let expected = if number < 16 { "HTTP/1.1 200" } else { "HTTP/1.1 429" };
        assert_eq!(String::from_utf8_lossy(&first), expected, "stream {number}");
        open.push(stream);
    }
    drop(open);
    let mut slow = TcpStream::connect(("127.0.0.1", world.port)).await.unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ").await.unwrap();
    let mut rest = Vec::new();
    tokio::time::timeout(Duration::from_secs(15), slow.read_to_end(&mut rest)).await.expect("it is cut off").ok();
}

#[tokio::test]
async fn no_answer_holds_a_secret() {
    let world = World::new().await;
    world.insert(20).await;
    world.wait_delivered(20).await;
    let digest = pg2planhat::testing::console::digest(OPERATOR);
    let secrets = [ConfigText::TENANT, OPERATOR, VIEWER, &digest];
    for (method, path, _) in routes() {
        if method != "GET" {
            continue;
        }
        for accept in ["text/html", "application/json"] {
            for query in ["", "?tab=events", "?tab=program", "?all=1", "?format=csv"] {
                let path = format!("{}{query}", filled(path));
                let answer = world.ask("GET", &path, &format!("{}Accept: {accept}\r\n", bearer(OPERATOR)), "").await;
                for secret in secrets {
                    assert!(!answer.body.contains(secret) && !answer.head.contains(secret), "{path} shows {secret}");
                }
            }
        }
    }
}
