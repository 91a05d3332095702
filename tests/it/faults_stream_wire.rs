//! The stream against a server that the tests play: what no real one can be made to do on demand.

use std::time::{Duration, Instant};

use pg2planhat::testing::config;
use pg2planhat::testing::config::Source;
use pg2planhat::testing::model::{Lsn, Value};
use pg2planhat::testing::postgres::Stream;
use pg2planhat::testing::postgres::{DecodedItem, Decoder};
use pg2planhat::testing::postgres::{EndReason, StreamEvent, StreamStart};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A walsender by hand: speaks until the copy has begun; `None` where the client takes its leave before.
async fn walsender(listener: &TcpListener) -> Option<TcpStream> {
    walsender_that_says(listener, &[]).await
}

/// The same, and what it says in the same packet in which the copy begins.
async fn walsender_that_says(listener: &TcpListener, at_once: &[u8]) -> Option<TcpStream> {
    let (mut stream, _) = listener.accept().await.unwrap();
    let length = stream.read_u32().await.unwrap();
    stream.read_exact(&mut vec![0; length as usize - 4]).await.unwrap();
    let mut hello = message(b'R', &0u32.to_be_bytes());
    hello.extend(message(b'S', b"server_encoding\0UTF8\0"));
    hello.extend(message(b'Z', b"I"));
    stream.write_all(&hello).await.unwrap();
    loop {
        let (tag, body) = read(&mut stream).await;
        if tag == b'X' {
            return None;
        }
        assert_eq!(tag, b'Q');
        let sql = String::from_utf8(body).unwrap();
        if sql.starts_with("START_REPLICATION") {
            stream.write_all(&[&message(b'W', &[0, 0, 0]), at_once].concat()).await.unwrap();
            return Some(stream);
        }
        let mut answer = if sql.starts_with("IDENTIFY_SYSTEM") {
            row(&["1234", "1", "0/2000", "app"])
        } else {
            row(&["false", "reserved", "0/1000", "0/900"])
        };
        answer.extend(message(b'Z', b"I"));
        stream.write_all(&answer).await.unwrap();
    }
}

async fn read(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let tag = stream.read_u8().await.unwrap();
    let length = stream.read_u32().await.unwrap();
    let mut body = vec![0; length as usize - 4];
    stream.read_exact(&mut body).await.unwrap();
    (tag, body)
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[tag], &length.to_be_bytes()[..], body].concat()
}

fn row(values: &[&str]) -> Vec<u8> {
    let mut body = u16::try_from(values.len()).unwrap().to_be_bytes().to_vec();
    for value in values {
        body.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
        body.extend(value.as_bytes());
    }
    message(b'D', &body)
}

fn keepalive(end: u64, reply: bool) -> Vec<u8> {
    message(b'd', &[b"k", &end.to_be_bytes()[..], &[0; 8], &[u8::from(reply)]].concat())
}

fn data(bytes: &[u8]) -> Vec<u8> {
    message(b'd', &[b"w", &[0; 24][..], bytes].concat())
}

/// An insert into the table 7 of columns in text.
fn insert(columns: &[&[u8]]) -> Vec<u8> {
    let mut bytes = b"I\0\0\0\x07N".to_vec();
    bytes.extend(u16::try_from(columns.len()).unwrap().to_be_bytes());
    for column in columns {
        bytes.push(b't');
        bytes.extend(u32::try_from(column.len()).unwrap().to_be_bytes());
        bytes.extend(*column);
    }
    data(&bytes)
}

async fn open() -> (TcpListener, Stream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let stream = Stream::open(source(port), start()).unwrap();
    (listener, stream)
}

fn source(port: u16) -> Source {
    let text = format!(
        "source: {{ host: 127.0.0.1, port: {port}, database: app, user: me, tls: disable }}\n\
         planhat: {{ tenant: 11111111-2222-4333-8444-555555555555 }}\n\
         sections:\n  - {{ name: m, kind: custom_metric, model: Company, table: m, key: id, \
         fields: {{ dimensionId: {{ value: d }}, value: v, externalId: e }} }}\n"
    );
    config::parse(&text, "test").unwrap_or_else(|errors| panic!("{errors}")).source
}

fn start() -> StreamStart {
    StreamStart {
        slot: "s".to_owned(),
        publication: "p".to_owned(),
        updates: None,
        server: Some(("1234".to_owned(), 1)),
        from: Lsn(0x1000),
        again_from: None,
        max_message: 64 << 10,
        status_interval: Duration::from_secs(5),
        patience: Duration::from_secs(11),
    }
}

