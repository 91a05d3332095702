//! What tests and benchmarks outside of the crate reach into, room by room.
//!
//! * In: nothing.
//! * Out: the names that `tests/` and `benches/` use.
//! * Never: an interface. It changes with the code.

#![allow(missing_docs, reason = "each name is documented where it is defined")]

pub mod admin {
    pub use crate::admin::{AdminState, Heartbeat, Hosts, RefreshRequests, bind, serve};
}

pub mod audit {
    use crate::audit::{AuditKey, BatchKeys, Tally, tally::resync_block};

    /// What the set of keys of a batch, as the ledger has it, adds to the tally: block, rows, digest.
    pub fn tally(keys: &[u8], phase: &str) -> Vec<(i64, i64, i64)> {
        let keys = BatchKeys::decode(keys).unwrap_or_default();
        let of = |block| if phase == "resync" { resync_block(block) } else { block };
        Tally::of(keys.iter()).0.into_iter().map(|(block, entry)| (of(block), entry.rows, entry.digest)).collect()
    }

    /// Whether a set of keys, as the ledger has it, holds this one.
    pub fn holds(keys: &[u8], key: &str) -> bool {
        BatchKeys::decode(keys).is_some_and(|keys| keys.contains(AuditKey::of(key.as_bytes())))
    }
}

pub mod cli {
    pub use crate::cli::Cli;
}

pub mod config {
    pub use crate::config::{
        ActivityNames, BatchLimits, Condition, Config, Constant, DiffMode, Field, Flush, InDoubt, Kind, Model, OnNull,
        Planhat, ReadMode, Secret, Section, Source, Start, Sync, TableName, load_source, parse,
    };
}

pub mod delivery {
    pub use crate::delivery::checkpoint::Progress;
    pub use crate::delivery::section::{BackfillQueue, Chunk, SectionDelivery, Trouble};
    pub use crate::delivery::{Action, Engine, Route, Settings};
}

pub mod mapping {
    pub use crate::mapping::Mapping;
}

pub mod model {
    pub use crate::model::{
        ByPhase, BySection, Cell, Column, CommitMark, CommitTime, Exit, Fault, FilterRule, Key, KeyDigest, LeftOut,
        Lsn, NewestRead, Phase, Position, Row, RowCounts, Rows, SectionId, SectionName, SeenRow, Type, Value,
    };
}

pub mod planhat {
    pub use crate::planhat::{Answer, Client, Echo, Endpoint, Reply, SinkRejection, Verdict, match_refused, read};
}

pub mod postgres {
    pub use crate::postgres::catalog::types::Types;
    pub use crate::postgres::replication::connection::ReplicationConnection;
    pub use crate::postgres::replication::event::{EndReason, StreamEvent, StreamStart};
    pub use crate::postgres::replication::row_decoder::{DecodedItem, Decoder};
    pub use crate::postgres::replication::stream::Stream;
}

pub mod runtime {
    pub use crate::runtime::attach::position;
    pub mod in_doubt {
        pub use crate::runtime::in_doubt::*;
    }
}

pub mod sim {
    pub use crate::sim::{Keep, Names, Received, Sim, SimFault, SimHandle, SimOptions, SinkKind, SinkRoute, Stats};
}

pub mod state {
    pub use crate::state::{
        Attachment, BackfillProgress, Delivery, Op, OpenDelivery, Outcome, Phase, Quarantined, RangeStart, Rules,
        SectionPhase, SectionRow, Totals,
    };
}

pub mod telemetry {
    pub use crate::telemetry::status_document::{Backfill, InstanceState, Reason, SectionState, SectionStatus, Status};
    pub use crate::telemetry::{Metrics, SectionMetrics};
}

pub mod console {
    /// A text's SHA-256, as the configuration has it.
    pub fn digest(text: &str) -> String {
        crate::console::people::hex(&crate::console::people::digest(text))
    }

    /// Every route: method, path, and who may ask (`anybody`, `viewer`, `operator`).
    pub fn routes() -> Vec<(String, &'static str, &'static str)> {
        crate::console::routes::table()
    }
}
