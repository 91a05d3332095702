//! Type OIDs → what their text means. A domain is its base type.

use std::collections::HashMap;

use crate::row::{Column, Type};

/// What the type OIDs of one database mean. Those of PostgreSQL itself are known (`pg_type.dat`); domains are asked for.
#[derive(Clone, Debug, Default)]
pub struct Types {
    domains: HashMap<u32, u32>,
}

/// The first OID that a user's object can have.
const FIRST_USER_OID: u32 = 16384;

/// Finds the base types of all domains. Enums, arrays and the rest are their text, so are not asked for.
pub const DOMAINS: &str = "WITH RECURSIVE base AS (
    SELECT oid AS domain, typbasetype AS type FROM pg_catalog.pg_type WHERE typtype = 'd'
    UNION ALL
    SELECT base.domain, t.typbasetype FROM base JOIN pg_catalog.pg_type t ON t.oid = base.type WHERE t.typtype = 'd')
SELECT base.domain, base.type FROM base JOIN pg_catalog.pg_type t ON t.oid = base.type WHERE t.typtype <> 'd'";

impl Types {
    /// Reads the database's domains anew.
    ///
    /// # Errors
    /// Where the query fails.
    pub async fn load(client: &tokio_postgres::Client) -> Result<Types, tokio_postgres::Error> {
        let rows = client.query(DOMAINS, &[]).await?;
        Ok(Types { domains: rows.iter().map(|row| (row.get(0), row.get(1))).collect() })
    }

    /// Whether the type might be a domain made since [`Types::load`].
    pub fn knows(&self, oid: u32) -> bool {
        oid < FIRST_USER_OID || self.domains.contains_key(&oid)
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
            _ => Type::Text,
        }
    }

    /// The columns of a table, by names and type OIDs.
    pub fn columns(&self, columns: &[(String, u32)]) -> Vec<Column> {
        columns.iter().map(|(name, oid)| Column { name: name.clone(), ty: self.of(*oid) }).collect()
    }
}
