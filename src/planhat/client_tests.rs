//! Over real sockets: each server is written by hand, down to the bytes.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::*;
use crate::config::{ActivityNames, Kind};

const TENANT: &str = "7f2c8e0a-1b1d-4c57-9a3e-0d7c5b1f2a33";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{\"processed\":1}";
/// Far more than two socket buffers hold.
const HUGE: usize = 48 << 20;

fn planhat(url: &str, timeout: Duration) -> Planhat {
    Planhat {
        tenant: Secret::Inline(format!("{TENANT}\n")),
        url: url.to_owned(),
        bulk_activity_names: ActivityNames::Current,
        timeout,
        halt_probe: Duration::from_secs(60),
    }
}

/// A server that treats every connection by `serve`, given its number from 0; its URL.
async fn server<F: Future<Output = ()> + Send + 'static>(
    serve: impl Fn(TcpStream, usize) -> F + Send + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        for number in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(stream, number));
        }
    });
    url
}

/// A server that reads one whole request and answers with these bytes, then keeps the connection open.
async fn answering(answer: impl Into<String>) -> String {
    let answer: Arc<str> = answer.into().into();
    server(move |mut stream, _| {
        let answer = answer.clone();
        async move {
            while read_request(&mut stream).await.is_some() {
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    })
    .await
}

/// One request's head and body.
async fn read_request(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.to_lowercase().split("content-length: ").nth(1)?.split("\r\n").next()?.parse().ok()?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some((head, body))
}

async fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

async fn send_with(url: &str, timeout: Duration, body: impl Into<Bytes>) -> Answer {
    let planhat = planhat(url, timeout);
    let endpoint = Endpoint::new(&planhat, Kind::UserActivity).unwrap();
    let roots = rustls::RootCertStore::empty();
    Client::with_roots(&planhat, roots).unwrap().send(&endpoint, body.into()).await
}

async fn send(url: &str) -> Answer {
    send_with(url, Duration::from_secs(20), "[{\"a\":1}]").await
}

fn environment(answer: Answer) -> String {
    let Verdict::Environment { remedy } = answer.verdict else { panic!("{answer:?}") };
    remedy
}

#[tokio::test]
async fn asks_as_planhat_expects() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let url = server(move |mut stream, _| {
        let tell = tell.clone();
        async move {
            let request = read_request(&mut stream).await.unwrap();
            stream.write_all(OK.as_bytes()).await.unwrap();
            tell.send(request).unwrap();
        }
    })
    .await;
    let body: Bytes = (0..=250u8).cycle().take(200_000).collect();
    let answer = send_with(&url, Duration::from_secs(20), body.clone()).await;
    assert_eq!(answer, Answer { verdict: Verdict::Received, status: Some(200), message: String::new() });
    let (head, received) = told.recv().await.unwrap();
    assert_eq!(received, body);
    let head = head.to_lowercase();
    assert!(head.starts_with(&format!("post /analytics/bulk/{TENANT} http/1.1\r\n")), "{head}");
    for line in ["content-type: application/json", "content-length: 200000", "accept-encoding: identity"] {
        assert!(head.contains(line), "{head}");
    }
    assert!(head.contains(concat!("user-agent: pg2planhat/", env!("CARGO_PKG_VERSION"))), "{head}");
    assert!(!head.contains("transfer-encoding") && !head.contains("expect"), "{head}");
}

#[tokio::test]
async fn what_never_left_is_not_in_doubt() {
    let refused = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let answer = send(&format!("http://{refused}")).await;
    assert_eq!(answer.verdict, Verdict::NotSent);
    assert!(answer.message.to_lowercase().contains("refused"), "{}", answer.message);

    let plaintext = server(|mut stream, _| async move {
        stream.read_u8().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        std::future::pending().await
    })
    .await;
    let answer = send(&plaintext.replace("http:", "https:")).await;
    assert_eq!(answer.verdict, Verdict::NotSent);
    assert!(answer.message.contains("corrupt message"), "{}", answer.message);

    // The port takes the connection, and TLS gets no answer.
    let silent = server(|stream, _| async move {
        let _open = stream;
        std::future::pending().await
    })
    .await;
    let answer = send_with(&silent.replace("http:", "https:"), Duration::from_millis(300), "[]").await;
    assert_eq!(answer.verdict, Verdict::NotSent, "{}", answer.message);
}

/// Not under `tokio::test`: its runtime would wait at its end for a resolver that may be slow.
#[test]
fn an_unknown_name_is_not_in_doubt() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let answer = runtime.block_on(send_with("http://nonexistent.invalid", Duration::from_secs(1), "[]"));
    assert_eq!(answer.verdict, Verdict::NotSent, "{}", answer.message);
    runtime.shutdown_background();
}