#[tokio::test]
async fn case_04_a_flood_of_keepalives_is_answered_at_most_ten_times_a_second() {
    let (listener, mut stream) = open().await;
    let server = walsender(&listener).await.expect("a copy");
    let reading = tokio::spawn(async move {
        while stream.events.recv().await.is_some() {
            stream.control.beat()
        }
    });
    let (mut from, mut to) = server.into_split();
    // Status updates are 34 bytes in a CopyData message.
    let mut answers = tokio::spawn(async move {
        let mut counted = 0;
        let mut answer = [0; 39];
        while from.read_exact(&mut answer).await.is_ok() && answer[5] == b'r' {
            counted += 1;
        }
        counted
    });
    let (began, mut sent) = (Instant::now(), 0u64);
    while began.elapsed() < Duration::from_secs(2) {
        to.write_all(&keepalive(0x2000, true).repeat(20)).await.unwrap();
        sent += 20;
        // The client's messages must be taken meanwhile: what it has not read it cannot answer.
        tokio::task::yield_now().await;
    }
    to.shutdown().await.unwrap();
    let answers = (&mut answers).await.unwrap();
    assert!(sent > 1_000 && (1..=22).contains(&answers), "{sent} keepalives, {answers} answers in 2 s");
    reading.await.unwrap();
}

#[tokio::test]
async fn case_14_unknown_messages_are_counted_and_a_long_row_is_skimmed() {
    let (listener, mut stream) = open().await;
    let mut server = walsender(&listener).await.expect("a copy");
    let large = vec![b'x'; 9 << 20];
    let sent = [
        data(b"zunknown in a later version"),
        message(b'd', b"?another copy message"),
        insert(&[b"1", b"small"]),
        insert(&[b"2", &large, b"end"]),
        data(&[b"D".as_slice(), &large].concat()),
        insert(&[b"3", b"small"]),
        message(b'E', b"SERROR\0VERROR\0CXX000\0Minvalid memory alloc request size 1200000003\0\0"),
    ];
    let sending = tokio::spawn(async move {
        server.write_all(&sent.concat()).await.unwrap();
        server
    });
    let (mut decoder, mut seen) = (Decoder::default(), Vec::new());
    let ended = loop {
        match stream.events.recv().await.expect("an end") {
            StreamEvent::Started(_) => {}
            StreamEvent::Ended(ended) => break ended,
            StreamEvent::Run(run) => {
                decoder.feed(run);
                while let Some(item) = decoder.next_item().unwrap() {
                    seen.push(match item {
                        DecodedItem::Ignored(kind) => kind.to_owned(),
                        DecodedItem::Insert(7, _, row) => (0..3)
                            .map(|index| match row.get(index) {
                                Value::Text(text) => String::from_utf8(text.to_vec()).unwrap(),
                                Value::Null => "null".to_owned(),
                                Value::Oversize => "oversize".to_owned(),
                                Value::Unknown => "unknown".to_owned(),
                            })
                            .collect::<Vec<_>>()
                            .join(" "),
                        other @ (DecodedItem::Begin(..)
                        | DecodedItem::Insert(..)
                        | DecodedItem::Update(..)
                        | DecodedItem::Commit(_)
                        | DecodedItem::Keepalive(_)
                        | DecodedItem::Table(_)) => panic!("{other:?}"),
                    });
                }
            }
        }
    };
    assert_eq!(seen, ["unknown", "unknown", "1 small null", "2 oversize end", "delete", "3 small null"]);
    assert_eq!(ended.fate, EndReason::Wedged);
    assert!(ended.fault.remedy.contains("repair --gap"), "{}", ended.fault);
    drop(sending.await.unwrap());
}

#[tokio::test]
async fn case_21_a_slot_past_the_checkpoint_is_not_taken() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    for start in [
        StreamStart { from: Lsn(0x0fff), ..start() },
        StreamStart { from: Lsn(0x2001), ..start() },
        StreamStart { server: Some(("1234".to_owned(), 2)), ..start() },
        StreamStart { server: Some(("4321".to_owned(), 1)), ..start() },
    ] {
        let mut stream = Stream::open(source(port), start.clone()).unwrap();
        let server = tokio::spawn(async move { stream.events.recv().await });
        let refused = tokio::select! {
            _ = walsender_until_closed(&listener) => panic!("taken: {start:?}"),
            event = server => event.unwrap().unwrap(),
        };
        assert!(matches!(&refused, StreamEvent::Ended(ended) if ended.fate == EndReason::Moved), "{refused:?}");
    }
}

/// A server whose disk is full begins the copy and fails in one breath, and says nothing more.
#[tokio::test]
async fn case_263_what_comes_with_the_beginning_of_the_copy_is_read() {
    let (listener, mut stream) = open().await;
    let full = message(b'E', b"SERROR\0VERROR\0C53100\0Mcould not write to file: No space left on device\0\0");
    let at_once = [data(b"zunknown"), full].concat();
    let server = walsender_that_says(&listener, &at_once).await.expect("a copy");
    let ended = tokio::time::timeout(Duration::from_secs(5), async {
        loop {
            if let StreamEvent::Ended(ended) = stream.events.recv().await.expect("an end") {
                return ended;
            }
        }
    });
    let ended = ended.await.expect("the error is read before any silence is over");
    assert_eq!(ended.fate, EndReason::Transient);
    assert!(ended.fault.what.contains("No space left") && ended.fault.remedy.contains("disk space"), "{}", ended.fault);
    drop(server);
}

/// Ends only when the copy has begun.
async fn walsender_until_closed(listener: &TcpListener) {
    if walsender(listener).await.is_none() {
        std::future::pending::<()>().await;
    }
}
