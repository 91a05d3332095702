//! The little HTTP that the tests need to ask the admin port.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The header lines.
    pub head: String,
    /// The body.
    pub body: String,
}

/// `GET path` from 127.0.0.1; an error if nobody answers within five seconds.
pub async fn get(port: u16, path: &str) -> Result<Answer, String> {
    get_as(port, path, &format!("127.0.0.1:{port}")).await
}

/// The same, with a Host header of one's choice.
pub async fn get_as(port: u16, path: &str, host: &str) -> Result<Answer, String> {
    // 1.0: the answer ends with the connection, and is never chunked.
    let request = format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n");
    let exchange = async {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = tokio::time::timeout(Duration::from_secs(5), exchange).await.map_err(|late| late.to_string())?;
    let answer = String::from_utf8(answer.map_err(|error| error.to_string())?).map_err(|error| error.to_string())?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| format!("not HTTP: {answer:?}"))?;
    let status =
        head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(|| format!("not HTTP: {head}"))?;
    Ok(Answer { status, head: head.to_owned(), body: body.to_owned() })
}
