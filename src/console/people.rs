//! The people who may ask: tokens of the configuration, one-time links, and the sessions that cookies name.
//!
//! * In: tokens, links, cookies, and the time.
//! * Out: a [`Person`], or nobody.
//! * Never: a token or a session's id kept as plain text (only its digest is); a comparison that ends early.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use ring::rand::{SecureRandom as _, SystemRandom};
use sha2::{Digest as _, Sha256};

use crate::config::Role;

/// A session ends after this long without a request.
const IDLE: Duration = Duration::from_secs(8 * 3600);
/// A session ends after this long in any case.
const MOST: Duration = Duration::from_secs(24 * 3600);
/// A link opens a session within this time.
const LINK: Duration = Duration::from_secs(600);
/// At most this many sessions are open. A further one ends the session that was idle longest.
const SESSIONS: usize = 256;
/// At most this many logins fail per second, over all clients.
const FAILURES: u32 = 5;

/// A person who may ask, with a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Person {
    /// The name under which the person's actions are recorded.
    pub name: String,
    pub role: Role,
}

/// A token of the configuration: the digest of its text, and its person.
#[derive(Clone)]
pub(crate) struct Token {
    pub person: Person,
    pub sha256: [u8; 32],
}

#[derive(Debug)]
struct BrowserSession {
    person: Person,
    /// The digest of the token that opened it; `None` where a link did.
    token: Option<[u8; 32]>,
    began: Instant,
    last: Instant,
}

/// The tokens, the unused links and the open sessions.
#[derive(Default)]
pub(crate) struct Sessions {
    tokens: Vec<Token>,
    /// The links that were not used yet: the digest of the key, and the time it was made.
    links: Vec<([u8; 32], Instant)>,
    open: HashMap<[u8; 32], BrowserSession>,
    failures: Option<(Instant, u32)>,
}

/// The result of a login.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Login {
    /// The login succeeded, with the cookie's value and the person.
    In(String, Person),
    Wrong,
    /// Too many logins have failed within this second.
    Later,
}

impl Sessions {
    pub(crate) fn new(tokens: Vec<Token>) -> Sessions {
        Sessions { tokens, ..Sessions::default() }
    }

    /// Replaces the tokens, and ends the sessions that were opened by a token which is gone, or has another person now.
    pub(crate) fn renew(&mut self, tokens: Vec<Token>) {
        self.open.retain(|_, session| {
            let opened = |token: &Token| Some(token.sha256) == session.token && token.person == session.person;
            session.token.is_none() || tokens.iter().any(opened)
        });
        self.tokens = tokens;
    }

    /// Makes the key of a link, which opens one session within ten minutes.
    pub(crate) fn link(&mut self, now: Instant) -> Option<String> {
        let key = secret()?;
        self.links.retain(|(_, made)| now.saturating_duration_since(*made) < LINK);
        self.links.push((digest(&key), now));
        Some(key)
    }

    /// Returns the person of a token.
    pub(crate) fn bearer(&self, token: &str) -> Option<Person> {
        self.known(token).map(|token| token.person.clone())
    }

    /// Returns the token of the configuration that `given` is.
    fn known(&self, given: &str) -> Option<&Token> {
        let given = digest(given.trim());
        // Every entry is compared, so that the time says nothing about which one fits.
        self.tokens.iter().fold(None, |found, known| if same(&known.sha256, &given) { Some(known) } else { found })
    }

    /// Opens a session for a token, or for the key of a link.
    pub(crate) fn login(&mut self, given: &str, now: Instant) -> Login {
        let by_token = self.known(given).map(|token| (token.person.clone(), Some(token.sha256)));
        let opened = by_token.or_else(|| self.by_link(given, now).map(|person| (person, None)));
        let (Some((person, token)), Some(id)) = (opened, secret()) else {
            if let Some((second, failed)) = self.failures
                && now.saturating_duration_since(second) < Duration::from_secs(1)
                && failed >= FAILURES
            {
                return Login::Later;
            }
            let fresh = self.failures.is_none_or(|(second, _)| now.saturating_duration_since(second).as_secs() >= 1);
            self.failures = Some(if fresh { (now, 1) } else { self.failures.map_or((now, 1), |(at, n)| (at, n + 1)) });
            return Login::Wrong;
        };
        self.forget(now);
        let session = BrowserSession { person: person.clone(), token, began: now, last: now };
        self.open.insert(digest(&id), session);
        Login::In(id, person)
    }

