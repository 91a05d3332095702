//! The example application: two tables, their old rows, and the mapping of them.
//!
//! * In: how many old rows; ports and passwords.
//! * Out: SQL, and the streamer's configuration.
//! * Never: two rows that give items with the same key: an activity carries the row's id in `info`, and a metric in its
//!   value, which is a meter's reading and only grows.

use serde::Deserialize;

use crate::config;
use crate::config::Config;
use crate::model::Fault;
use crate::postgres::connection::session::Session;
use crate::sim::SinkKind;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum DemoTable {
    /// What users do.
    Events,
    /// What accounts use.
    Usage,
}

const TABLES: &str = "
CREATE TABLE app_event (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id text NOT NULL,
    user_email text,
    account_id text NOT NULL,
    event_name text NOT NULL,
    amount numeric(10,2),
    plan text,
    client_ip inet,
    created_at timestamptz NOT NULL
);
CREATE TABLE usage_metric (
    id bigserial PRIMARY KEY,
    account_id text NOT NULL,
    metric text NOT NULL,
    reading bigint NOT NULL,
    measured_at timestamptz NOT NULL
);";

/// `$1` rows: old ones where `$2` is true, spread over the last 90 days, else of now.
const EVENTS: &str = "
INSERT INTO app_event (user_id, user_email, account_id, event_name, amount, plan, client_ip, created_at)
SELECT 'user-' || u, CASE WHEN u % 10 > 0 THEN 'user' || u || '@example.com' END, 'account-' || u % 400,
    (ARRAY['Login', 'Report opened', 'Seat invited', 'Export finished', 'Invoice paid'])[1 + e],
    CASE WHEN e = 4 THEN round((r * 900)::numeric, 2) END, (ARRAY['free', 'team', 'enterprise'])[1 + u % 3],
    ('10.' || u % 200 || '.' || e || '.7')::inet,
    CASE WHEN $2 THEN now() - interval '90 days' * (1 - n::float8 / $1) ELSE clock_timestamp() END
FROM (SELECT n, (random() * 4999)::int AS u, floor(random() * 5)::int AS e, random() AS r
      FROM generate_series(1, $1::int8) AS n) AS drawn
RETURNING id";

const USAGE: &str = "
INSERT INTO usage_metric (id, account_id, metric, reading, measured_at)
SELECT id, 'account-' || a, (ARRAY['api_calls', 'storage_mb', 'seats_used'])[1 + a % 3], id * 10 + d,
    CASE WHEN $2 THEN now() - interval '90 days' * (1 - n::float8 / $1) ELSE clock_timestamp() END
FROM (SELECT n, nextval('usage_metric_id_seq') AS id, (random() * 399)::int AS a, floor(random() * 10)::int AS d
      FROM generate_series(1, $1::int8) AS n) AS drawn
RETURNING id";

impl DemoTable {
    pub(crate) const ALL: [DemoTable; 2] = [DemoTable::Events, DemoTable::Usage];

    pub(crate) fn name(self) -> &'static str {
        match self {
            DemoTable::Events => "app_event",
            DemoTable::Usage => "usage_metric",
        }
    }

    /// The section that maps it.
    pub(crate) fn section(self) -> &'static str {
        match self {
            DemoTable::Events => "events",
            DemoTable::Usage => "usage",
        }
    }

    /// The table that items of this kind come from.
    pub(crate) fn of(kind: SinkKind) -> DemoTable {
        match kind {
            SinkKind::Activity => DemoTable::Events,
            SinkKind::Metric => DemoTable::Usage,
        }
    }

    /// Inserts `$1` rows, old ones where `$2`; returns their keys.
    pub(crate) fn insert(self) -> &'static str {
        match self {
            DemoTable::Events => EVENTS,
            DemoTable::Usage => USAGE,
        }
    }

    /// How many of `rows` old rows are this table's.
    pub(crate) fn share(self, rows: u64) -> u64 {
        match self {
            DemoTable::Events => rows - rows / 4,
            DemoTable::Usage => rows / 4,
        }
    }

    /// The row's key in an item; `None` where the item is not of our making.
    pub(crate) fn key(self, item: &[u8]) -> Option<i64> {
        match self {
            DemoTable::Events => serde_json::from_slice::<Activity>(item).ok().map(|item| item.info.event_id),
            DemoTable::Usage => serde_json::from_slice::<Metric>(item).ok().map(|item| item.value.div_euclid(10)),
        }
    }
}

