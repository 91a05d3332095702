//! What an answer means: the table in docs/planhat.md. Pure: `now` is passed in.
//!
//! * In: a status, a few headers, as much of the body as was kept, and whether that is all of it.
//! * Out: an [`Answer`].
//! * Never: a 2xx taken as "all received" while refused items may still be named in bytes that did not come; an item
//!   blamed for what the surroundings did.
//!
//! Planhat answers 200 to almost anything, with a JSON object, any text, or nothing (docs/planhat.md, "Answers"): only a JSON
//! object with a non-empty `errors` refuses items, and only a page of HTML shows that somebody else answered.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::model::backoff::RETRY_AFTER_CAP;
use crate::planhat::inflate::{Inflated, inflate};
use crate::planhat::{Answer, Echo, SinkRejection, Verdict};

/// An HTTP answer, as far as it matters.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reply<'a> {
    pub status: u16,
    pub content_type: Option<&'a str>,
    /// `Content-Encoding`; the request asks for none.
    pub content_encoding: Option<&'a str>,
    pub retry_after: Option<&'a str>,
    /// `Date`: the server's own clock, against which its `Retry-After` is read.
    pub date: Option<&'a str>,
    pub location: Option<&'a str>,
    /// The body, or its beginning.
    pub body: &'a [u8],
    /// Whether `body` is all of it: false where it broke off, took too long or was too large.
    pub whole: bool,
}

/// The default bound on the bytes that a compressed answer may unpack to.
const ROOM: usize = 4 * 1024 * 1024;

/// Refusals of one answer that are read: more than a body can have items. Whatever follows changes nothing.
const MOST_REFUSALS: usize = 200_000;
/// Characters of one reason that are kept.
const REASON: usize = 500;

/// Reads an answer.
pub fn read(reply: &Reply<'_>, now: SystemTime) -> Answer {
    read_within(reply, now, ROOM)
}

/// Reads an answer that may unpack to `room` bytes.
pub(crate) fn read_within(reply: &Reply<'_>, now: SystemTime, room: usize) -> Answer {
    let inflated = inflate(reply.content_encoding, reply.body, room);
    let (reply, unreadable) = match &inflated {
        None => (*reply, None),
        Some(Ok(Inflated { body, whole })) => (Reply { body, whole: reply.whole && *whole, ..*reply }, None),
        Some(Err(why)) => (Reply { body: &[], ..*reply }, Some(why.as_str())),
    };
    let verdict = match reply.status {
        200..=299 => return read_success(&reply, unreadable, inflated.is_some()),
        400 | 409 | 422 => Verdict::BadItem,
        413 => Verdict::TooLarge,
        408 | 425 | 429 | 503 => Verdict::Later { retry_after: retry_after(&reply, now) },
        // A gateway gives these after the batch was stored as well as before, and above 599 nothing is agreed upon.
        500..=502 | 504..=u16::MAX => Verdict::Unknown,
        // 1xx is never a final answer; the rest of 3xx and 4xx speak of the request's form, its credential or its way, which
        // are the same for every batch.
        0..=199 | 300..=399 | 401..=407 | 410..=412 | 414..=421 | 423..=424 | 426..=428 | 430..=499 => {
            Verdict::Environment { remedy: remedy(&reply) }
        }
    };
    Answer { verdict, status: Some(reply.status), message: message(&reply) }
}

