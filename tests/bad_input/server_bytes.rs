//! What answers at the source's port: bytes before authentication, and after.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use crate::{Case, judge, right};

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    [&[tag][..], &(u32::try_from(body.len()).unwrap() + 4).to_be_bytes(), body].concat()
}

/// What a server does with each connection, once it has read what came first.
#[derive(Clone)]
enum Script {
    /// These bytes, and the end.
    Says(Vec<u8>),
    /// These bytes, then these again and again.
    Endless(Vec<u8>, Vec<u8>),
    /// These bytes, and silence.
    Silent(Vec<u8>),
}

/// Serves until the test process ends.
pub(crate) fn serve(act: impl Fn(TcpStream) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let act = std::sync::Arc::new(act);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let act = act.clone();
            std::thread::spawn(move || act(stream));
        }
    });
    port
}

fn play(mut stream: TcpStream, script: &Script) {
    stream.set_read_timeout(Some(Duration::from_secs(12))).unwrap();
    drop(stream.read(&mut [0; 4096]));
    match script {
        Script::Says(bytes) => drop(stream.write_all(bytes)),
        Script::Endless(first, again) => {
            let again = again.repeat(1 + (64 << 10) / again.len());
            let mut going = stream.write_all(first).is_ok();
            while going {
                going = stream.write_all(&again).is_ok();
            }
        }
        Script::Silent(bytes) => {
            drop(stream.write_all(bytes));
            while stream.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {}
        }
    }
}

fn scripts() -> Vec<(String, Script)> {
    let ok = message(b'R', &[0, 0, 0, 0]);
    let ready = message(b'Z', b"I");
    let status = message(b'S', b"server_version\x0015.0\0");
    let greeted = [ok.clone(), status.clone(), ready.clone()].concat();
    let evil = "x\x1b[2J\u{9b}2J\u{202e}\r\nerror: forged\n  remedy: forged";
    let error =
        |code: &str| message(b'E', format!("SFATAL\0VFATAL\0C{code}\0M{evil}\0D{evil}\0H{evil}\0\0").as_bytes());
    let mut all: Vec<(String, Script)> = vec![
        ("the end at once".into(), Script::Says(Vec::new())),
        ("HTTP".into(), Script::Says(b"HTTP/1.1 400 Bad Request\r\nServer: \x1b[2J\r\n\r\n".to_vec())),
        ("SSH".into(), Script::Says(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec())),
        ("an SSL refusal".into(), Script::Says(b"N".to_vec())),
        ("an SSL yes and nonsense".into(), Script::Says([b"S".to_vec(), vec![7; 500]].concat())),
        ("silence".into(), Script::Silent(Vec::new())),
        ("silence after the greeting".into(), Script::Silent(greeted.clone())),
        ("silence after authentication".into(), Script::Silent(ok.clone())),
        ("zeros for ever".into(), Script::Endless(Vec::new(), vec![0])),
        ("ones for ever".into(), Script::Endless(Vec::new(), vec![0xff])),
        ("status for ever".into(), Script::Endless(ok.clone(), status)),
        (
            "notices for ever".into(),
            Script::Endless(ok.clone(), message(b'N', format!("SNOTICE\0M{evil}\0\0").as_bytes())),
        ),
        ("notices for ever, ready".into(), Script::Endless(greeted.clone(), message(b'N', b"SNOTICE\0C00000\0Mx\0\0"))),
        ("a header of 2 GiB".into(), Script::Endless([&b"R"[..], &0x7fff_ffff_u32.to_be_bytes()].concat(), vec![0])),
        ("a header of 4 GiB".into(), Script::Endless([&b"E"[..], &u32::MAX.to_be_bytes()].concat(), vec![b'x'])),
        ("a header of 0".into(), Script::Says([&b"R"[..], &[0; 4]].concat())),
        ("a header of 3".into(), Script::Says([&b"S"[..], &3_u32.to_be_bytes(), b"abc"].concat())),
        (
            "rows before they were asked for".into(),
            Script::Endless(greeted.clone(), message(b'D', &[0, 1, 0, 0, 0, 1, b'x'])),
        ),
        (
            "a row of 2 GiB".into(),
            Script::Endless([greeted.clone(), [&b"D"[..], &0x7fff_ffff_u32.to_be_bytes()].concat()].concat(), vec![0]),
        ),
        ("a SASL list without an end".into(), Script::Says(message(b'R', b"\0\0\0\x0aSCRAM-SHA-256"))),
        (
            "SASL, then nonsense".into(),
            Script::Says(
                [message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0"), message(b'R', b"\0\0\0\x0br=\x1b,s=!,i=0")].concat(),
            ),
        ),
        (
            "SASL with a billion iterations".into(),
            Script::Silent(
                [message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0"), message(b'R', b"\0\0\0\x0br=x,s=QUJD,i=999999999")]
                    .concat(),
            ),
        ),
        ("kerberos".into(), Script::Says(message(b'R', &[0, 0, 0, 7]))),
        ("method 99".into(), Script::Says(message(b'R', &[0, 0, 0, 99]))),
        ("an MD5 without salt".into(), Script::Says(message(b'R', &[0, 0, 0, 5]))),
        ("COPY unasked".into(), Script::Says([greeted.clone(), message(b'W', &[0, 0, 0])].concat())),
    ];
    for code in ["28P01", "28000", "3D000", "57P03", "53300", "XX000", "42501", "", "\x1b[2J", "55006", "08P01"] {
        all.push((format!("error {code:?}"), Script::Says(error(code))));
        all.push((format!("error {code:?} after the greeting"), Script::Says([greeted.clone(), error(code)].concat())));
    }
    for tag in 0..=255_u8 {
        if tag % 8 == 3 {
            all.push((format!("message {tag}"), Script::Says(message(tag, b"abc\0\x1b[2J\0"))));
            all.push((
                format!("message {tag} when ready"),
                Script::Says([greeted.clone(), message(tag, b"abc\0\0")].concat()),
            ));
        }
    }
    all
}

#[test]
fn case_100_102_103_a_server_that_talks_nonsense() {
    let mut cases = Vec::new();
    for (number, (name, script)) in scripts().into_iter().enumerate() {
        let port = serve(move |stream| play(stream, &script));
        let file = right(port, 1);
        let arguments: &[&str] = match number % 3 {
            0 => &["discover"],
            1 => &["check"],
            _ => &["query", "--timeout", "2s", "SELECT 1"],
        };
        cases.push(Case::new(format!("{name}, {arguments:?}"), file.clone(), arguments));
        if name.contains("SSL") || number % 10 == 0 {
            cases.push(Case::new(
                format!("{name}, by TLS"),
                file.replace("tls: disable", "tls: require"),
                &["discover"],
            ));
        }
    }
    assert!(cases.len() > 100);
    judge(&cases);
}
