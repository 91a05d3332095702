//! What the console costs: memory with five tabs, and questions to the source while nobody looks.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::eventually;
use crate::world::{OPERATOR, VIEWER, World, bearer};

/// The pages of five tabs, and what their streams ask for.
const TABS: [(&str, &str); 5] = [
    ("/", "page=overview&span=15m"),
    ("/sections/logins", "page=section&name=logins&section=logins"),
    ("/logs", "page=logs&section=&outcome=&after=0"),
    ("/quarantine", "page=quarantine"),
    ("/checks", "page=none"),
];

/// Opens a tab: its page, and its stream, which is read until it is dropped.
async fn tab(world: &World, (page, live): (&str, &str)) -> tokio::task::JoinHandle<u64> {
    assert_eq!(world.ask("GET", page, &bearer(OPERATOR), "").await.status, 200, "{page}");
    let mut stream = TcpStream::connect(("127.0.0.1", world.port)).await.unwrap();
    let request = format!("GET /live?{live} HTTP/1.1\r\nHost: 127.0.0.1\r\n{}\r\n", bearer(OPERATOR));
    stream.write_all(request.as_bytes()).await.unwrap();
    tokio::spawn(async move {
        let (mut bytes, mut read) = ([0; 65536], 0);
        while let Ok(count @ 1..) = stream.read(&mut bytes).await {
            read += count as u64;
        }
        read
    })
}

/// What the process holds now, in KiB.
fn held(id: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Rows are written, a little at a time, for so long; the most that is held meanwhile.
async fn most_held(world: &World, rounds: u32) -> u64 {
    let mut most = 0;
    for _ in 0..rounds {
        world.insert(50).await;
        tokio::time::sleep(Duration::from_millis(250)).await;
        most = most.max(held(world.app.id()));
    }
    most
}

#[tokio::test]
async fn case_190_five_tabs_cost_four_mebibytes_at_most() {
    let world = World::new().await;
    // The program itself comes to rest first.
    world.insert(2000).await;
    world.wait_delivered(2000).await;
    let before = most_held(&world, 40).await;
    let mut tabs = Vec::new();
    for of in TABS {
        tabs.push(tab(&world, of).await);
    }
    let with_tabs = most_held(&world, 80).await;
    eprintln!("held {before} KiB, with five tabs {with_tabs} KiB");
    assert!(tabs.iter().all(|tab| !tab.is_finished()), "each stream goes on");
    assert!(with_tabs <= before + 4096, "{before} KiB before, {with_tabs} KiB with five tabs");
}

/// How often each connection has asked, by its name and its process.
type Asked = BTreeMap<(String, String), usize>;

/// Statements since a place of the server's log, by the connection that put them: its name and its process.
fn asked(log: &str) -> Asked {
    let mut by = BTreeMap::new();
    for line in log.lines().filter(|line| line.contains("statement:") || line.contains("execute ")) {
        let mut parts = line.split('|').skip(1).map(str::to_owned);
        let (Some(name), Some(process)) = (parts.next(), parts.next()) else { continue };
        if name.starts_with("pg2planhat") {
            *by.entry((name, process)).or_default() += 1;
        }
    }
    by
}

/// Waits until no connection asks but these, for longer than the program's audits look again after a while.
async fn at_rest(world: &World, but: &Asked) {
    let rest = || async {
        let from = world.cluster.log().len();
        tokio::time::sleep(Duration::from_secs(7)).await;
        asked(&world.cluster.log()[from..]).keys().all(|who| but.contains_key(who)).then_some(())
    };
    eventually(Duration::from_secs(90), "the others to rest", rest).await;
}

#[tokio::test]
async fn case_191_nobody_asks_the_source_while_nobody_looks() {
    let world = World::loud().await;
    // Each backfill is followed by an audit, which has connections of its own.
    let audited = || async { (world.app.log().matches("an audit found nothing missing").count() >= 2).then_some(()) };
    eventually(Duration::from_secs(60), "the audits after the backfills", audited).await;
    let programs = asked(&world.cluster.log());
    at_rest(&world, &programs).await;
    let before = asked(&world.cluster.log());
    let mut tabs = Vec::new();
    for of in TABS {
        tabs.push(tab(&world, of).await);
    }
    let of_tabs = || async {
        let mut new = asked(&world.cluster.log());
        new.retain(|who, count| !before.contains_key(who) && *count > 10);
        (!new.is_empty()).then_some(new)
    };
    let looking = eventually(Duration::from_secs(30), "five tabs to ask", of_tabs).await;
    for tab in tabs {
        tab.abort();
    }
    // A stream notices at its next look that nobody reads it; that one may be under way for a while.
    at_rest(&world, &before).await;
    let from = world.cluster.log().len();
    tokio::time::sleep(Duration::from_secs(11)).await;
    let after = asked(&world.cluster.log()[from..]);
    eprintln!("{before:?}\n{looking:?}\n{after:?}");
    let new: Vec<_> = after.keys().filter(|who| !before.contains_key(*who)).collect();
    assert!(new.is_empty(), "nobody looks, and {new:?} ask");
}

#[tokio::test]
async fn case_192_a_stream_ends_with_its_session() {
    let world = World::new().await;
    let form = "Content-Type: application/x-www-form-urlencoded\r\nSec-Fetch-Site: same-origin\r\n";
    let answer = world.ask("POST", "/session", form, &format!("token={VIEWER}")).await;
    let cookie = answer.header("set-cookie").join("");
    let session = format!("Cookie: {}\r\n", cookie.split(';').next().unwrap());
    let mut stream = TcpStream::connect(("127.0.0.1", world.port)).await.unwrap();
    let port = world.port;
    let request = format!("GET /live?page=overview HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{session}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = vec![0; 65536];
    assert!(stream.read(&mut bytes).await.unwrap() > 0);
    assert_eq!(world.ask("POST", "/session/end", &format!("{session}{form}"), "").await.status, 303);
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await;
    // Kept alive, the connection stays; the answer on it is over.
    let over = String::from_utf8_lossy(&rest).contains("event: out");
    assert!(ended.is_ok() || over, "a stream goes on after its session");
    assert!(String::from_utf8_lossy(&rest).contains("event: out"), "{}", String::from_utf8_lossy(&rest));
}

#[tokio::test]
async fn case_192_a_crowd_that_does_not_read_is_cut_off() {
    let world = World::new().await;
    // A large file fills what the kernel keeps for each connection after few answers.
    let login = world.ask("GET", "/login", "", "").await.body;
    let style = login.split('"').find(|part| part.ends_with("/console.css")).unwrap().to_owned();
    // More than the places that there are: each asks for file after file, and reads none.
    let mut crowd = Vec::new();
    for _ in 0..64 {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut stream = socket.connect(([127, 0, 0, 1], world.port).into()).await.unwrap();
        let one = format!("GET {style} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
        // The server stops taking requests once its answers are stuck.
        tokio::time::timeout(Duration::from_millis(300), stream.write_all(one.repeat(2_000).as_bytes())).await.ok();
        crowd.push(stream);
    }
    let answered = || async {
        let answer = world.ask("GET", "/login", "", "").await;
        (answer.status == 200).then_some(())
    };
    eventually(Duration::from_secs(45), "an answer beside the crowd", answered).await;
}
