//! The whole set-up as one script that a DBA reads and runs with psql: the least rights, and nothing else.
//!
//! * In: a configuration; the state schema's own part of the script.
//! * Out: SQL that can be run again. A server that can be reached refines it, none is needed.
//! * Never: a password; a right that is not needed.

use std::fmt::Write as _;

use crate::config::{Config, TableName};
use crate::postgres::catalog::{quote, replica_identity, table};
use crate::postgres::connection::session::{Session, connect_sql};
use crate::postgres::connection::target::Target;
use crate::postgres::preflight::Provider;
use crate::postgres::setup;
use crate::postgres::setup::PublicationKind;

/// What the state's room adds.
pub(crate) struct StateScript<'a> {
    /// It is in another database (`state.url`).
    pub apart: bool,
    /// Its tables, with what a role needs there.
    pub ddl: &'a (dyn Fn(Option<&str>) -> String + Sync),
}

/// What only a server can say.
struct ObservedState {
    provider: Provider,
    version: i32,
    partitioned: Vec<TableName>,
    /// Tables whose updates must not be published, and why.
    without_identity: Vec<(TableName, String)>,
    /// Publications are made that publish stored generated columns.
    generated: bool,
    database: String,
}

pub(crate) async fn dba(config: &Config, state: &StateScript<'_>) -> String {
    let seen = match connect_sql(&config.source, "setup").await {
        Ok(session) => see(&session, config).await.ok(),
        Err(_) => None,
    };
    match seen {
        Some((seen, config)) => write(&config, state, Some(&seen)),
        None => write(config, state, None),
    }
}

/// What the server says, and the configuration with each section's key.
async fn see(session: &Session, config: &Config) -> Result<(ObservedState, Config), tokio_postgres::Error> {
    let server = crate::postgres::catalog::server::server(session).await?;
    let mut tables = Vec::new();
    for name in setup::tables(config) {
        tables.extend(table::by_name(session, &name).await?);
    }
    let mut config = config.clone();
    for section in &mut config.sections {
        if let Some(table) = tables.iter().find(|table| table.name == section.table) {
            *section = table.with_key(section);
        }
    }
    let generated = setup::generated(session, &config, server.version).await?;
    let mut without_identity = Vec::new();
    for table in &tables {
        let missing = replica_identity::missing(session, &config, table).await?;
        without_identity.extend(missing.map(|(what, remedy)| (table.name.clone(), format!("{what}: {remedy}"))));
    }
    let partitioned = tables.into_iter().filter(|info| info.kind == 'p').map(|info| info.name).collect();
    let provider = Provider::detect(session).await?;
    let database = server.database.1;
    Ok((
        ObservedState { provider, version: server.version, partitioned, without_identity, generated, database },
        config,
    ))
}

fn write(config: &Config, state: &StateScript<'_>, seen: Option<&ObservedState>) -> String {
    let target = Target::resolve(&config.source).ok();
    let user = target.as_ref().map(|target| target.user.clone()).or(config.source.user.clone());
    let user = user.unwrap_or_else(|| "pg2planhat".into());
    let database = seen.map(|seen| seen.database.clone()).or(target.map(|target| target.database)).unwrap_or_default();
    let provider = seen.map_or(Provider::Own, |seen| seen.provider);
    let mut sql = format!(
        "-- pg2planhat: set-up of the source, for a DBA.\n\
         -- Run it in database {} as {}:\n\
         --   psql -v ON_ERROR_STOP=1 --dbname {} --file setup.sql\n\
         -- It may be run again. {}.\n\n",
        line(&quote::ident(&database)),
        if config.streams() {
            STREAMING_DBA
        } else {
            "a superuser, or as the owner of the tables who may also create roles"
        },
        line(quote::literal(&database).trim_start()),
        if config.streams() {
            format!("It needs wal_level = logical: {}", line(provider.logical().trim_end_matches(';')))
        } else {
            "No section is streamed: it needs no publication, no slot and no REPLICATION".to_owned()
        }
    );
    if config.streams() {
        who_runs_it(&mut sql, config, &user, provider);
    }
    role(&mut sql, config, &user, &database, provider);
    reader(&mut sql, config, &database);
    // What can fail comes first, and the slot last: from there on the server keeps WAL.
    let heading = if state.apart {
        "-- 2. The state: ledger, checkpoints, quarantine. `state.url` puts it into ANOTHER database: run this part there."
    } else {
        "-- 2. The state: ledger, checkpoints, quarantine."
    };
    writeln!(sql, "{heading}\n{}", (state.ddl)(Some(&user))).ok();
    if config.streams() {
        writeln!(sql, "-- 3. The publication: before the slot, inserts only, no filter and no column list.").ok();
        writeln!(sql, "SET lock_timeout = '5s';").ok();
        for kind in PublicationKind::wanted(config) {
            publication(&mut sql, config, &kind, seen);
        }
        if !state.apart {
            floor(&mut sql, config);
        }
        slot(&mut sql, config, seen);
    }
    writeln!(sql, "-- To undo all of it: pg2planhat teardown").ok();
    sql
}

