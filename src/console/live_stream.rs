//! The live stream: it sends the pieces of a page that change by themselves to the browsers that show it.
//!
//! * In: a page's name and parameters; the program, once a second.
//! * Out: server-sent events: a piece's name and its markup, only where it changed; rows of the ledger, each once.
//! * Never: a stream that outlives its session, the program's end or 15 minutes; a question to anybody while no page is
//!   open.

use std::collections::HashMap;
use std::convert::Infallible;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use axum::Extension;
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream};
use tokio::sync::OwnedSemaphorePermit;

use crate::console::ask::Ask;
use crate::console::draw::Markup;
use crate::console::fragments::pieces::Fragments;
use crate::console::fragments::section_fragments::batch_row;
use crate::console::page_view::{PageView, nav};
use crate::console::pages::{overview_page, quarantine_page, section_page};
use crate::console::problem::Refusal;
use crate::console::who::who;
use crate::state::{DeliveryFilter, DeliveryRow};

/// A stream looks at the program of this process this often.
const EVERY: Duration = Duration::from_secs(1);
/// A stream looks at a program elsewhere this often, because each look costs connections.
const ELSEWHERE: Duration = Duration::from_secs(3);
/// A stream ends after this long, and the page opens a new one.
const MOST: Duration = Duration::from_secs(15 * 60);
/// A browser opens a stream that has ended again after this long.
const AGAIN: Duration = Duration::from_secs(1);
/// A stream sends at most this many rows of the ledger per look.
const ROWS: u32 = 1000;

/// The state of one open stream.
struct Follower {
    ask: Ask,
    /// The headers and the address of the request. They must go on naming the same person.
    headers: HeaderMap,
    peer: Option<IpAddr>,
    began: Instant,
    /// The hash of the last markup that was sent, by the piece's name.
    sent: HashMap<&'static str, u64>,
    /// The number of the last write of the ledger that was sent; `None` where the page does not follow the ledger.
    after: Option<i64>,
    /// Whether the program was looked at before.
    looked: bool,
    waiting: Vec<Event>,
    over: bool,
    _place: OwnedSemaphorePermit,
}

/// Opens a stream.
pub(crate) async fn live(
    ask: Ask,
    peer: Option<Extension<ConnectInfo<SocketAddr>>>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    section_page::ledger_filter(&ask)?;
    let place = std::sync::Arc::clone(&ask.console.streams).try_acquire_owned();
    let place = place.map_err(|_| Refusal::busy("16 pages follow the program already"))?;
    let resumed = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let after = resumed.or_else(|| ask.given("after").parse().ok());
    let (began, sent, peer) = (Instant::now(), HashMap::new(), peer.map(|Extension(ConnectInfo(peer))| peer.ip()));
    let (looked, waiting, over) = (false, Vec::new(), false);
    let follower = Follower { ask, headers, peer, began, sent, after, looked, waiting, over, _place: place };
    let alive = KeepAlive::new().interval(Duration::from_secs(15)).text("");
    let mut answer = Sse::new(follower.events()).keep_alive(alive).into_response();
    let unbuffered = HeaderName::from_static("x-accel-buffering");
    answer.headers_mut().insert(unbuffered, HeaderValue::from_static("no"));
    Ok(answer)
}

impl Follower {
    fn events(self) -> impl Stream<Item = Result<Event, Infallible>> {
        stream::unfold(self, |mut follower| async move {
            loop {
                if !follower.waiting.is_empty() {
                    let event = follower.waiting.remove(0);
                    return Some((Ok(event), follower));
                }
                if follower.over {
                    return None;
                }
                follower.look().await;
            }
        })
    }

