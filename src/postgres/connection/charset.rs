//! A single-byte encoding of a database, decoded here.
//!
//! * In: the server's encoding; text as the server keeps it.
//! * Out: UTF-8; what the encoding has no character for stays a byte that is no UTF-8, so that its row can be refused alone.
//! * Never: a conversion by the server, which fails for such a byte: within the decoder of a slot it would fail for ever
//!   (`character with byte sequence 0x81 in encoding "WIN1252" has no equivalent in encoding "UTF8"`, SQLSTATE 22P05).
//!
//! The server is asked for the characters, so that they are those of its own conversion.

use futures_util::future::join_all;
use tokio_postgres::{Client, Error};

/// The single-byte encodings that a server can have, as `server_encoding` names them (PostgreSQL's documentation, table 23.3),
/// except SQL_ASCII, which has no characters.
const SINGLE_BYTE: [&str; 27] = [
    "ISO_8859_5",
    "ISO_8859_6",
    "ISO_8859_7",
    "ISO_8859_8",
    "KOI8R",
    "KOI8U",
    "LATIN1",
    "LATIN2",
    "LATIN3",
    "LATIN4",
    "LATIN5",
    "LATIN6",
    "LATIN7",
    "LATIN8",
    "LATIN9",
    "LATIN10",
    "WIN1250",
    "WIN1251",
    "WIN1252",
    "WIN1253",
    "WIN1254",
    "WIN1255",
    "WIN1256",
    "WIN1257",
    "WIN1258",
    "WIN866",
    "WIN874",
];

/// A byte that no UTF-8 text holds: what stands for a byte without a character.
const NO_CHARACTER: u8 = 0xFF;

/// The characters of a single-byte encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Charset {
    name: String,
    /// Of the bytes from 0x80 on, in UTF-8; empty where there is none.
    upper: Vec<Vec<u8>>,
}

/// Whether the text of a database with this encoding is decoded here.
pub(crate) fn is_single_byte(encoding: &str) -> bool {
    SINGLE_BYTE.contains(&encoding)
}

/// What makes a connection bring rows in the database's own encoding, where that is decoded here. The names in `sql` are sent
/// as UTF-8, so they must be ASCII.
pub(crate) fn unconverted(sql: &str, encoding: Option<&str>) -> Option<String> {
    let encoding = encoding.filter(|encoding| sql.is_ascii() && is_single_byte(encoding))?;
    Some(format!("SET client_encoding TO '{encoding}'"))
}

impl Charset {
    /// Asks the server for the characters of `encoding`; `None` where it is not a single-byte one.
    pub(crate) async fn load(client: &Client, encoding: &str) -> Result<Option<Charset>, Error> {
        if !is_single_byte(encoding) {
            return Ok(None);
        }
        let sql = "SELECT pg_catalog.convert(pg_catalog.decode($1::text, 'hex'), $2::text::name, 'UTF8')";
        let statement = client.prepare(sql).await?;
        let ask = async |hex: String| match client.query_one(&statement, &[&hex, &encoding]).await {
            Ok(row) => Ok(row.get::<_, Vec<u8>>(0)),
            Err(error) if error.as_db_error().is_some() => Ok(Vec::new()),
            Err(error) => Err(error),
        };
        // All in one where each byte has a character; else one by one, under way together.
        let all = ask((0x80..=0xFF).map(|byte: u8| format!("{byte:02x}")).collect()).await?;
        let upper = match std::str::from_utf8(&all) {
            Ok(text) if text.chars().count() == 128 => text.chars().map(|char| char.to_string().into_bytes()).collect(),
            Ok(_) | Err(_) => {
                let each = join_all((0x80..=0xFF).map(|byte: u8| ask(format!("{byte:02x}")))).await;
                each.into_iter().collect::<Result<_, _>>()?
            }
        };
        Ok(Some(Charset { name: encoding.to_owned(), upper }))
    }

    /// Appends `text` as UTF-8.
    pub(crate) fn decode(&self, text: &[u8], out: &mut Vec<u8>) {
        for byte in text {
            match self.upper.get(usize::from(*byte).wrapping_sub(0x80)) {
                None => out.push(*byte),
                Some(character) if character.is_empty() => out.push(NO_CHARACTER),
                Some(character) => out.extend_from_slice(character),
            }
        }
    }

    /// The option that keeps a COPY from converting.
    pub(crate) fn copy_option(&self) -> String {
        format!(" (ENCODING '{}')", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::connection::session::connect_sql;
    use crate::postgres::fixture::cluster;

    #[tokio::test]
    async fn the_servers_own_characters_are_used() {
        let session = connect_sql(&cluster().source("by_scram"), "charset test").await.unwrap();
        assert_eq!(Charset::load(&session, "UTF8").await.unwrap(), None);
        let decoded = |charset: &Charset, bytes: &[u8]| {
            let mut out = Vec::new();
            charset.decode(bytes, &mut out);
            out
        };
        let latin = Charset::load(&session, "LATIN1").await.unwrap().unwrap();
        assert_eq!(decoded(&latin, b"caf\xe9\x81"), "caf\u{e9}\u{81}".as_bytes());
        let windows = Charset::load(&session, "WIN1252").await.unwrap().unwrap();
        assert_eq!(decoded(&windows, b"\x80 caf\xe9"), "€ café".as_bytes());
        assert_eq!(decoded(&windows, b"a\x81b"), b"a\xffb");
        for encoding in SINGLE_BYTE {
            let charset = Charset::load(&session, encoding).await.unwrap().unwrap();
            let known = charset.upper.iter().filter(|character| !character.is_empty()).count();
            assert!(known >= 30 && charset.upper.len() == 128, "{encoding}: {known}");
        }
    }
}