/// Who may run a script that makes a publication, a slot, and a role that may replicate.
const STREAMING_DBA: &str = "a superuser; or as the owner of the tables who may also create in the database, create roles,\n\
    -- and replicate (REPLICATION; before PostgreSQL 16 only a superuser makes a role that replicates)";

/// What the script would miss in its middle, when half of it is made: said before anything is made.
fn who_runs_it(sql: &mut String, config: &Config, user: &str, provider: Provider) {
    let (slot, role) = (quote::literal(&config.source.slot), quote::literal(user));
    let publication = quote::literal(&config.source.publication);
    let tables = setup::tables(config);
    let tables: Vec<String> = tables.iter().map(|name| quote::literal(&quote::qualified(name))).collect();
    let refuse = |when: String, what: &str, who: &str| {
        format!(
            "  IF {when} THEN\n    RAISE EXCEPTION '{what}'\n      USING HINT = 'Run this as a superuser, or as {who}. Nothing was made.';\n  END IF;\n"
        )
    };
    let mut body = format!(
        "DECLARE\n  own pg_roles;\n  other text;\nBEGIN\n  SELECT * INTO own FROM pg_roles WHERE rolname = current_user;\n  \
         SELECT coalesce('database ' || database, 'a standby') INTO other FROM pg_replication_slots\n    \
         WHERE slot_name = {slot} AND (plugin IS DISTINCT FROM 'pgoutput' OR database IS DISTINCT FROM current_database());\n  \
         IF other IS NOT NULL THEN\n    RAISE EXCEPTION 'the slot % is in use for something else: %', {slot}, other\n      \
         USING HINT = 'Give this instance a slot of its own: slot: NAME under source. Nothing was made.';\n  END IF;\n"
    );
    // There other rights stand for REPLICATION; a script that was made without a look at the server does not know where it is.
    if provider != Provider::Rds {
        let lacks = "NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'rds_replication') AND NOT";
        let no_slot = format!("NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = {slot})");
        let no_role =
            format!("NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {role} AND (rolreplication OR rolsuper))");
        let old = "current_setting('server_version_num')::int < 160000";
        body += &refuse(
            format!("{lacks} (own.rolsuper OR own.rolreplication)\n      AND {no_slot}"),
            "a role that runs this needs REPLICATION, to make the slot",
            "a role with REPLICATION",
        );
        body += &refuse(
            format!("{lacks} own.rolsuper AND {old}\n      AND {no_role}"),
            "before PostgreSQL 16 only a superuser makes a role with REPLICATION",
            "another once a superuser has made that role",
        );
    }
    let no_publication = format!("NOT EXISTS (SELECT FROM pg_publication WHERE pubname = {publication})");
    body += &refuse(
        format!(
            "{no_publication} AND NOT (has_database_privilege(current_database(), 'CREATE')\n      \
             AND (SELECT coalesce(bool_and(pg_has_role(relowner, 'USAGE')), true) FROM pg_class\n        \
             WHERE oid = ANY (ARRAY[{}]::regclass[])))",
            tables.join(", ")
        ),
        "a role that runs this must own the tables, and may create in the database, to make the publication",
        "their owner",
    );
    writeln!(sql, "-- 0. Whether this can be done: before anything is made.\nDO {};\n", quote::dollar(&(body + "END")))
        .ok();
}

fn role(sql: &mut String, config: &Config, user: &str, database: &str, provider: Provider) {
    let role = quote::ident(user);
    writeln!(sql, "-- 1. The role. Set its password yourself (psql: \\password), it is not part of this script.").ok();
    let literal = quote::literal(user);
    // Managed servers keep REPLICATION to themselves in ways of their own.
    let (with, mend) = match provider {
        _ if !config.streams() => (String::new(), String::new()),
        Provider::Rds => (String::new(), String::new()),
        Provider::Own | Provider::CloudSql | Provider::Azure | Provider::Neon | Provider::Supabase => (
            " REPLICATION".to_owned(),
            format!(
                "  ELSIF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {literal} AND (rolreplication OR rolsuper)) THEN\n    \
                 ALTER ROLE {role} REPLICATION;\n"
            ),
        ),
    };
    let body = format!(
        "BEGIN\n  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {literal}) THEN\n    \
         CREATE ROLE {role} LOGIN{with};\n{mend}  END IF;\nEND"
    );
    writeln!(sql, "DO {};", quote::dollar(&body)).ok();
    if provider == Provider::Rds && config.streams() {
        writeln!(sql, "{}", provider.replication(user)).ok();
    }
    grants(sql, config, database, &role, |table| {
        let sections = || config.sections.iter().filter(|section| section.is_on() && section.table == *table);
        if sections().any(|section| section.key.is_empty()) {
            // Its key is the primary key, whose columns are not known here.
            return String::new();
        }
        // By `xmin` a repair and an audit tell which transaction wrote a row.
        let mut columns: Vec<String> = vec!["xmin".to_owned()];
        for column in sections().flat_map(|section| section.columns()).map(|column| quote::ident(&column)) {
            if !columns.contains(&column) {
                columns.push(column);
            }
        }
        format!(" ({})", columns.join(", "))
    });
    for section in config.sections.iter().filter(|section| section.is_on() && section.table.name.is_empty()) {
        let name = line(section.name.as_str());
        writeln!(sql, "-- The query of section {name}: GRANT SELECT on the tables and views that it reads to {role}.")
            .ok();
    }
}

