//! Authentication: the client's side, message by message. Pure, but for the nonce.
//!
//! * In: the bodies of the server's Authentication messages.
//! * Out: the messages to answer with, until the server is satisfied.
//! * Never: a password, or its MD5 form, where somebody in between could read it; an `Ok` taken in the middle of
//!   SCRAM, before the server has proved that it knows the password too.

use bytes::BytesMut;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256};
use postgres_protocol::message::frontend;

use crate::model::Fault;
use crate::postgres::connection::params::Binding;

const OK: u32 = 0;
const CLEARTEXT: u32 = 3;
const MD5: u32 = 5;
const SASL: u32 = 10;
const SASL_CONTINUE: u32 = 11;
const SASL_FINAL: u32 = 12;

/// The client's side of an authentication.
pub(crate) struct Authenticator<'a> {
    pub place: String,
    pub user: &'a str,
    pub password: Option<&'a str>,
    /// Why a password file was ignored.
    pub passfile_note: Option<&'a str>,
    /// The `tls-server-end-point` hash of the TLS channel.
    pub end_point: Option<Vec<u8>>,
    pub binding: Binding,
    /// Whether the channel is private: nobody between client and server can read it.
    pub private: bool,
    pub state: AuthState,
}

pub(crate) enum AuthState {
    /// Nothing was asked yet.
    Start,
    /// The password was sent.
    Sent,
    /// The first SCRAM message was sent.
    Challenged(Box<ScramSha256>),
    /// The proof was sent; the server's is awaited.
    Proved(Box<ScramSha256>),
    /// The server has proved itself.
    Verified,
    /// The server is satisfied.
    Done,
}

/// The reaction to one message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum AuthStep {
    Send(BytesMut),
    Wait,
    Done,
}

impl<'a> Authenticator<'a> {
    /// Takes the body of one Authentication message.
    pub(crate) fn take(&mut self, body: &[u8]) -> Result<AuthStep, Fault> {
        let Some((code, data)) = body.split_first_chunk::<4>() else { return Err(self.confused()) };
        match (u32::from_be_bytes(*code), std::mem::replace(&mut self.state, AuthState::Done)) {
            (OK, AuthState::Start | AuthState::Sent) => {
                self.refuse_unbound()?;
                Ok(AuthStep::Done)
            }
            (OK, AuthState::Verified) => Ok(AuthStep::Done),
            (CLEARTEXT, AuthState::Start) => {
                self.refuse_readable("cleartext")?;
                self.refuse_unbound()?;
                let password = self.password()?;
                self.send(AuthState::Sent, |out| frontend::password_message(password.as_bytes(), out))
            }
            (MD5, AuthState::Start) => {
                self.refuse_readable("MD5")?;
                self.refuse_unbound()?;
                let salt = <[u8; 4]>::try_from(data).map_err(|_| self.confused())?;
                let hash = md5_hash(self.user.as_bytes(), self.password()?.as_bytes(), salt);
                self.send(AuthState::Sent, |out| frontend::password_message(hash.as_bytes(), out))
            }
            (SASL, AuthState::Start) => self.begin_scram(data),
            (SASL_CONTINUE, AuthState::Challenged(mut scram)) => {
                scram.update(data).map_err(|error| scram_failed(&self.place, &error.to_string()))?;
                let message = scram.message().to_vec();
                self.send(AuthState::Proved(scram), |out| frontend::sasl_response(&message, out))
            }
            (SASL_FINAL, AuthState::Proved(mut scram)) => {
                scram.finish(data).map_err(|error| scram_failed(&self.place, &error.to_string()))?;
                self.state = AuthState::Verified;
                Ok(AuthStep::Wait)
            }
            (2, AuthState::Start) => Err(unsupported(&self.place, "Kerberos V5")),
            (6, AuthState::Start) => Err(unsupported(&self.place, "SCM credentials")),
            (7, AuthState::Start) => Err(unsupported(&self.place, "GSSAPI")),
            (9, AuthState::Start) => Err(unsupported(&self.place, "SSPI")),
            _ => Err(self.confused()),
        }
    }

    fn begin_scram(&mut self, mechanisms: &[u8]) -> Result<AuthStep, Fault> {
        let offers = |name: &str| mechanisms.split(|byte| *byte == 0).any(|offer| offer == name.as_bytes());
        let bindable = self.end_point.clone().filter(|_| self.binding != Binding::Disable);
        let (mechanism, channel) = match (offers(SCRAM_SHA_256_PLUS), offers(SCRAM_SHA_256), bindable) {
            (true, _, Some(hash)) => (SCRAM_SHA_256_PLUS, ChannelBinding::tls_server_end_point(hash)),
            // "I could, you do not": a server that did offer it then knows that somebody took its offer away.
            (false, true, Some(_)) => (SCRAM_SHA_256, ChannelBinding::unrequested()),
            (_, true, None) => (SCRAM_SHA_256, ChannelBinding::unsupported()),
            (_, false, _) => {
                return Err(unsupported(&self.place, "a SASL mechanism"));
            }
        };
        if mechanism != SCRAM_SHA_256_PLUS {
            self.refuse_unbound()?;
        }
        let scram = Box::new(ScramSha256::new(self.password()?.as_bytes(), channel));
        let message = scram.message().to_vec();
        self.send(AuthState::Challenged(scram), |out| frontend::sasl_initial_response(mechanism, &message, out))
    }

    fn send(
        &mut self,
        next: AuthState,
        write: impl FnOnce(&mut BytesMut) -> std::io::Result<()>,
    ) -> Result<AuthStep, Fault> {
        let mut out = BytesMut::new();
        write(&mut out).map_err(|_| {
            Fault::usage(
                format!("{}: the password cannot be sent", self.place),
                "the password must not hold a zero byte",
            )
        })?;
        self.state = next;
        Ok(AuthStep::Send(out))
    }