#[tokio::test]
async fn half_a_body_is_not_in_doubt() {
    let closing = server(|mut stream, _| async move {
        stream.read_u8().await.unwrap();
        reset(stream).await;
    })
    .await;
    let answer = send_with(&closing, Duration::from_secs(20), vec![b' '; HUGE]).await;
    assert_eq!(answer.verdict, Verdict::Interrupted, "{}", answer.message);

    let stuck = server(|stream, _| async move {
        let _open = stream;
        std::future::pending().await
    })
    .await;
    let answer = send_with(&stuck, Duration::from_millis(500), vec![b' '; HUGE]).await;
    assert_eq!(answer.verdict, Verdict::Interrupted, "{}", answer.message);
}

#[tokio::test]
async fn a_request_without_an_answer_is_in_doubt() {
    let resetting = server(|mut stream, _| async move {
        read_request(&mut stream).await.unwrap();
        reset(stream).await;
    })
    .await;
    let closing = server(|mut stream, _| async move {
        read_request(&mut stream).await.unwrap();
    })
    .await;
    let unread = server(|mut stream, _| async move {
        stream.read_u8().await.unwrap();
        reset(stream).await;
    })
    .await;
    let garbage = answering("SSH-2.0-OpenSSH_9.2\r\n\r\n").await;
    for url in [resetting, closing, unread, garbage] {
        let answer = send(&url).await;
        assert_eq!((answer.verdict, answer.status), (Verdict::Unknown, None), "{}", answer.message);
    }
    let hanging = server(|mut stream, _| async move {
        read_request(&mut stream).await.unwrap();
        std::future::pending().await
    })
    .await;
    let answer = send_with(&hanging, Duration::from_millis(300), "[]").await;
    assert_eq!(answer.verdict, Verdict::Unknown);
    assert_eq!(answer.message, "in doubt: no answer within 300ms");
}

