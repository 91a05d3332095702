//! Re-sync: from where, how many rows that is, and the asking. The running instance does it.

use std::sync::Arc;

use crate::config::{Config, Field, Section};
use crate::model::{Fault, Key};
use crate::postgres::backfill::selection::Selection;
use crate::postgres::catalog::table::TableInfo;
use crate::postgres::catalog::types::Types;
use crate::postgres::catalog::{quote, result};
use crate::postgres::connection::session::Session;
use crate::postgres::preflight::key_findings;
use crate::runtime::event_loop::RESYNC;
use crate::runtime::event_loop::publication_drift::PARTITION_ATTACHED;
use crate::runtime::table_fit;
use crate::sql;
use crate::state::Store;

/// Where a re-sync begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ResyncFrom {
    /// Behind this key.
    Key(String),
    /// With rows of this time and later.
    Time(jiff::Timestamp),
    /// With the first row.
    All,
}

/// What a re-sync would do.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct ResyncPlan {
    pub section: String,
    /// The key's columns, as a person reads them: `id`, `(a, b)`.
    #[serde(skip)]
    pub key: String,
    /// Rows behind this key; `None`: every row.
    pub from: Option<String>,
    /// How many rows that is now.
    pub rows: u64,
    /// Whether they were counted, or only estimated by the planner.
    pub counted: bool,
    /// Open gaps of the section whose rows are among them: its end closes these.
    pub closes_gaps: Vec<i64>,
    /// Open gaps of the section that may have rows beside them.
    pub leaves_gaps: Vec<i64>,
}

impl ResyncPlan {
    /// Returns what the re-sync is to the section's open gaps, a sentence each. `remedy` tells of those that it leaves.
    pub(crate) fn about_gaps(&self, remedy: &str) -> Vec<String> {
        let named = |gaps: &[i64]| gaps.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let closes = (!self.closes_gaps.is_empty()).then(|| {
            format!("Its end closes the open gap {}: `repair` has nothing to do for it then.", named(&self.closes_gaps))
        });
        let leaves = (!self.leaves_gaps.is_empty()).then(|| {
            format!("The open gap {} may have rows beside these, and stays open: {remedy}", named(&self.leaves_gaps))
        });
        [closes, leaves].into_iter().flatten().collect()
    }
}

/// Finds out what a re-sync would deliver again. `None`: there is no such row.
///
/// # Errors
/// Where a key or a time cannot be used.
pub(crate) async fn plan_resync(
    config: &Arc<Config>,
    section: &Section,
    from: &ResyncFrom,
) -> Result<Option<ResyncPlan>, Fault> {
    let session = crate::operations::reading(config, "resync").await?;
    if !section.is_streamed() {
        return plan_whole(config, &session, section, from).await;
    }
    let fault = |error: tokio_postgres::Error| session.fault(&error);
    let types = Types::load(&session).await.map_err(fault)?;
    let fit = table_fit::describe(config, &session, &types, section, None).await.map_err(fault)??;
    let table_fit::Fit { section, table, columns, .. } = fit;
    // A range is read by it: what `check` calls an error of the key is refused here.
    if let Some(refused) = key_findings::refusal(&session, &section, &table, true).await.map_err(fault)? {
        return Err(refused);
    }
    let selection = Selection::new(&section, &table, &columns);
    let from = match from {
        ResyncFrom::All => None,
        ResyncFrom::Key(key) => Some(table_fit::typed_key(&session, &section, &table, key).await?),
        ResyncFrom::Time(time) => {
            let condition = condition(&section, &table, *time)?;
            let Some((_, before)) = selection.first_where(&session, &condition).await.map_err(fault)? else {
                return Ok(None);
            };
            before
        }
    };
    let (rows, counted) = match selection.count(&session, from.as_ref()).await {
        Ok(rows) => (rows, true),
        Err(error) if error.code() == Some(&tokio_postgres::error::SqlState::QUERY_CANCELED) => {
            let Some(last) = selection.ceiling(&session, from.as_ref()).await.map_err(fault)? else { return Ok(None) };
            (selection.estimate(&session, from.as_ref(), &last).await.map_err(fault)?, false)
        }
        Err(error) => return Err(fault(error)),
    };
    let (closes_gaps, leaves_gaps) = gaps(config, &session, &section, &selection, from.as_ref()).await?;
    let from = from.map(|key| key.to_string());
    Ok((rows > 0).then(|| ResyncPlan {
        section: section.name.to_string(),
        key: shown(&section.key),
        from,
        rows,
        counted,
        closes_gaps,
        leaves_gaps,
    }))
}