    fn password(&self) -> Result<&'a str, Fault> {
        self.password.ok_or_else(|| missing_password(&self.place, self.passfile_note))
    }

    fn refuse_readable(&self, how: &str) -> Result<(), Fault> {
        if self.private { Ok(()) } else { Err(readable_password(&self.place, how)) }
    }

    fn refuse_unbound(&self) -> Result<(), Fault> {
        if self.binding == Binding::Require { Err(unbound(&self.place)) } else { Ok(()) }
    }

    fn confused(&self) -> Fault {
        Fault::usage(
            format!("{}: the server breaks the protocol of authentication", self.place),
            "check that source.host and source.port are PostgreSQL's own, with no proxy in between",
        )
    }
}

/// The server wants a password, and there is none.
pub(crate) fn missing_password(place: &str, passfile_note: Option<&str>) -> Fault {
    let note = passfile_note.map(|note| format!(" ({note})")).unwrap_or_default();
    Fault::usage(
        format!("{place}: the server wants a password, and none is given{note}"),
        "set source.password, e.g. { file: /run/secrets/pg } or { env: NAME }; PGPASSWORD and ~/.pgpass are read too",
    )
}

/// The server wants the password in a form that others on the way could use.
pub(crate) fn readable_password(place: &str, how: &str) -> Fault {
    Fault::usage(
        format!(
            "{place}: the server wants the password by {how}, and TLS does not prove whose server it is; it was not sent"
        ),
        "let the role in by scram-sha-256 in pg_hba.conf and set its password again; or set source.tls: verify-full; or, if \
         you trust the network, source.readable_password: true",
    )
}

/// The server, or whoever stands in for it, does not bind the authentication to the TLS channel.
pub(crate) fn unbound(place: &str) -> Fault {
    Fault::usage(
        format!("{place}: the server authenticates without channel binding, and it is required"),
        "let the role in by `hostssl … scram-sha-256`, with a server certificate signed with RSA or ECDSA; or set channel_binding=prefer",
    )
}

/// The server asks for a method that this program does not have.
pub(crate) fn unsupported(place: &str, method: &str) -> Fault {
    Fault::usage(
        format!("{place}: the server wants to authenticate by {method} that is not offered here"),
        "let the role in by scram-sha-256 or by a client certificate in pg_hba.conf",
    )
}

/// The server failed its half of SCRAM; `cause` is postgres-protocol's.
pub(crate) fn scram_failed(place: &str, cause: &str) -> Fault {
    if cause.contains("iteration count") {
        return Fault::usage(
            format!("{place}: the role's password was made with more than 100,000 SCRAM iterations"),
            "SET scram_iterations = 4096, then set the password again by ALTER ROLE … PASSWORD",
        );
    }
    Fault::usage(
        format!("{place}: the server did not prove that it knows the password: {cause}"),
        "somebody may stand in for the server: check source.host, and set source.tls: verify-full",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn client(private: bool) -> Authenticator<'static> {
        Authenticator {
            place: "there".into(),
            user: "u",
            password: Some("secret"),
            passfile_note: None,
            end_point: None,
            binding: Binding::Prefer,
            private,
            state: AuthState::Start,
        }
    }

    fn message(code: u32, data: &[u8]) -> Vec<u8> {
        [&code.to_be_bytes()[..], data].concat()
    }

    #[test]
    fn a_readable_password_is_sent_in_private_only() {
        for body in [message(CLEARTEXT, b""), message(MD5, b"salt")] {
            assert!(matches!(client(true).take(&body), Ok(AuthStep::Send(_))));
            let fault = client(false).take(&body).unwrap_err();
            assert!(fault.what.contains("was not sent"), "{fault}");
            assert!(!fault.to_string().contains("secret"));
        }
    }

    #[test]
    fn an_ok_before_the_servers_proof_is_refused() {
        let mut client = client(false);
        assert!(matches!(client.take(&message(SASL, b"SCRAM-SHA-256\0\0")), Ok(AuthStep::Send(_))));
        assert!(client.take(&message(OK, b"")).is_err());
    }

    #[test]
    fn required_binding_takes_nothing_less() {
        let offers = [message(OK, b""), message(CLEARTEXT, b""), message(MD5, b"salt")];
        for body in offers.iter().chain([&message(SASL, b"SCRAM-SHA-256\0SCRAM-SHA-256-PLUS\0\0")]) {
            let mut client = Authenticator { binding: Binding::Require, ..client(true) };
            assert!(client.take(body).unwrap_err().what.contains("channel binding"));
        }
    }

    #[test]
    fn binding_is_used_where_both_can() {
        let mut client = Authenticator { end_point: Some(vec![1; 32]), ..client(true) };
        let Ok(AuthStep::Send(first)) = client.take(&message(SASL, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0")) else {
            panic!("nothing sent")
        };
        assert!(first.windows(18).any(|part| part == b"SCRAM-SHA-256-PLUS"));
        let mut client = Authenticator { end_point: Some(vec![1; 32]), ..client };
        client.state = AuthState::Start;
        let Ok(AuthStep::Send(first)) = client.take(&message(SASL, b"SCRAM-SHA-256\0\0")) else {
            panic!("nothing sent")
        };
        assert!(first.windows(3).any(|part| part == b"y,,"), "a stripped offer must show");
    }

    proptest! {
        #[test]
        fn any_bodies_are_taken_without_a_panic(bodies: Vec<(u32, Vec<u8>)>) {
            let mut client = client(true);
            for (code, data) in bodies {
                if client.take(&message(code % 14, &data)).is_err() {
                    break;
                }
            }
        }
    }
}