    fn by_link(&mut self, given: &str, now: Instant) -> Option<Person> {
        let given = digest(given.trim());
        let at = self.links.iter().position(|(known, _)| same(known, &given))?;
        let (_, made) = self.links.remove(at);
        let name = "local".to_owned();
        (now.saturating_duration_since(made) < LINK).then_some(Person { name, role: Role::Operator })
    }

    /// Returns the person whose session the cookie names. A page that follows the program by itself does not count as
    /// `used`: a tab that somebody left open would keep the session for ever.
    pub(crate) fn of_cookie(&mut self, id: &str, now: Instant, used: bool) -> Option<Person> {
        let session = self.open.get_mut(&digest(id))?;
        let over =
            now.saturating_duration_since(session.last) >= IDLE || now.saturating_duration_since(session.began) >= MOST;
        if over {
            self.open.remove(&digest(id));
            return None;
        }
        if used {
            session.last = now;
        }
        Some(session.person.clone())
    }

    /// Ends a session.
    pub(crate) fn logout(&mut self, id: &str) {
        self.open.remove(&digest(id));
    }

    /// Ends sessions that were idle for too long, and the one idle longest where too many are open.
    fn forget(&mut self, now: Instant) {
        self.open.retain(|_, session| now.saturating_duration_since(session.last) < IDLE);
        if self.open.len() >= SESSIONS
            && let Some(id) = self.open.iter().min_by_key(|(_, session)| session.last).map(|(id, _)| *id)
        {
            self.open.remove(&id);
        }
    }
}

/// Returns 256 random bits as text; `None` where the system gives none.
pub(crate) fn secret() -> Option<String> {
    let mut bytes = [0_u8; 32];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(hex(&bytes))
}

/// Returns a new token in a form that secret scanners find.
pub(crate) fn new_token() -> Option<String> {
    secret().map(|secret| format!("pg2planhat_{secret}"))
}

/// Returns the SHA-256 of a text.
pub(crate) fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// Returns bytes as hexadecimal text.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |text, byte| text + &format!("{byte:02x}"))
}

/// Returns 32 bytes from their hexadecimal text.
pub(crate) fn unhex(text: &str) -> Option<[u8; 32]> {
    let text = text.trim();
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(at * 2..at * 2 + 2)?, 16).ok()?;
    }
    Some(bytes)
}