/// The section's open gaps: those all of whose rows lie behind `from`, and those of which nobody can tell.
async fn gaps(
    config: &Arc<Config>,
    session: &Session,
    section: &Section,
    selection: &Selection,
    from: Option<&Key>,
) -> Result<(Vec<i64>, Vec<i64>), Fault> {
    let open = crate::operations::store(config).await?.gaps(true).await.map_err(crate::operations::fate)?;
    let (mut closes, mut leaves) = (Vec::new(), Vec::new());
    for gap in open.iter().filter(|gap| gap.section.as_deref() == Some(section.name.as_str())) {
        let is_covered = match (from, gap.xmin_floor.and_then(|floor| u64::try_from(floor).ok())) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(from), Some(floor)) => {
                // What takes too long to be asked is not known to be covered.
                let none = async |rows: Selection| rows.is_empty(session, None, from).await.unwrap_or(false);
                // Rows that a partition held before it was attached are older than any floor.
                let attached = gap.reason == PARTITION_ATTACHED;
                none(selection.clone().since(floor)).await
                    && (!attached || none(selection.clone().of_partitions_attached_since(floor)).await)
            }
        };
        if is_covered { closes.push(gap.id) } else { leaves.push(gap.id) }
    }
    Ok((closes, leaves))
}

fn shown(key: &[String]) -> String {
    if let [only] = key { only.clone() } else { format!("({})", key.join(", ")) }
}

/// A result that is compared is delivered again whole: what was settled of it is forgotten.
async fn plan_whole(
    config: &Config,
    session: &Session,
    section: &Section,
    from: &ResyncFrom,
) -> Result<Option<ResyncPlan>, Fault> {
    if *from != ResyncFrom::All {
        return Err(Fault::usage(
            format!("section {}: a result that is compared is delivered again whole", section.name),
            "take --all; narrow the result first by `within`, or by a WHERE in its query",
        ));
    }
    let table = result::described(session, section, &config.source.schema).await?;
    let sql = format!("SELECT count(*) FROM {}", table.as_t());
    let rows: i64 = sql::query_one(session, &sql, &[]).await.map_err(|error| session.fault(&error))?.get(0);
    let rows = u64::try_from(rows).unwrap_or_default();
    Ok(Some(ResyncPlan {
        section: section.name.to_string(),
        key: shown(&section.key),
        from: None,
        rows,
        counted: true,
        closes_gaps: Vec::new(),
        leaves_gaps: Vec::new(),
    }))
}

/// Asks the running instance for it; the event's id.
pub(crate) async fn ask_resync(store: &Store, section: &Section, plan: &ResyncPlan) -> Result<i64, Fault> {
    let args = serde_json::json!({ "from": plan.from, "rows": plan.rows, "closes_gaps": plan.closes_gaps });
    store
        .append_event(&crate::operations::event(RESYNC, Some(&section.name), args))
        .await
        .map_err(crate::operations::fate)
}

/// SQL for "of this time or later": by the column that `date` is mapped to, or by the key where that is a time.
fn condition(section: &Section, table: &TableInfo, time: jiff::Timestamp) -> Result<String, Fault> {
    let mapped = section.fields.iter().find_map(|(name, field)| match field {
        Field::Column { column, .. } if name == "date" => Some(column.as_str()),
        Field::Column { .. } | Field::Constant(_) | Field::Object(_) => None,
    });
    let is_time = |name: &&String| {
        table.column(name).is_some_and(|column| column.type_name == "date" || column.type_name.starts_with("timestamp"))
    };
    let no_time = |what: &str| {
        let what = format!("section {}: {what}", section.name);
        Fault::usage(what, "say where to begin with --from-key, or take --all")
    };
    let column = mapped.or(section.key.first().filter(is_time).map(String::as_str));
    let column = column.ok_or_else(|| no_time("no column is mapped to `date`, and the key is no time"))?;
    let ty = table.column(column).map_or("", |column| column.type_name.as_str());
    let at = format!("{}::timestamptz", quote::literal(&time.to_string()));
    let zone = section.timezone.as_ref().and_then(jiff::tz::TimeZone::iana_name).unwrap_or("UTC");
    let naive = format!("({at} AT TIME ZONE {})", quote::literal(zone));
    let column = format!("t.{}", quote::ident(column));
    match ty {
        ty if ty.starts_with("timestamp") && ty.ends_with("with time zone") => Ok(format!("{column} >= {at}")),
        ty if ty.starts_with("timestamp") => Ok(format!("{column} >= {naive}")),
        "date" => Ok(format!("{column} >= {naive}::date")),
        other => Err(no_time(&format!("the column {column} is of type {other}, which cannot be compared with a time"))),
    }
}