    /// Waits for the next moment, and collects what has changed.
    async fn look(&mut self) {
        let first = !std::mem::replace(&mut self.looked, true);
        let pause = if self.ask.console.program.is_here() { EVERY } else { ELSEWHERE };
        let pause = if first { Duration::from_millis(50) } else { pause };
        tokio::select! {
            () = self.ask.console.stop.asked() => {
                self.waiting.push(Event::default().event("bye").data("2"));
                self.over = true;
                return;
            }
            () = tokio::time::sleep(pause) => {}
        }
        // The person may have logged out or changed roles, and then may not see this any more.
        if who(&self.ask.console, &self.headers, self.peer, false).as_ref() != Some(&self.ask.person) {
            self.waiting.push(Event::default().event("out").data("1"));
            self.over = true;
            return;
        }
        if self.began.elapsed() > MOST {
            self.over = true;
            return;
        }
        match self.pieces().await {
            Ok(pieces) => {
                for (name, piece) in pieces.0 {
                    self.send(name, &piece);
                }
            }
            Err(refusal) => {
                // The page replaces its verdict by the loss: what was sent before does not stand there any more.
                self.sent.clear();
                self.waiting.push(Event::default().event("gone").data(one_line(&refusal.what).replace('\n', " ")));
                return;
            }
        }
        self.rows().await;
        let clock = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let mut clock = Event::default().event("clock").data(clock);
        if first {
            clock = clock.retry(AGAIN);
        }
        self.waiting.push(clock);
    }

    async fn pieces(&self) -> Result<Fragments, Refusal> {
        let view = self.ask.console.view().await?;
        let mut pieces = match self.ask.given("page") {
            "overview" => overview_page::fragments(&self.ask, &view).await,
            "section" => section_page::fragments(&self.ask, &view, self.ask.given("name")).await?,
            "quarantine" => quarantine_page::fragments(&self.ask).await,
            _ => Fragments::default(),
        };
        pieces.add("nav", self.menu(&view));
        Ok(pieces)
    }

    fn menu(&self, view: &PageView) -> Markup {
        let page = self.ask.given("page");
        let at = if self.ask.given("at").is_empty() { page } else { self.ask.given("at") };
        nav(view, at, self.ask.given("name"))
    }

    fn send(&mut self, name: &'static str, piece: &Markup) {
        let hash = hash_of(&piece.0);
        if self.sent.insert(name, hash) != Some(hash) {
            // A browser ignores an event without data, and a piece that became empty would stay on the page.
            let text = if piece.0.is_empty() { " ".to_owned() } else { one_line(&piece.0) };
            self.waiting.push(Event::default().event(name).data(text));
        }
    }

    /// Collects the rows of the ledger that were written since the last one that was sent.
    async fn rows(&mut self) {
        let Some(after) = self.after else { return };
        let Ok(filter) = section_page::ledger_filter(&self.ask) else { return };
        let filter = DeliveryFilter { changed_after: Some(after), ..filter };
        let Ok(store) = self.ask.console.store().await else { return };
        let Ok(rows) = store.deliveries(&filter, ROWS).await else { return };
        let words = self.ask.sees_rows();
        for row in rows {
            self.after = Some(row.changed);
            self.waiting.push(event_of(&row, words));
        }
    }
}

fn event_of(row: &DeliveryRow, words: bool) -> Event {
    let id = row.changed.to_string();
    Event::default().event("batch").id(id).data(one_line(&batch_row(row, true, words).0))
}

/// Returns the hash of a piece. Ages are left out: the page counts them on by itself, and a list of two hundred sections
/// would be sent each second for them alone.
fn hash_of(piece: &str) -> u64 {
    const AGE: &str = " data-age>";
    let (mut hasher, mut rest) = (DefaultHasher::new(), piece);
    while let Some(at) = rest.find(AGE) {
        let (before, age) = rest.split_at(at + AGE.len());
        before.hash(&mut hasher);
        rest = age.find('<').map_or("", |end| &age[end..]);
    }
    rest.hash(&mut hasher);
    hasher.finish()
}

/// Removes carriage returns, because one would end the field of an event.
fn one_line(text: &str) -> String {
    text.replace('\r', " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::draw::age;

    #[test]
    fn a_piece_is_not_sent_again_for_its_ages() {
        let piece = |at: &str, seconds, name: &str| hash_of(&format!("<td>{}</td><b>{name}</b>", age(at, seconds)));
        let at = "2026-11-26T00:51:06Z";
        assert_eq!(piece(at, 0.4, "a"), piece(at, 75.0, "a"));
        assert_ne!(piece(at, 0.4, "a"), piece("2026-11-26T00:51:07Z", 0.4, "a"));
        assert_ne!(piece(at, 0.4, "a"), piece(at, 0.4, "b"));
    }
}
