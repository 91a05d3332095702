//! One row → one item, by the compiled steps. The hot path: no allocation but the buffer's own growth.

use std::sync::Arc;

use jiff::tz::TimeZone;

use crate::mapping::refusal::shortened;
use crate::mapping::{ColumnStep, EncodeError, FieldStep, Mapping, Presence, Reason, json, time};
use crate::model::{CommitTime, Row, Value};

/// The most bytes of one value that [`Mapping::describe`] shows.
const DESCRIBED: usize = 16 * 1024;

/// What the steps of one item share.
struct ItemWriter<'r> {
    row: &'r Row<'r>,
    time: CommitTime,
    zone: Option<&'r TimeZone>,
    /// An [`Presence::Identity`] column was written.
    identified: bool,
}

impl Mapping {
    /// Appends one JSON object to `out`, or leaves `out` as it was.
    pub fn encode(&self, row: &Row<'_>, time: CommitTime, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let start = out.len();
        let mut item = ItemWriter { row, time, zone: self.zone.as_ref(), identified: !self.needs_identity };
        let written = object(&self.steps, &mut item, out).and_then(|some| {
            if !item.identified {
                let both: Arc<str> = "email and externalId".into();
                return Err(EncodeError::new(&both, Reason::NoIdentity, b""));
            }
            if !some {
                out.extend_from_slice(b"{}");
            }
            Ok(())
        });
        if written.is_err() {
            out.truncate(start);
        }
        written
    }

    /// The columns that are read, as a JSON object of strings (NULL as `null`), for the quarantine of rows that are no
    /// item: bytes that are no UTF-8 are replaced, values beyond 16 KiB are cut.
    pub fn describe(&self, row: &Row<'_>) -> String {
        let mut out = Vec::new();
        for (index, name) in &self.columns {
            out.push(b',');
            json::escaped(name, &mut out);
            out.push(b':');
            match row.get(*index) {
                Value::Null => out.extend_from_slice(b"null"),
                Value::Oversize => json::escaped("(too large to hold)", &mut out),
                Value::Unknown => json::escaped("(not brought by the update)", &mut out),
                Value::Text(text) => {
                    let mark = format!("… ({} bytes)", text.len());
                    json::escaped(&shortened(text, DESCRIBED, &mark), &mut out);
                }
            }
        }
        close(0, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }
}

/// Appends the object that `steps` write; `false` where none of its members was written, and then nothing is.
fn object(steps: &[FieldStep], item: &mut ItemWriter<'_>, out: &mut Vec<u8>) -> Result<bool, EncodeError> {
    let start = out.len();
    for step in steps {
        match step {
            FieldStep::Literal(literal) => out.extend_from_slice(literal),
            FieldStep::Column(step) => column(step, item, out)?,
            FieldStep::Object { lead, steps } => {
                let before = out.len();
                out.extend_from_slice(lead);
                if !object(steps, item, out)? {
                    out.truncate(before);
                }
            }
            FieldStep::CommitTime { lead } => {
                if let CommitTime::Micros(micros) = item.time {
                    out.extend_from_slice(lead);
                    time::commit(micros, out).map_err(|reason| {
                        EncodeError::new(&"date".into(), reason, format!("{micros} µs since 2000").as_bytes())
                    })?;
                }
            }
        }
    }
    Ok(close(start, out))
}

/// Makes the first member's comma the opening brace, and adds the closing one.
fn close(start: usize, out: &mut Vec<u8>) -> bool {
    match out.get_mut(start) {
        Some(comma) => {
            *comma = b'{';
            out.push(b'}');
            true
        }
        None => false,
    }
}

fn column(step: &ColumnStep, item: &mut ItemWriter<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let refuse = |reason, text: &[u8]| Err(EncodeError::new(&step.field, reason, text));
    let text = match item.row.get(step.column) {
        Value::Text(text) if !step.encoder.reads_as_null(text) => text,
        Value::Oversize => return refuse(Reason::TooLarge, b""),
        Value::Unknown if step.presence != Presence::Mandatory => return Ok(()),
        Value::Unknown => return refuse(Reason::Unknown, b""),
        Value::Text(_) | Value::Null => {
            return match (&step.default, step.presence) {
                (Some(default), presence) => {
                    item.identified |= presence == Presence::Identity;
                    out.extend_from_slice(&step.lead);
                    out.extend_from_slice(default);
                    Ok(())
                }
                (None, Presence::Mandatory) => refuse(Reason::Null, b""),
                (None, Presence::Optional | Presence::Identity) => Ok(()),
            };
        }
    };
    match step.presence {
        Presence::Optional => {}
        Presence::Mandatory if step.encoder.reads_as_empty(text) => return refuse(Reason::Empty, b""),
        Presence::Identity if step.encoder.reads_as_empty(text) => return Ok(()),
        Presence::Mandatory => {}
        Presence::Identity => item.identified = true,
    }
    out.extend_from_slice(&step.lead);
    step.encoder.write(text, item.zone, out).or_else(|reason| refuse(reason, text))
}
