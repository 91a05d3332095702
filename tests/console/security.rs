//! Who may ask what, and what every answer carries: over plain sockets, from the router's own table.

use std::time::Duration;

use pg2planhat::testing::console::routes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::ConfigText;
use crate::world::{OPERATOR, VIEWER, World, bearer};

/// A path of a route, with its parameters filled in.
fn filled(path: &str) -> String {
    path.replace("{name}", "logins").replace("{build}", "none").replace("{id}", "none")
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
        assert_eq!(answer.header("referrer-policy"), ["same-origin"], "{path}");
        assert_eq!(answer.header("cross-origin-resource-policy"), ["same-origin"], "{path}");
        assert_eq!(answer.header("cache-control"), ["no-store, no-transform"], "{path}");
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
async fn a_proxy_is_believed_from_where_it_comes_from_alone() {
    let proxied = |from: &'static str| {
        let proxy = format!("{{ from: [{from}], user: X-Forwarded-User, groups: X-Groups, operators: [platform] }}");
        move |config: ConfigText| config.set("console.proxy", proxy)
    };
    let world = World::with(proxied("127.0.0.1/32")).await;
    let form = "Sec-Fetch-Site: same-origin\r\n";
    let (ana, operator) = ("X-Forwarded-User: ana\r\n", "X-Forwarded-User: ana\r\nX-Groups: sales, platform\r\n");
    let page = world.ask("GET", "/", ana, "").await;
    assert_eq!(page.status, 200);
    assert!(page.body.contains("ana · viewer"));
    assert_eq!(world.ask("POST", "/sections/logins/pause", &format!("{ana}{form}{FORM}"), "").await.status, 403);
    assert_eq!(world.ask("POST", "/sections/logins/pause", &format!("{operator}{form}{FORM}"), "").await.status, 200);
    let actor = world.cluster.text("SELECT actor FROM pg2planhat.event WHERE action = 'pause'").await;
    assert_eq!(actor, "console:ana");
    // Another site cannot make the proxy's user do anything.
    let cross = format!("{operator}Sec-Fetch-Site: cross-site\r\n{FORM}");
    assert_eq!(world.ask("POST", "/sections/logins/resume", &cross, "").await.status, 403);
    assert_eq!(world.ask("GET", "/live", "", "").await.status, 401, "no name, no session");
    let twice = format!("{ana}X-Forwarded-User: root\r\n");
    assert_eq!(world.ask("GET", "/live", &twice, "").await.status, 401, "a client that adds its own");
    drop(world);
    let world = World::with(proxied("10.99.0.0/16")).await;
    assert_eq!(world.ask("GET", "/live", operator, "").await.status, 401, "not the proxy");
}

#[tokio::test]
async fn sql_is_asked_as_the_reader_and_recorded_without_its_answer() {
    let world = World::with(|config| config.set("source.reader", "{ user: reader, password: secret-of-reader }")).await;
    let roles = "CREATE ROLE reader LOGIN PASSWORD 'secret-of-reader'; GRANT SELECT ON app_event TO reader";
    world.cluster.sql(roles).await;
    world.insert(3).await;
    let operator = bearer(OPERATOR);
    let sql = |text: &str| format!("sql={}", text.replace(' ', "+").replace('\'', "%27"));
    let json = format!("{operator}{FORM}");
    let answer = world.ask("POST", "/sql", &json, &sql("SELECT count(*) FROM app_event")).await;
    assert_eq!((answer.status, answer.body.contains(r#""rows":[["3"]]"#)), (200, true), "{}", answer.body);
    for refused in ["DELETE FROM app_event", "SELECT pg_terminate_backend(1) FROM pg_authid", "no SQL"] {
        let answer = world.ask("POST", "/sql", &json, &sql(refused)).await;
        assert!([422, 503].contains(&answer.status), "{refused}: {} {}", answer.status, answer.body);
    }
    assert_eq!(world.cluster.text("SELECT count(*) FROM app_event").await, "3");
    let page = format!("{operator}Content-Type: application/x-www-form-urlencoded\r\n");
    let answer = world.ask("POST", "/sql", &page, &sql("SELECT NULL, 'NULL', '<img src=x>'")).await;
    assert_eq!(answer.status, 200);
    assert!(answer.body.contains(r#"<i class="null">NULL</i>"#) && answer.body.contains("<td>NULL</td>"));
    assert!(!answer.body.contains("<img src=x>"), "what a row says is text");
    // Who leaves ends the statement.
    let asleep = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'reader' AND wait_event = 'PgSleep'";
    let body = sql("SELECT pg_sleep(25)");
    let mut leaving = TcpStream::connect(("127.0.0.1", world.port)).await.unwrap();
    let request =
        format!("POST /sql HTTP/1.1\r\nHost: 127.0.0.1\r\n{json}Content-Length: {}\r\n\r\n{body}", body.len());
    leaving.write_all(request.as_bytes()).await.unwrap();
    let sleeping = |count: &'static str| {
        let world = &world;
        move || async move { (world.cluster.text(asleep).await == count).then_some(()) }
    };
    crate::harness::eventually(Duration::from_secs(10), "the statement to run", sleeping("1")).await;
    drop(leaving);
    crate::harness::eventually(Duration::from_secs(10), "the statement to end", sleeping("0")).await;
    let recorded =
        "SELECT string_agg(actor || ' ' || (args->>'sql') || ' ' || result, '; ' ORDER BY id) FROM pg2planhat.event";
    let recorded = world.cluster.text(recorded).await;
    assert!(recorded.starts_with("console:maria SELECT count(*) FROM app_event 1 row;"), "{recorded}");
}

#[tokio::test]
async fn the_port_speaks_tls_and_takes_a_renewed_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
    let renew = || {
        let pair = rcgen::KeyPair::generate().unwrap();
        let made = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&pair).unwrap();
        std::fs::write(&cert, made.pem()).unwrap();
        std::fs::write(&key, pair.serialize_pem()).unwrap();
        let later = std::time::SystemTime::now() + Duration::from_secs(5);
        std::fs::File::options().write(true).open(&key).unwrap().set_modified(later).unwrap();
        made.der().clone()
    };
    let first = renew();
    let paths = (cert.display().to_string(), key.display().to_string());
    let world = World::with(move |config| config.set("console.cert", paths.0).set("console.key", paths.1)).await;
    let answer = over_tls(&world, first.clone()).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 303"), "{answer}");
    assert!(answer.contains("Secure") && answer.contains("__Host-pg2planhat"), "{answer}");
    let plain = world.ask("GET", "/", "", "").await;
    assert_eq!(plain.status, 0, "nothing is said in the clear: {}", plain.head);
    let second = renew();
    let taken = || async { over_tls(&world, second.clone()).await };
    crate::harness::eventually(Duration::from_secs(20), "the renewed certificate", taken).await;
    assert!(over_tls(&world, first).await.is_none(), "the old one is gone");
}

/// Logs in over TLS, trusting this certificate alone.
async fn over_tls(world: &World, trusted: rustls::pki_types::CertificateDer<'static>) -> Option<String> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(("127.0.0.1", world.port)).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let mut stream = connector.connect("localhost".try_into().unwrap(), stream).await.ok()?;
    let body = format!("token={OPERATOR}&next=/");
    let request = format!(
        "POST /session HTTP/1.1\r\nHost: localhost:{}\r\nConnection: close\r\nSec-Fetch-Site: same-origin\r\n{FORM}\
         Content-Length: {}\r\n\r\n{body}",
        world.port,
        body.len()
    );
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.ok();
    Some(String::from_utf8_lossy(&bytes).into_owned())
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