/// The login of `query`, where it is configured: it may read the mapped tables, and nothing else.
fn reader(sql: &mut String, config: &Config, database: &str) {
    let Some(reader) = &config.source.reader else { return };
    let (role, literal) = (quote::ident(&reader.user), quote::literal(&reader.user));
    writeln!(sql, "-- The login of `pg2planhat query`: it may only read. Set its password yourself, too.").ok();
    let body = format!(
        "BEGIN\n  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {literal}) THEN\n    CREATE ROLE {role} LOGIN;\n  END IF;\nEND"
    );
    writeln!(sql, "DO {};", quote::dollar(&body)).ok();
    writeln!(sql, "ALTER ROLE {role} SET default_transaction_read_only = on;").ok();
    grants(sql, config, database, &role, |_| String::new());
}

/// Lets `role` connect and read the mapped tables; `columns` of a table, in parentheses, or all where it is empty.
fn grants(sql: &mut String, config: &Config, database: &str, role: &str, columns: impl Fn(&TableName) -> String) {
    if !database.is_empty() {
        writeln!(sql, "GRANT CONNECT ON DATABASE {} TO {role};", quote::ident(database)).ok();
    }
    let mut schemas: Vec<String> = Vec::new();
    for name in setup::readable(config) {
        if !schemas.contains(&name.schema) {
            writeln!(sql, "GRANT USAGE ON SCHEMA {} TO {role};", quote::ident(&name.schema)).ok();
            schemas.push(name.schema.clone());
        }
        writeln!(sql, "GRANT SELECT{} ON {} TO {role};", columns(&name), quote::qualified(&name)).ok();
    }
    sql.push('\n');
}

fn publication(sql: &mut String, config: &Config, kind: &PublicationKind, seen: Option<&ObservedState>) {
    let name = &kind.name;
    let clause = |table: &TableName| match seen {
        // An ordinary table alone; a partitioned one with all its partitions. Not knowing which, both work without ONLY.
        Some(seen) if !seen.partitioned.contains(table) => format!("ONLY {}", quote::qualified(table)),
        Some(_) | None => quote::qualified(table),
    };
    if kind.updates {
        writeln!(sql, "-- And one for the tables whose updates are sent. Each must have a replica identity.").ok();
    }
    // By the plain names: an array of them says which are missing.
    let generated = if seen.is_some_and(|seen| seen.generated) { ", publish_generated_columns = stored" } else { "" };
    writeln!(
        sql,
        "SELECT format('CREATE PUBLICATION %I WITH (publish = ''{}'', publish_via_partition_root = true{generated})', p)\n  \
         FROM (VALUES ({})) AS wanted (p) WHERE NOT EXISTS (SELECT FROM pg_publication WHERE pubname = p)\n\\gexec",
        kind.publishes(),
        quote::literal(name)
    )
    .ok();
    for table in kind.tables(config) {
        let without = seen.and_then(|seen| seen.without_identity.iter().find(|(name, _)| *name == table));
        if let Some((_, why)) = without.filter(|_| kind.updates) {
            writeln!(sql, "-- {}: {}", line(&quote::qualified(&table)), line(why)).ok();
            continue;
        }
        writeln!(
            sql,
            "SELECT {}\n  WHERE NOT EXISTS (SELECT FROM pg_publication_tables WHERE pubname = {} AND schemaname = {} AND tablename = {})\n\\gexec",
            quote::literal(&setup::add_tables(name, &[clause(&table)])),
            quote::literal(name),
            quote::literal(&table.schema),
            quote::literal(&table.name)
        )
        .ok();
    }
    sql.push('\n');
}

/// As `runtime/first_slot.rs` records it.
fn floor(sql: &mut String, config: &Config) {
    writeln!(
        sql,
        "-- The program's evidence that the slot is younger than the publication, so that a section with `start: now` begins\n\
         -- at the slot.\n\
         UPDATE {}.instance SET xmin_floor = pg_snapshot_xmin(pg_current_snapshot())::text::bigint\n  \
         WHERE id = 1 AND coalesce(slot, '') = '' AND NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = {});\n",
        quote::ident(&config.state.schema),
        quote::literal(&config.source.slot)
    )
    .ok();
}

fn slot(sql: &mut String, config: &Config, seen: Option<&ObservedState>) {
    let name = &config.source.slot;
    let failover = config.source.failover_slot && seen.is_none_or(|seen| seen.version >= 170_000);
    writeln!(
        sql,
        "-- 4. The slot. From here on the server keeps WAL until the program has delivered its rows: start it soon.\n\
         --    It waits for open transactions; where it gives up, run the script again.\n\
         {}\n  WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = {});\n",
        setup::create_slot(name, failover),
        quote::literal(name)
    )
    .ok();
}

/// For a comment: a name with a line break in it would end it.
fn line(name: &str) -> String {
    name.replace(char::is_control, " ")
}
