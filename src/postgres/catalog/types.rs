//! Type OIDs → what their text means. A domain is its base type.

use std::collections::{HashMap, HashSet};

use crate::model::{Column, Type};

/// What the type OIDs of one database mean. Those of PostgreSQL itself are known (`pg_type.dat`); domains are asked for.
#[derive(Clone, Debug, Default)]
pub struct Types {
    domains: HashMap<u32, u32>,
    /// Of a user's types those that were looked for: enums and the like, or gone.
    others: HashSet<u32>,
}

/// The first OID that a user's object can have.
const FIRST_USER_OID: u32 = 16384;

/// Finds the base types of all domains. Enums, arrays and the rest are their text, so are not asked for.
pub(crate) const DOMAINS: &str = "WITH RECURSIVE base AS (
    SELECT oid AS domain, typbasetype AS type FROM pg_catalog.pg_type WHERE typtype = 'd'
    UNION ALL
    SELECT base.domain, t.typbasetype FROM base JOIN pg_catalog.pg_type t ON t.oid = base.type WHERE t.typtype = 'd')
SELECT base.domain, base.type FROM base JOIN pg_catalog.pg_type t ON t.oid = base.type WHERE t.typtype <> 'd'";

impl Types {
    /// Reads the database's domains anew.
    pub async fn load(client: &tokio_postgres::Client) -> Result<Types, tokio_postgres::Error> {
        let rows = crate::sql::query(client, DOMAINS, &[]).await?;
        let domains = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        Ok(Types { domains, others: HashSet::new() })
    }

    /// Reads the database's domains anew, and which of the other types in question are there at all. One that is not may have
    /// been dropped; or its transaction is in the WAL already, and no snapshot sees it yet (a COMMIT that waits for a
    /// synchronous standby can stay so for long).
    pub async fn learn(&mut self, client: &tokio_postgres::Client, oids: &[u32]) -> Result<(), tokio_postgres::Error> {
        let asked = "SELECT oid FROM pg_catalog.pg_type WHERE oid = ANY($1)";
        let params: crate::sql::SqlParams<'_> = &[&oids];
        let (types, there) = tokio::try_join!(Types::load(client), crate::sql::query(client, asked, params))?;
        self.domains = types.domains;
        self.others.extend(there.iter().map(|row| row.get::<_, u32>(0)));
        Ok(())
    }

    /// From now on this type is held to be gone: its values are taken as text.
    pub fn give_up(&mut self, oid: u32) {
        self.others.insert(oid);
    }

    /// Whether it is known what the type is; else it might be a domain made since it was last asked for.
    pub fn knows(&self, oid: u32) -> bool {
        oid < FIRST_USER_OID || self.domains.contains_key(&oid) || self.others.contains(&oid)
    }

    /// What a column of this type holds.
    pub fn of(&self, oid: u32) -> Type {
        match *self.domains.get(&oid).unwrap_or(&oid) {
            16 => Type::Bool,
            20 | 21 | 23 | 26 => Type::Int,
            700 | 701 => Type::Float,
            1700 => Type::Numeric,
            1114 => Type::Timestamp,
            1184 => Type::TimestampTz,
            1082 => Type::Date,
            114 | 3802 => Type::Json,
            1042 => Type::Char,
            _ => Type::Text,
        }
    }

    /// The columns of a table, by names and type OIDs.
    pub fn columns(&self, columns: &[(String, u32)]) -> Vec<Column> {
        columns.iter().map(|(name, oid)| Column { name: name.clone(), ty: self.of(*oid) }).collect()
    }
}
