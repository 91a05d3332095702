//! Who runs the server, and what things are called there. Pure, but for the one question.

use tokio_postgres::{Client, Error};

use crate::postgres::catalog::quote;
use crate::sql;

/// Who runs the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Provider {
    /// Nobody that is known.
    Own,
    /// Amazon RDS or Aurora.
    Rds,
    /// Google Cloud SQL (AlloyDB names things alike).
    CloudSql,
    /// Azure Database for PostgreSQL.
    Azure,
    Neon,
    Supabase,
}

/// Roles that each provider makes in every cluster.
const ROLES: &[(&str, Provider)] = &[
    ("rds_superuser", Provider::Rds),
    ("rdsadmin", Provider::Rds),
    ("cloudsqlsuperuser", Provider::CloudSql),
    ("alloydbsuperuser", Provider::CloudSql),
    ("azure_pg_admin", Provider::Azure),
    ("neon_superuser", Provider::Neon),
    ("supabase_admin", Provider::Supabase),
];

impl Provider {
    /// Asks for the roles that only a provider makes.
    pub(crate) async fn detect(client: &Client) -> Result<Provider, Error> {
        let names: Vec<&str> = ROLES.iter().map(|(name, _)| *name).collect();
        let sql = "SELECT rolname::text FROM pg_catalog.pg_roles WHERE rolname = ANY($1)";
        let there = sql::query(client, sql, &[&names]).await?;
        let there: Vec<String> = there.iter().map(|row| row.get(0)).collect();
        let found = ROLES.iter().find(|(name, _)| there.iter().any(|role| role == name));
        Ok(found.map_or(Provider::Own, |(_, provider)| *provider))
    }

    /// Its name for people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Provider::Own => "PostgreSQL",
            Provider::Rds => "Amazon RDS/Aurora",
            Provider::CloudSql => "Google Cloud SQL",
            Provider::Azure => "Azure Database for PostgreSQL",
            Provider::Neon => "Neon",
            Provider::Supabase => "Supabase",
        }
    }

    /// How `wal_level` becomes `logical`.
    pub(crate) fn logical(self) -> &'static str {
        match self {
            Provider::Own => "change it, then restart PostgreSQL:\nALTER SYSTEM SET wal_level = 'logical';",
            Provider::Rds => {
                "set rds.logical_replication = 1 in the instance's (Aurora: the cluster's) parameter group, then reboot it"
            }
            Provider::CloudSql => {
                "set the flag cloudsql.logical_decoding = on (gcloud sql instances patch INSTANCE \
                 --database-flags=cloudsql.logical_decoding=on; name the other flags, too); the instance restarts"
            }
            Provider::Azure => "set wal_level to LOGICAL under Server parameters, save, and restart the server",
            Provider::Neon => {
                "enable it in the project's Settings, Logical Replication (it cannot be turned off again)"
            }
            Provider::Supabase => {
                "it is logical there by default: set wal_level back (supabase postgres-config update --config \
                 wal_level=logical), then restart the project"
            }
        }
    }

    /// How a setting of the server is changed.
    pub(crate) fn set(self, name: &str, value: &str, restart: bool) -> String {
        let reboot = if restart { ", then reboot it" } else { "" };
        match self {
            Provider::Own if restart => {
                format!("change it, then restart PostgreSQL:\nALTER SYSTEM SET {name} = {};", quote::literal(value))
            }
            Provider::Own => format!("ALTER SYSTEM SET {name} = {};\nSELECT pg_reload_conf();", quote::literal(value)),
            Provider::Rds => format!("set {name} = {value} in the (cluster's) parameter group{reboot}"),
            Provider::CloudSql => {
                format!("set the flag {name} = {value} (gcloud sql instances patch INSTANCE --database-flags=…)")
            }
            Provider::Azure => format!("set {name} = {value} under Server parameters{reboot}"),
            Provider::Neon => format!("{name} is Neon's to set: ask its support for {value}"),
            Provider::Supabase => format!("supabase postgres-config update --config {name}={value}"),
        }
    }

    /// Which address is the primary's.
    pub(crate) fn primary(self) -> &'static str {
        match self {
            Provider::Own => {
                "set source.host to the primary; or list all servers and set target_session_attrs=read-write in source.url"
            }
            Provider::Rds => {
                "set source.host to the primary instance's endpoint (Aurora: the cluster's writer endpoint, without `-ro-`)"
            }
            Provider::CloudSql => "set source.host to the primary instance's address, not to a read replica's",
            Provider::Azure => {
                "set source.host to the primary server's name, or to its writer endpoint (NAME.writer.postgres.database.azure.com)"
            }
            Provider::Neon => "set source.host to the branch's read-write compute, not to a read replica's",
            Provider::Supabase => "set source.host to db.PROJECT.supabase.co, not to a read replica's",
        }
    }

    /// How a role gets the right to replicate.
    pub(crate) fn replication(self, role: &str) -> String {
        let role = quote::ident(role);
        match self {
            Provider::Own | Provider::CloudSql | Provider::Azure | Provider::Supabase => {
                format!("ALTER ROLE {role} REPLICATION;")
            }
            Provider::Rds => format!("GRANT rds_replication TO {role};"),
            Provider::Neon => format!(
                "use a role that was made in Neon's console, by its CLI or API: those have REPLICATION; {role} has not"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_provider_is_told_in_its_own_words() {
        assert!(Provider::Rds.logical().contains("rds.logical_replication"));
        assert!(Provider::CloudSql.logical().contains("cloudsql.logical_decoding"));
        // What the docs/managed-postgresql.md says of each.
        let readme = include_str!("../../../docs/managed-postgresql.md");
        for word in ["rds.logical_replication = 1", "cloudsql.logical_decoding = on", "rds_replication", "`-pooler`"] {
            assert!(readme.contains(word), "{word}");
        }
        for row in ["Amazon RDS", "Amazon Aurora", "Google Cloud SQL", "Azure Flexible Server", "Neon", "Supabase"] {
            assert!(readme.contains(&format!("| {row} |")), "{row}");
        }
        assert_eq!(Provider::Rds.replication("a\"b"), "GRANT rds_replication TO \"a\"\"b\";");
        assert_eq!(
            Provider::Own.set("max_wal_senders", "10", true),
            "change it, then restart PostgreSQL:\nALTER SYSTEM SET max_wal_senders = '10';"
        );
    }
}
