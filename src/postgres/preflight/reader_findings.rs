//! The login of `query`: proof that it can neither write nor replicate, for its rights are the boundary.
//!
//! * In: a configuration with `source.reader`.
//! * Out: findings; one that says ok only where every right was looked at.
//! * Never: trust in a name. Rights are asked for by every role that the login can become, inherited or by SET ROLE.

use tokio_postgres::{Client, Error, Row};

use crate::config::Config;
use crate::model::{Fault, Finding, Severity};
use crate::postgres::catalog::quote;
use crate::postgres::connection::session::{Session, connect_to};
use crate::postgres::connection::target::Target;
use crate::sql;

/// Looks at the login, where there is one.
pub(crate) async fn examine(config: &Config, findings: &mut Vec<Finding>) {
    let Some(reader) = &config.source.reader else { return };
    let subject = format!("reader {}", reader.user);
    let session = match connect(config).await {
        Ok(session) => session,
        Err(fault) => return findings.push(Finding::of(fault, "reader_connect", subject)),
    };
    let role = quote::ident(&reader.user);
    match rights(&session, &role, &subject).await {
        Ok(found) => {
            let harmless = found.iter().all(|finding| finding.severity != Severity::Error);
            if harmless {
                let message = "`query` is on, and its login can neither write to tables nor replicate";
                findings.push(Finding::ok("reader", subject, message));
            }
            findings.extend(found);
        }
        Err(error) => findings.push(Finding::of(session.fault(&error), "reader_look", subject)),
    }
}

async fn connect(config: &Config) -> Result<Session, Fault> {
    connect_to(&Target::resolve_reader(&config.source)?, "check reader").await
}

async fn rights(client: &Client, role: &str, subject: &str) -> Result<Vec<Finding>, Error> {
    let mut findings = attributes(client, role, subject).await?;
    // A superuser may do everything: the rest would list the whole database.
    if findings.iter().any(|finding| finding.code == "reader_superuser") {
        return Ok(findings);
    }
    for (code, what, verb, sql) in OBJECTS {
        let rows = sql::query(client, &format!("{ROLES} {sql}"), &[]).await?;
        findings.extend(objects(code, what, verb, role, subject, &rows));
    }
    findings.extend(database(client, role, subject).await?);
    findings.extend(definers(client, subject).await?);
    Ok(findings)
}

/// What a role may have that makes it more than a reader, and how it is taken away.
const ATTRIBUTES: [(&str, &str, &str, &str); 5] = [
    ("reader_superuser", "rolsuper", "is a superuser", "NOSUPERUSER"),
    ("reader_replicates", "rolreplication", "may replicate, and so use and drop slots", "NOREPLICATION"),
    ("reader_bypasses_rls", "rolbypassrls", "passes by row-level security", "NOBYPASSRLS"),
    ("reader_makes_roles", "rolcreaterole", "may make roles, and so take their rights", "NOCREATEROLE"),
    ("reader_makes_databases", "rolcreatedb", "may make databases", "NOCREATEDB"),
];

/// Predefined roles that only read.
const READING: [&str; 5] =
    ["pg_read_all_data", "pg_monitor", "pg_read_all_settings", "pg_read_all_stats", "pg_stat_scan_tables"];
/// How managed servers name their roles of great power.
const MANAGED: [&str; 7] = ["rds_", "rdsadmin", "cloudsql", "azure_", "neon_superuser", "supabase_admin", "alloydb"];

