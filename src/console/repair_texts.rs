//! The texts of the repair page: for each reason that needs a person, what happened and what to do. Pure.

use crate::operations::Mend;
use crate::telemetry::status_document::Reason;

/// The text for one reason.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RepairText {
    /// What happened, in plain words.
    pub story: &'static str,
    /// The way that loses nothing; `None` where nothing can be repaired.
    pub recommended: Option<Mend>,
    /// What prevents a repetition: a sentence, and SQL where that helps.
    pub after: (&'static str, &'static str),
    /// A statement that the person must make before anything is done.
    pub sure: Option<&'static str>,
}

/// Returns the text for a reason.
pub(crate) fn text_of(reason: Reason) -> RepairText {
    let gap = Some(Mend::Gap);
    let text = |story, recommended, after| RepairText { story, recommended, after, sure: None };
    match reason {
        Reason::SlotMissing => text(
            "It was dropped, or the server failed over to a standby that does not have it. What was committed since is in your \
             tables.",
            gap,
            (
                "From PostgreSQL 17 on a slot can fail over with the server (see docs/postgresql.md). Let nobody drop slots of \
              this name.",
                "",
            ),
        ),
        Reason::SlotRecreated => text(
            "Somebody dropped the slot and made one of the same name. What was committed in between is not in it.",
            gap,
            ("Let nobody but this program make or drop this slot.", ""),
        ),
        Reason::SlotMoved => text(
            "Another program reads this slot, or somebody advanced it by hand. Stop that first: it would go on taking rows.",
            gap,
            ("See who reads it:", "SELECT slot_name, active_pid FROM pg_replication_slots;"),
        ),
        Reason::SlotLost => text(
            "The slot kept more WAL than max_slot_wal_keep_size allows, and the server removed it. What was committed since is in \
             your tables.",
            gap,
            ("Give the slot more room:", "ALTER SYSTEM SET max_slot_wal_keep_size = '50GB'; SELECT pg_reload_conf();"),
        ),
        Reason::Wedged => text(
            "The server fails each time it decodes the next change for this slot. The message names the change and the way past it; \
             a new slot begins behind it.",
            gap,
            ("Report the server's message: it is a fault of the server or of an extension.", ""),
        ),
        Reason::PublicationChanged => text(
            "The publication no longer carries what is mapped: the server skips rows in silence. Mend it first; the message says \
             how.",
            gap,
            (
                "Let nobody but this program alter its publication, or set `source.manage: false` and keep it as `setup --print-sql` \
              prints it.",
                "",
            ),
        ),
        Reason::OtherServer => text(
            "The address leads to another database cluster than the one that was delivered from. Nothing was read from it. Correct \
             `source`; nothing is repaired here.",
            None,
            ("Where the data was really moved to a new cluster, the runbook says how to go on.", ""),
        ),
        Reason::RestoredBackup => RepairText {
            story: "The server is an older state of itself: rows that were delivered may not be in it, and keys may be given again.",
            recommended: gap,
            after: ("Stop the program before a restore, and start it when the restore is final.", ""),
            sure: Some("The newer server is gone for good: nothing else delivers from it into this Planhat account."),
        },
        Reason::TimelineChanged => RepairText {
            story: "The server was promoted, or set back in time. Rows that the old server had at its end may be missing here.",
            recommended: gap,
            after: ("From PostgreSQL 17 on a slot can fail over with the server (see docs/postgresql.md).", ""),
            sure: Some("The old server is gone for good: nothing else delivers from it into this Planhat account."),
        },
        Reason::StateUnwritable => text(
            "What was delivered cannot be written down, so nothing more is delivered. Mend the disk, the rights or the read-only \
             mode; it goes on by itself.",
            None,
            ("", ""),
        ),
    }
}

/// Returns the title of a way to repair, and what it does.
pub(crate) fn way(how: Mend, new_slot: bool, floor: Option<u64>) -> (&'static str, String) {
    let slot = if new_slot { "A new slot" } else { "The slot is kept" };
    match how {
        Mend::Gap => {
            let rows = floor.map_or_else(String::new, |xid| {
                format!(" Rows that transaction {xid} or a later one wrote are read again.")
            });
            ("Read the gap again", format!("{slot}.{rows} Those that Planhat has already count twice."))
        }
        Mend::Backfill => {
            ("Deliver everything again", format!("{slot}, and every row of every section from the start."))
        }
        Mend::AcceptLoss => (
            "Go on from now",
            format!("{slot}. What was committed in the gap is never delivered; the gap stays on record."),
        ),
    }
}

/// As [`way`], where the slot of a log that was put back is gone on with.
pub(crate) fn way_again() -> (&'static str, String) {
    let text = "The slot is kept. Every row that this server has from its position on is delivered; those that Planhat has \
                already count twice.";
    ("Go on from the slot", text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_text_and_a_way_where_it_leaves_a_gap() {
        let mut stories = Vec::new();
        for reason in Reason::ALL {
            let text = text_of(*reason);
            assert!(text.story.ends_with('.'), "{reason}");
            assert_eq!(text.recommended.is_some(), reason.leaves_a_gap(), "{reason}");
            stories.push(text.story);
        }
        stories.sort_unstable();
        stories.dedup();
        assert_eq!(stories.len(), Reason::ALL.len());
    }

    #[test]
    fn two_servers_never_feed_one_account_unasked() {
        let asks: Vec<&Reason> = Reason::ALL.iter().filter(|reason| text_of(**reason).sure.is_some()).collect();
        assert_eq!(asks, [&Reason::RestoredBackup, &Reason::TimelineChanged]);
    }
}