fn read_success(reply: &Reply<'_>, unreadable: Option<&str>, unpacked: bool) -> Answer {
    let answer = |verdict, message: String| Answer { verdict, status: Some(reply.status), message };
    let unread = |why: &str| answer(Verdict::Unreadable, format!("{}: the answer cannot be read: {why}", reply.status));
    if let Some(why) = unreadable {
        return unread(why);
    }
    let body = strip(reply.body);
    if is_html(reply.content_type, body) {
        let remedy = "a web page answered in Planhat's place: check planhat.url, and what stands between (a proxy, a \
                      login page, a firewall)";
        return answer(Verdict::Environment { remedy: remedy.to_owned() }, message(reply));
    }
    match body.first() {
        // The body is empty, or is the beginning of what may be a page.
        None | Some(b'<') if !reply.whole => unread("it broke off"),
        // No server compresses a single word, and a body that unpacks beyond all bounds is not an answer.
        Some(0..b'{') | Some(b'|'..) if !reply.whole && unpacked => unread("it is compressed, and does not end"),
        // A body that begins otherwise is no JSON object, however it goes on, and so refuses nothing.
        None | Some(0..b'{') | Some(b'|'..) => answer(Verdict::Received, String::new()),
        Some(b'{') => match refused_items(body) {
            // Whole documents are an answer, whatever length was promised and whatever follows.
            Ok(refused) if refused.is_empty() => answer(Verdict::Received, complaint(reply.status, body)),
            Ok(refused) => {
                let message = format!("{}: {} refused: {}", reply.status, refused.len(), excerpt(&refused[0].error));
                answer(Verdict::Partial(refused), message)
            }
            Err(_) if !reply.whole => unread("it broke off"),
            // A body that ends with its connection can be cut short without a sign, but for its JSON.
            Err(error) if error.is_eof() => unread("it broke off"),
            Err(_) if memchr::memmem::find(body, b"\"errors\"").is_some() => unread("it names errors, and is no JSON"),
            Err(_) => answer(Verdict::Received, String::new()),
        },
    }
}

/// Only the outer object is read: echoes stay raw until their turn, so that no echo, however deep or odd, hides the others.
#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow, default)]
    errors: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct ErrorEntry<'a> {
    #[serde(borrow, default)]
    item: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

/// The refusals of all documents of the body: as a rule there is one.
fn refused_items(body: &[u8]) -> Result<Vec<SinkRejection>, serde_json::Error> {
    let text = String::from_utf8_lossy(body);
    let mut refused = Vec::new();
    for (index, document) in serde_json::Deserializer::from_str(&text).into_iter::<&RawValue>().enumerate() {
        let document = match document {
            Ok(document) => document.get(),
            Err(error) if index == 0 => return Err(error),
            Err(_) => break,
        };
        if document.starts_with('{') {
            let Body { errors } = serde_json::from_str(document)?;
            refused.extend(errors.map(|errors| listed(errors.get())).transpose()?.unwrap_or_default());
        }
    }
    Ok(refused)
}

fn listed(errors: &str) -> Result<Vec<SinkRejection>, serde_json::Error> {
    match errors.as_bytes().first() {
        Some(b'[') => serde_json::from_str::<Listed>(errors).map(|listed| listed.0),
        // `errors` is not a list and not empty: something was refused, and the answer does not say which item.
        Some(b'{' | b'"' | b't' | b'1'..=b'9' | b'-') if !matches!(errors, "\"\"") && !is_empty_object(errors) => {
            Ok(vec![SinkRejection { item: None, error: text_of(errors) }])
        }
        Some(_) | None => Ok(Vec::new()),
    }
}

/// A list of refusals, read one by one: no more than one echo is parsed at a time.
struct Listed(Vec<SinkRejection>);

impl<'de> Deserialize<'de> for Listed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Listed, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Listed;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of refusals")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Listed, A::Error> {
                let mut refused = Vec::new();
                while let Some(raw) = list.next_element::<&RawValue>()? {
                    if refused.len() < MOST_REFUSALS {
                        refused.push(entry(raw));
                    }
                }
                Ok(Listed(refused))
            }
        }
        deserializer.deserialize_seq(List)
    }
}

fn is_empty_object(json: &str) -> bool {
    json.strip_prefix('{').is_some_and(|rest| rest.trim_start() == "}")
}

fn entry(raw: &RawValue) -> SinkRejection {
    match serde_json::from_str::<ErrorEntry<'_>>(raw.get()) {
        Ok(ErrorEntry { item: None, error: None }) => SinkRejection { item: None, error: text_of(raw.get()) },
        Ok(ErrorEntry { item, error }) => SinkRejection {
            item: item.and_then(|item| Echo::of(item.get().as_bytes())),
            error: error.map_or_else(|| "no reason was given".to_owned(), |error| text_of(error.get())),
        },
        Err(_) => SinkRejection { item: None, error: text_of(raw.get()) },
    }
}

/// A JSON string's content, or any other JSON as it is.
fn text_of(json: &str) -> String {
    let text = serde_json::from_str::<String>(json).unwrap_or_else(|_| json.chars().take(REASON).collect());
    let text = match text.char_indices().nth(REASON) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    };
    if text.trim().is_empty() || text == "null" { "no reason was given".to_owned() } else { text }
}