async fn attributes(client: &Client, role: &str, subject: &str) -> Result<Vec<Finding>, Error> {
    let sql = "SELECT r.rolname::text, r.rolname = current_user, r.rolsuper, r.rolreplication, r.rolbypassrls,
            r.rolcreaterole, r.rolcreatedb
        FROM pg_catalog.pg_roles r WHERE pg_catalog.pg_has_role(current_user, r.oid, 'MEMBER') ORDER BY 2 DESC, 1";
    let mut findings = Vec::new();
    for row in sql::query(client, sql, &[]).await? {
        let (name, own): (String, bool) = (row.get(0), row.get(1));
        for (code, column, message, without) in ATTRIBUTES {
            if !row.get::<_, bool>(column) {
                continue;
            }
            let finding = if own {
                Finding::error(code, subject, format!("it {message}"), format!("ALTER ROLE {role} {without};"))
            } else {
                let message = format!("it is a member of {name}, which {message}");
                Finding::error(code, subject, message, revoke_membership(&name, role))
            };
            findings.push(finding);
            // Its membership in every role that there is follows from it.
            if (own, code) == (true, "reader_superuser") {
                return Ok(findings);
            }
        }
        let predefined = name.starts_with("pg_") && !READING.contains(&&*name);
        if !own && (predefined || MANAGED.iter().any(|managed| name.starts_with(managed))) {
            let message = format!("it is a member of {name}, which may do more than read tables");
            findings.push(Finding::error("reader_membership", subject, message, revoke_membership(&name, role)));
        }
    }
    Ok(findings)
}

fn revoke_membership(name: &str, role: &str) -> String {
    format!("REVOKE {} FROM {role};", quote::ident(name))
}

/// Every role that the login can act as, under the name `roles`.
const ROLES: &str = "WITH roles AS MATERIALIZED (
    SELECT r.oid FROM pg_catalog.pg_roles r WHERE pg_catalog.pg_has_role(current_user, r.oid, 'MEMBER'))";