/// Compares two digests in constant time.
fn same(one: &[u8; 32], other: &[u8; 32]) -> bool {
    one.iter().zip(other).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sessions() -> Sessions {
        let token =
            |name: &str, role, text| Token { person: Person { name: name.to_owned(), role }, sha256: digest(text) };
        Sessions::new(vec![token("maria", Role::Operator, "one"), token("support", Role::Viewer, "two")])
    }

    fn opened(sessions: &mut Sessions, given: &str, now: Instant) -> String {
        match sessions.login(given, now) {
            Login::In(id, _) => id,
            Login::Wrong | Login::Later => panic!("{given} opens nothing"),
        }
    }

    #[test]
    fn a_token_opens_a_session_of_its_role() {
        let (mut sessions, now) = (sessions(), Instant::now());
        let id = opened(&mut sessions, " two\n", now);
        assert_eq!(sessions.of_cookie(&id, now, true).unwrap(), Person { name: "support".into(), role: Role::Viewer });
        assert_eq!(sessions.bearer("one").unwrap().role, Role::Operator);
        assert_eq!(sessions.bearer("three"), None);
        sessions.logout(&id);
        assert_eq!(sessions.of_cookie(&id, now, true), None);
    }

    #[test]
    fn a_session_ends_when_idle_and_after_a_day() {
        let (mut sessions, now) = (sessions(), Instant::now());
        let id = opened(&mut sessions, "one", now);
        assert_eq!(sessions.of_cookie(&id, now + IDLE, true), None);
        let id = opened(&mut sessions, "one", now);
        let mut at = now;
        while at < now + MOST - Duration::from_secs(3600) {
            at += Duration::from_secs(3600);
            assert!(sessions.of_cookie(&id, at, true).is_some());
        }
        assert_eq!(sessions.of_cookie(&id, now + MOST, true), None);
    }

    #[test]
    fn a_link_is_good_once_and_for_ten_minutes() {
        let (mut sessions, now) = (sessions(), Instant::now());
        let key = sessions.link(now).unwrap();
        opened(&mut sessions, &key, now);
        assert_eq!(sessions.login(&key, now), Login::Wrong);
        let late = sessions.link(now).unwrap();
        assert_eq!(sessions.login(&late, now + LINK), Login::Wrong);
    }

    #[test]
    fn case_233_sessions_end_with_their_token() {
        let (mut sessions, now) = (sessions(), Instant::now());
        let (maria, support) = (opened(&mut sessions, "one", now), opened(&mut sessions, "two", now));
        let key = sessions.link(now).unwrap();
        let local = opened(&mut sessions, &key, now);
        let person = |role| Person { name: "maria".into(), role };
        let token = |role, text| Token { person: person(role), sha256: digest(text) };
        sessions.renew(vec![token(Role::Operator, "one")]);
        assert!(sessions.of_cookie(&maria, now, true).is_some());
        assert_eq!(sessions.of_cookie(&support, now, true), None, "its token is gone");
        sessions.renew(vec![token(Role::Operator, "three")]);
        assert_eq!(
            sessions.of_cookie(&maria, now, true),
            None,
            "the token was changed: somebody else may know the old one"
        );
        let again = opened(&mut sessions, "three", now);
        sessions.renew(vec![token(Role::Viewer, "three")]);
        assert_eq!(sessions.of_cookie(&again, now, true), None, "it has another role");
        assert!(sessions.of_cookie(&local, now, true).is_some(), "a link needs no token");
    }

    #[test]
    fn case_233_an_open_tab_does_not_keep_a_session() {
        let (mut sessions, now) = (sessions(), Instant::now());
        let id = opened(&mut sessions, "one", now);
        let later = now + Duration::from_secs(8 * 3600 - 1);
        assert!(sessions.of_cookie(&id, later, false).is_some());
        assert_eq!(sessions.of_cookie(&id, later + Duration::from_secs(1), false), None);
    }

    #[test]
    fn failures_are_bounded_in_all() {
        let (mut sessions, now) = (sessions(), Instant::now());
        for _ in 0..FAILURES {
            assert_eq!(sessions.login("wrong", now), Login::Wrong);
        }
        assert_eq!(sessions.login("wrong", now), Login::Later);
        // Nobody guesses 256 bits; whoever tries must not keep others out.
        opened(&mut sessions, "one", now);
        assert_eq!(sessions.login("wrong", now + Duration::from_secs(1)), Login::Wrong);
    }

    #[test]
    fn there_are_never_more_than_so_many() {
        let (mut sessions, now) = (sessions(), Instant::now());
        let first = opened(&mut sessions, "one", now);
        for _ in 0..SESSIONS {
            opened(&mut sessions, "one", now + Duration::from_secs(1));
        }
        assert!(sessions.open.len() <= SESSIONS);
        assert_eq!(sessions.of_cookie(&first, now + Duration::from_secs(1), true), None);
    }

    #[test]
    fn secrets_differ_and_digests_read_back() {
        assert_ne!(secret(), secret());
        assert!(new_token().unwrap().starts_with("pg2planhat_"));
        assert_eq!(unhex(&hex(&digest("x"))), Some(digest("x")));
        assert_eq!(unhex("00"), None);
        assert_eq!(unhex(&"g".repeat(64)), None);
    }
}