/// A 200 that refuses nothing, yet has an `error`, is acceptance by the contract; the ledger keeps what it said.
fn complaint(status: u16, body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct ErrorText<'a> {
        #[serde(borrow, default)]
        error: Option<&'a RawValue>,
    }
    let first = serde_json::Deserializer::from_slice(body).into_iter::<ErrorText<'_>>().next();
    match first.unwrap_or(Ok(ErrorText { error: None })) {
        Ok(ErrorText { error: Some(error) }) => format!("{status}, saying: {}", excerpt(&text_of(error.get()))),
        Ok(ErrorText { error: None }) | Err(_) => String::new(),
    }
}

/// The body behind a byte order mark and blanks.
fn strip(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body).trim_ascii_start()
}

/// `text/html` alone is no page: Express, on which Planhat's kind of server is built, says so of every string it sends.
fn is_html(content_type: Option<&str>, body: &[u8]) -> bool {
    if body.first() != Some(&b'<') {
        return false;
    }
    let says_html = content_type.is_some_and(|value| {
        let essence = value.split(';').next().unwrap_or_default().trim();
        essence.eq_ignore_ascii_case("text/html") || essence.eq_ignore_ascii_case("application/xhtml+xml")
    });
    let beginning = body[..body.len().min(1024)].to_ascii_lowercase();
    let has = |tag: &[u8]| memchr::memmem::find(&beginning, tag).is_some();
    says_html || has(b"<!doctype html") || has(b"<html")
}

/// `Retry-After` in seconds or as a date. What is over a day, in the past or unreadable is no advice.
fn retry_after(reply: &Reply<'_>, now: SystemTime) -> Option<Duration> {
    const ABSURD: Duration = Duration::from_secs(24 * 60 * 60);
    let text = reply.retry_after?.trim();
    let wait = if text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        Duration::try_from_secs_f64(text.parse().ok()?).ok()?
    } else {
        let server_now = reply.date.and_then(|date| httpdate::parse_http_date(date.trim()).ok()).unwrap_or(now);
        httpdate::parse_http_date(text).ok()?.duration_since(server_now).ok()?
    };
    (wait <= ABSURD && !wait.is_zero()).then(|| wait.min(RETRY_AFTER_CAP))
}

fn remedy(reply: &Reply<'_>) -> String {
    match reply.status {
        401 | 403 => "check planhat.tenant: it must be the tenant UUID of your Planhat; and that no proxy or firewall \
                      stands between that wants credentials of its own"
            .to_owned(),
        404 | 410 => {
            "check planhat.url (https://analytics.planhat.com) and planhat.tenant: this server has nothing at \
                      that path"
                .to_owned()
        }
        405 => {
            "check planhat.url: the server there takes no POST; Planhat's is https://analytics.planhat.com".to_owned()
        }
        407 => {
            "a proxy stands between and wants credentials: put them into HTTPS_PROXY, or name the host of planhat.url \
                in NO_PROXY"
                .to_owned()
        }
        300..=399 => format!(
            "the server redirects to {}, and redirects are not followed: set planhat.url to the server that takes the \
             items, or remove what redirects",
            redirect_host(reply.location)
        ),
        status => format!(
            "the server at planhat.url answered {status}, which Planhat is not known to do: check planhat.url, and what \
             stands between"
        ),
    }
}

/// The host that `Location` names; its path may hold the tenant, so it is left out.
fn redirect_host(location: Option<&str>) -> String {
    match location.map(|location| (location, reqwest::Url::parse(location))) {
        None => "nowhere (no Location header)".to_owned(),
        Some((_, Ok(url))) => url.host_str().unwrap_or("an address without a host").to_owned(),
        Some((text, Err(_))) => match text.strip_prefix("//").and_then(|rest| rest.split('/').next()) {
            Some(host) => excerpt(host),
            None => "another path of the same host".to_owned(),
        },
    }
}

fn message(reply: &Reply<'_>) -> String {
    let body = excerpt(&String::from_utf8_lossy(&reply.body[..reply.body.len().min(2048)]));
    if body.is_empty() { reply.status.to_string() } else { format!("{}: {body}", reply.status) }
}

/// The first 200 characters, on one line, without what would disturb a terminal.
fn excerpt(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    let line = words.collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(200) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
#[path = "response_tests.rs"]
mod tests;