/// Code, what the rights are, how they are named to REVOKE, and the objects: name, whether it is the login's own, whether
/// everybody has the right, how many there are.
const OBJECTS: [(&str, &str, &str, &str); 3] = [
    (
        "reader_writes",
        "may write to",
        "INSERT, UPDATE, DELETE, TRUNCATE, TRIGGER ON",
        "SELECT c.oid::regclass::text, bool_or(r.oid = c.relowner),
            bool_or(pg_catalog.has_table_privilege('public', c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE, TRIGGER')
                OR pg_catalog.has_any_column_privilege('public', c.oid, 'INSERT, UPDATE')), count(*) OVER ()
        FROM pg_catalog.pg_class c, roles r
        WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.oid <> 'pg_catalog.pg_settings'::pg_catalog.regclass
          AND (pg_catalog.has_table_privilege(r.oid, c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE, TRIGGER')
            OR pg_catalog.has_any_column_privilege(r.oid, c.oid, 'INSERT, UPDATE'))
        GROUP BY c.oid ORDER BY 1 LIMIT 3",
    ),
    (
        "reader_sequences",
        "may move the sequence",
        "USAGE, UPDATE ON SEQUENCE",
        "SELECT c.oid::regclass::text, bool_or(r.oid = c.relowner),
            bool_or(pg_catalog.has_sequence_privilege('public', c.oid, 'USAGE, UPDATE')), count(*) OVER ()
        FROM pg_catalog.pg_class c, roles r
        WHERE c.relkind = 'S' AND pg_catalog.has_sequence_privilege(r.oid, c.oid, 'USAGE, UPDATE')
        GROUP BY c.oid ORDER BY 1 LIMIT 3",
    ),
    (
        "reader_creates",
        "may create in the schema",
        "CREATE ON SCHEMA",
        "SELECT pg_catalog.quote_ident(n.nspname), bool_or(r.oid = n.nspowner),
            bool_or(pg_catalog.has_schema_privilege('public', n.oid, 'CREATE')), count(*) OVER ()
        FROM pg_catalog.pg_namespace n, roles r
        WHERE n.nspname NOT LIKE 'pg\\_temp\\_%' AND pg_catalog.has_schema_privilege(r.oid, n.oid, 'CREATE')
        GROUP BY n.oid, n.nspname ORDER BY 1 LIMIT 3",
    ),
];

fn objects(code: &'static str, what: &str, right: &str, role: &str, subject: &str, rows: &[Row]) -> Option<Finding> {
    let total: i64 = rows.first()?.get(3);
    let names: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let mut remedy = Vec::new();
    for row in rows {
        let (name, own, public): (String, bool, bool) = (row.get(0), row.get(1), row.get(2));
        remedy.push(if own {
            format!("REASSIGN OWNED BY {role} TO CURRENT_USER;")
        } else if public {
            format!("REVOKE {right} {name} FROM PUBLIC, {role};")
        } else {
            format!("REVOKE {right} {name} FROM {role};")
        });
    }
    remedy.dedup();
    let more = if total > 3 { format!(" and {} more", total - 3) } else { String::new() };
    let public = rows.iter().any(|row| row.get(2));
    let everybody = if public { "; everybody may (PUBLIC), so grant it first to the roles that need it" } else { "" };
    let message = format!("it {what} {}{more}{everybody}", names.join(", "));
    Some(Finding::error(code, subject, message, remedy.join("\n")))
}

async fn database(client: &Client, role: &str, subject: &str) -> Result<Vec<Finding>, Error> {
    let sql = format!(
        "{ROLES} SELECT pg_catalog.quote_ident(d.datname),
            bool_or(pg_catalog.has_database_privilege(r.oid, d.oid, 'CREATE')),
            bool_or(pg_catalog.has_database_privilege(r.oid, d.oid, 'TEMPORARY')),
            bool_or(pg_catalog.has_database_privilege('public', d.oid, 'TEMPORARY'))
        FROM pg_catalog.pg_database d, roles r WHERE d.datname = pg_catalog.current_database() GROUP BY d.datname"
    );
    let row = sql::query_one(client, &sql, &[]).await?;
    let (name, create, temporary, public): (String, bool, bool, bool) =
        (row.get(0), row.get(1), row.get(2), row.get(3));
    let mut findings = Vec::new();
    if create {
        let remedy = format!("REVOKE CREATE ON DATABASE {name} FROM {role};");
        findings.push(Finding::error("reader_creates", subject, "it may make schemas in the database", remedy));
    }
    match (temporary, public) {
        (true, true) => findings.push(Finding::warning(
            "reader_temporary",
            subject,
            "everybody may make temporary tables in the database (PUBLIC), and so may it",
            format!(
                "grant TEMPORARY to the roles that need it, then:\nREVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC;"
            ),
        )),
        (true, false) => findings.push(Finding::error(
            "reader_temporary",
            subject,
            "it may make temporary tables in the database",
            format!("REVOKE TEMPORARY ON DATABASE {name} FROM {role};"),
        )),
        (false, _) => {}
    }
    Ok(findings)
}

/// Functions that act with their owner's rights.
async fn definers(client: &Client, subject: &str) -> Result<Option<Finding>, Error> {
    let sql = format!(
        "{ROLES} SELECT p.oid::regprocedure::text, count(*) OVER () FROM pg_catalog.pg_proc p
        JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
        WHERE p.prosecdef AND n.nspname NOT IN ('pg_catalog', 'information_schema')
          AND EXISTS (SELECT FROM roles r WHERE pg_catalog.has_function_privilege(r.oid, p.oid, 'EXECUTE')
            AND pg_catalog.has_schema_privilege(r.oid, n.oid, 'USAGE'))
          AND NOT EXISTS (SELECT FROM roles r WHERE r.oid = p.proowner)
        ORDER BY 1 LIMIT 1"
    );
    let Some(row) = sql::query_opt(client, &sql, &[]).await? else { return Ok(None) };
    let (name, total): (String, i64) = (row.get(0), row.get(1));
    let more = if total > 1 { format!(", and {} more", total - 1) } else { String::new() };
    Ok(Some(Finding::warning(
        "reader_definers",
        subject,
        format!("it may call functions that act with their owner's rights (SECURITY DEFINER): {name}{more}"),
        format!("see that they only read; or REVOKE EXECUTE ON FUNCTION {name} FROM PUBLIC;"),
    )))
}