/// Two ways of not ending, and what has come until then.
async fn unending(beginning: &'static str, piece: Vec<u8>, between: Duration) -> String {
    server(move |mut stream, _| {
        let piece = piece.clone();
        async move {
            read_request(&mut stream).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").await.unwrap();
            stream.write_all(beginning.as_bytes()).await.unwrap();
            while stream.write_all(&piece).await.is_ok() {
                tokio::time::sleep(between).await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn an_answer_that_does_not_end_is_cut() {
    let endless = unending("{\"processed\":\"", vec![b'x'; 65536], Duration::ZERO).await;
    let answer = send(&endless).await;
    assert_eq!((&answer.verdict, answer.status), (&Verdict::Unreadable, Some(200)));
    assert_eq!(answer.message, "200: the answer cannot be read: it broke off: it is over 4194322 bytes long");

    let text = unending("OK ", vec![b'x'; 65536], Duration::ZERO).await;
    assert_eq!(send(&text).await.verdict, Verdict::Received, "no text refuses items, however long");

    let drip = unending("{", vec![b' '], Duration::from_millis(20)).await;
    let answer = send_with(&drip, Duration::from_millis(400), "[]").await;
    assert_eq!((&answer.verdict, answer.status), (&Verdict::Unreadable, Some(200)));
    assert!(answer.message.contains("did not end in time"), "{}", answer.message);
}

#[tokio::test]
async fn case_66_an_answer_cut_in_the_middle_is_unreadable() {
    let cut = server(|mut stream, _| async move {
        read_request(&mut stream).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{\"processed\":1,").await.unwrap();
    })
    .await;
    let answer = send(&cut).await;
    assert_eq!((answer.verdict, answer.status), (Verdict::Unreadable, Some(200)), "{}", answer.message);
    let headless = server(|mut stream, _| async move {
        read_request(&mut stream).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-").await.unwrap();
    })
    .await;
    assert_eq!(send(&headless).await.verdict, Verdict::Unknown);
}

#[tokio::test]
async fn redirects_are_named_and_not_followed() {
    let followed = Arc::new(AtomicUsize::new(0));
    let count = followed.clone();
    let target = server(move |_, _| {
        count.fetch_add(1, Ordering::SeqCst);
        async {}
    })
    .await;
    for status in [301, 302, 303, 307, 308] {
        let answer = format!("HTTP/1.1 {status} Moved\r\nLocation: {target}/{TENANT}\r\nContent-Length: 0\r\n\r\n");
        let remedy = environment(send(&answering(answer).await).await);
        assert!(remedy.contains("redirects to 127.0.0.1,"), "{remedy}");
    }
    assert_eq!(followed.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn headers_of_the_answer_arrive() {
    let page = answering("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\n<p>Hi").await;
    assert!(environment(send(&page).await).contains("web page"));
    let later = answering("HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(send(&later).await.verdict, Verdict::Later { retry_after: Some(Duration::from_secs(7)) });
    let encoded = answering("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\x1f\x08").await;
    assert_eq!(send(&encoded).await.verdict, Verdict::Unreadable);
}

/// Answers as proxies and old servers frame them.
#[tokio::test]
async fn case_66_odd_frames_of_a_whole_answer_are_read() {
    let document = "{\"processed\":1,\"errors\":[]}";
    let many: String = (0..300).map(|n| format!("X-Header-{n}: x\r\n")).collect();
    for head in [
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 500\r\n\r\n".to_owned(),
        "HTTP/1.0 200 OK\r\n\r\n".to_owned(),
        format!("HTTP/1.1 200 OK\r\nConnection: close\r\n{many}\r\n"),
    ] {
        let answer = format!("{head}{document}");
        let url = server(move |mut stream, _| {
            let answer = answer.clone();
            async move {
                read_request(&mut stream).await.unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        })
        .await;
        assert_eq!(send(&url).await.verdict, Verdict::Received, "{head}");
    }
    // Less promised than sent: what was promised is no document.
    let short = answering(format!("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{document}")).await;
    assert_eq!(send(&short).await.verdict, Verdict::Unreadable);
    // A chunk that ends in the middle, and one whose end is missing behind a whole document.
    for (chunk, verdict) in
        [("500\r\n{\"processed\":1,", Verdict::Unreadable), ("500\r\n{\"processed\":1}", Verdict::Received)]
    {
        let url = server(move |mut stream, _| async move {
            read_request(&mut stream).await.unwrap();
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            stream.write_all(format!("{head}{chunk}").as_bytes()).await.unwrap();
        })
        .await;
        assert_eq!(send(&url).await.verdict, verdict, "{chunk}");
    }
}

#[tokio::test]
async fn case_65_a_5xx_is_in_doubt_once_the_request_has_left() {
    let bad_gateway = answering("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n").await;
    let answer = send(&bad_gateway).await;
    assert_eq!((answer.verdict, answer.status), (Verdict::Unknown, Some(502)));
    // Before that nobody can have the batch.
    let early = server(|mut stream, _| async move {
        stream.read_u8().await.unwrap();
        stream.write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let answer = send_with(&early, Duration::from_secs(20), vec![b' '; HUGE]).await;
    assert_eq!(answer.verdict, Verdict::Later { retry_after: None }, "{}", answer.message);
}

#[tokio::test]
async fn interim_answers_are_passed_over() {
    let interim = format!("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n{OK}");
    assert_eq!(send(&answering(interim).await).await.verdict, Verdict::Received);
    let only = server(|mut stream, _| async move {
        stream.peek(&mut [0]).await.unwrap();
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
        read_request(&mut stream).await.unwrap();
    })
    .await;
    assert_eq!(send(&only).await.verdict, Verdict::Unknown);
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_request() {
    let early = |status: &'static str| {
        server(move |mut stream, _| async move {
            stream.read_u8().await.unwrap();
            stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes()).await.unwrap();
            // Nothing more is read: what was sent stays in the sockets.
            std::future::pending::<()>().await;
        })
    };
    let answer = send_with(&early("413 Too Large").await, Duration::from_secs(20), vec![b' '; HUGE]).await;
    assert_eq!(answer.verdict, Verdict::TooLarge, "{}", answer.message);
    let answer = send_with(&early("200 OK").await, Duration::from_secs(20), vec![b' '; HUGE]).await;
    assert_eq!(answer.verdict, Verdict::Interrupted, "{}", answer.message);
}

#[tokio::test]
async fn a_connection_that_was_closed_while_idle_is_no_doubt() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let url = server(move |mut stream, number| {
        let tell = tell.clone();
        async move {
            read_request(&mut stream).await.unwrap();
            stream.write_all(OK.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            // The client has seen the close when it closes its own side.
            while stream.read_u8().await.is_ok() {}
            tell.send(number).unwrap();
        }
    })
    .await;
    let planhat = planhat(&url, Duration::from_secs(20));
    let client = Client::new(&planhat).unwrap();
    let endpoint = Endpoint::new(&planhat, Kind::UserActivity).unwrap();
    for number in 0..20 {
        assert_eq!(client.send(&endpoint, "[]".into()).await.verdict, Verdict::Received, "{number}");
        assert_eq!(told.recv().await, Some(number));
    }
}

#[tokio::test]
async fn connections_are_kept_for_the_next_batch() {
    let url = server(|mut stream, number| async move {
        assert_eq!(number, 0, "a second connection");
        while read_request(&mut stream).await.is_some() {
            stream.write_all(OK.as_bytes()).await.unwrap();
        }
    })
    .await;
    let planhat = planhat(&url, Duration::from_secs(20));
    let client = Client::new(&planhat).unwrap();
    let endpoint = Endpoint::new(&planhat, Kind::UserActivity).unwrap();
    for _ in 0..5 {
        assert_eq!(client.send(&endpoint, "[]".into()).await.verdict, Verdict::Received);
    }
}

#[tokio::test]
async fn the_tenant_is_in_no_text() {
    let echo = format!("no tenant {} at /x/{TENANT}", TENANT.to_uppercase());
    let errors = format!("{{\"errors\":[{{\"error\":\"{echo}\"}}]}}");
    for (status, body) in [(403, &echo), (400, &echo), (500, &echo), (200, &errors)] {
        let length = body.len();
        let url = answering(format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n{body}")).await;
        let shown = format!("{:?}", send(&url).await).to_lowercase();
        assert!(!shown.contains(TENANT) && shown.contains('…'), "{shown}");
    }
    let client = Client::new(&planhat("http://127.0.0.1:1", Duration::from_secs(1))).unwrap();
    assert!(!format!("{client:?}").contains(TENANT));
}

#[tokio::test]
async fn a_tenant_file_that_was_mended_heals() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "good\n").unwrap();
    let url = answering(OK).await;
    let planhat = Planhat { tenant: Secret::File(file.path().into()), ..planhat(&url, Duration::from_secs(20)) };
    let client = Client::new(&planhat).unwrap();
    let endpoint = Endpoint::new(&planhat, Kind::UserActivity).unwrap();
    std::fs::write(file.path(), "in two words").unwrap();
    assert!(environment(client.send(&endpoint, "[]".into()).await).contains("planhat.tenant"));
    std::fs::write(file.path(), "good").unwrap();
    assert_eq!(client.send(&endpoint, "[]".into()).await.verdict, Verdict::Received);
}

#[tokio::test]
async fn tls_is_verified() {
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(pair.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![pair.cert.der().clone()], key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let url = server(move |stream, _| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let mut buffer = [0; 4096];
            while stream.read(&mut buffer).await.is_ok_and(|n| n > 0 && !buffer[..n].ends_with(b"]")) {}
            stream.write_all(OK.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    })
    .await;
    let planhat = planhat(&url.replace("http://127.0.0.1", "https://localhost"), Duration::from_secs(20));
    let endpoint = Endpoint::new(&planhat, Kind::UserActivity).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(pair.cert.der().clone()).unwrap();
    let trusting = Client::with_roots(&planhat, roots).unwrap();
    assert_eq!(trusting.send(&endpoint, "[{}]".into()).await.verdict, Verdict::Received);
    let wary = Client::with_roots(&planhat, rustls::RootCertStore::empty()).unwrap();
    let answer = wary.send(&endpoint, "[{}]".into()).await;
    assert_eq!(answer.verdict, Verdict::NotSent, "{}", answer.message);
    assert!(answer.message.contains("certificate"), "{}", answer.message);
}