#[derive(Deserialize)]
struct Activity {
    info: Info,
}

#[derive(Deserialize)]
struct Info {
    event_id: i64,
}

#[derive(Deserialize)]
struct Metric {
    value: i64,
}

/// Makes the tables with their old rows.
pub(crate) async fn create(session: &Session, rows: u64) -> Result<(), Fault> {
    session.batch_execute(TABLES).await.map_err(|error| session.fault(&error))?;
    for table in DemoTable::ALL {
        // Counted there: the keys of millions of rows need not travel.
        let sql = format!("WITH made AS ({}) SELECT count(*) FROM made", table.insert());
        let share = i64::try_from(table.share(rows)).unwrap_or(i64::MAX);
        session.query_one(&sql, &[&share, &true]).await.map_err(|error| session.fault(&error))?;
    }
    session.batch_execute("ANALYZE app_event, usage_metric").await.map_err(|error| session.fault(&error))
}

/// The keys in the table, in order.
pub(crate) async fn keys(session: &Session, table: DemoTable) -> Result<Vec<i64>, Fault> {
    let sql = format!("SELECT id FROM {} ORDER BY id", table.name());
    let rows = session.query(&sql, &[]).await.map_err(|error| session.fault(&error))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// The streamer's configuration, as text for its file and as read.
pub(crate) fn configuration(
    port: u16,
    password: &str,
    sink: &str,
    admin: u16,
    console: u16,
) -> Result<(String, Config), Fault> {
    let text = format!(
        r#"# Written by `pg2planhat demo`.
source:
  host: 127.0.0.1
  port: {port}
  database: postgres
  user: postgres
  password: "{password}"
  tls: disable
planhat:
  tenant: 00000000-0000-4000-8000-000000000000
  url: {sink}
admin: {{ listen: "127.0.0.1:{admin}" }}
console: {{ listen: "127.0.0.1:{console}" }}
sections:
  - name: events
    kind: user_activity
    table: app_event
    key: id
    flush: 250ms
    fields:
      email: user_email
      externalId: user_id
      action: event_name
      weight: {{ column: amount, default: 1 }}
      date: created_at
      companyExternalId: account_id
      info: {{ event_id: id, plan: plan, ip: client_ip }}
  - name: usage
    kind: custom_metric
    model: Company
    table: usage_metric
    key: id
    flush: 250ms
    fields:
      dimensionId: metric
      value: reading
      externalId: account_id
      date: measured_at
"#
    );
    match config::parse(&text, "the demo's configuration") {
        Ok(config) => Ok((text, config)),
        Err(errors) => Err(Fault::bug(errors.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_valid_and_maps_both_tables() {
        let (_, config) = configuration(5432, "secret", "http://127.0.0.1:1", 9187, 9188).unwrap();
        let sections: Vec<&str> = config.sections.iter().map(|section| section.name.as_str()).collect();
        assert_eq!(sections, DemoTable::ALL.map(DemoTable::section));
        assert!(
            DemoTable::ALL.into_iter().zip(&config.sections).all(|(table, section)| section.table.name == table.name())
        );
    }

    #[test]
    fn keys_are_found_in_items() {
        let activity = br#"{"email":"a@b.c","info":{"event_id":41,"plan":null},"weight":1}"#;
        assert_eq!(DemoTable::Events.key(activity), Some(41));
        assert_eq!(DemoTable::Usage.key(br#"{"dimensionId":"x","value":419}"#), Some(41));
        assert_eq!(DemoTable::Events.key(b"{}"), None);
        assert_eq!(DemoTable::Usage.key(br#"{"value":"x"}"#), None);
    }

    #[test]
    fn the_shares_are_all_rows() {
        for rows in [0, 1, 3, 4, 5, 200_000] {
            assert_eq!(DemoTable::ALL.map(|table| table.share(rows)).iter().sum::<u64>(), rows);
        }
    }
}
