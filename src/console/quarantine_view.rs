//! The quarantine in words: groups by reason, and what to do about each. Pure.
//!
//! * In: reasons as they are recorded: a word, a colon, and the reason for people.
//! * Out: notes, classes, reasons that may be shown.
//! * Never: a value of a row for a person who may not see rows.

use crate::console::words::{count, plural};
use crate::state::QuarantineGroup;

/// A recorded reason begins with one of these words.
pub(crate) const WORDS: [&str; 5] = ["refused", "mapping", "too_large", "in_doubt", "missing"];

/// The page shows at most this many groups.
const NOTES: usize = 6;

/// The rows in quarantine for one reason, as a note on the page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GroupNote {
    pub class: &'static str,
    pub icon: &'static str,
    pub head: String,
    /// The beginning of these rows' reasons.
    pub reason: String,
    pub rows: String,
    pub number: String,
    pub sections: String,
    pub what: &'static str,
    pub href: String,
}

/// Returns the word that a reason begins with.
pub(crate) fn word_of(reason: &str) -> &str {
    reason.split(':').next().unwrap_or_default()
}

/// Returns the class and the icon of a reason.
pub(crate) fn look(reason: &str) -> (&'static str, &'static str) {
    match word_of(reason) {
        "mapping" | "too_large" | "missing" => ("is-warn", "warn"),
        "in_doubt" => ("is-doubt", "again"),
        _ => ("is-stop", "box"),
    }
}

/// Returns the reason as a person may read it, who either sees rows or does not.
pub(crate) fn reason_for(reason: &str, sees: bool) -> String {
    if sees { reason.to_owned() } else { word_of(reason).to_owned() }
}

fn what(reason: &str) -> &'static str {
    match word_of(reason) {
        "refused" => "Planhat refuses them: what they refer to must exist there first. Then send them again.",
        "mapping" => "Mend the rows, or the mapping: they are mapped anew when they are sent again.",
        "too_large" => "One item is larger than Planhat takes. Map fewer or shorter columns, then send them again.",
        "in_doubt" => {
            "They were sent, and no answer came. Look in Planhat whether it has them; sent again, they may count twice."
        }
        "missing" => {
            "An audit found them in the table and in no delivered batch. Sending them again is safe where they are new."
        }
        _ => "Send them again once the reason is mended.",
    }
}

/// Returns the groups as notes, one for each reason over all sections; and how many more reasons there are.
pub(crate) fn groups(groups: &[QuarantineGroup], sees: bool) -> (Vec<GroupNote>, usize) {
    let mut heads: Vec<(String, Vec<(&str, u64)>)> = Vec::new();
    for group in groups {
        let head = reason_for(&group.reason, sees);
        match heads.iter_mut().find(|(known, _)| *known == head) {
            Some((_, sections)) => match sections.iter_mut().find(|(name, _)| *name == group.section) {
                Some((_, rows)) => *rows += group.rows,
                None => sections.push((&group.section, group.rows)),
            },
            None => heads.push((head, vec![(&group.section, group.rows)])),
        }
    }
    let more = heads.len().saturating_sub(NOTES);
    heads.truncate(NOTES);
    (heads.into_iter().map(|(reason, sections)| note(reason, &sections)).collect(), more)
}

fn note(reason: String, sections: &[(&str, u64)]) -> GroupNote {
    let (class, icon) = look(&reason);
    let rows: u64 = sections.iter().map(|(_, rows)| rows).sum();
    let of: Vec<String> = sections.iter().map(|(name, rows)| format!("{} of {name}", count(*rows))).collect();
    let head = match reason.split_once(": ") {
        Some(("refused", said)) => format!("refused by Planhat, “{said}”"),
        Some((word, said)) => format!("{word}, “{said}”"),
        None => reason.clone(),
    };
    let encoded = askama::filters::urlencode(reason.as_str()).map(|text| text.to_string()).unwrap_or_default();
    GroupNote {
        class,
        icon,
        head,
        rows: plural(rows, "row", "rows"),
        number: if rows == 1 { "it".to_owned() } else { format!("the {}", count(rows)) },
        sections: of.join(", "),
        what: what(&reason),
        href: format!("/quarantine?reason={encoded}"),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(section: &str, reason: &str, rows: u64) -> QuarantineGroup {
        QuarantineGroup { section: section.into(), reason: reason.into(), rows }
    }

    #[test]
    fn one_note_a_reason_whatever_the_section() {
        let all = [
            group("logins", "refused: no such company", 7),
            group("clicks", "refused: no such company", 2),
            group("logins", "mapping: weight: not a finite number", 5),
        ];
        let (notes, more) = groups(&all, true);
        assert_eq!(more, 0);
        assert_eq!(
            (notes.len(), notes[0].rows.as_str(), notes[0].sections.as_str()),
            (2, "9 rows", "7 of logins, 2 of clicks")
        );
        assert_eq!(notes[0].head, "refused by Planhat, “no such company”");
        assert_eq!(notes[1].class, "is-warn");
        assert!(notes[0].href.ends_with("refused%3A%20no%20such%20company"), "{}", notes[0].href);
    }

    #[test]
    fn nothing_of_a_row_is_in_what_may_not_be_seen() {
        let all = [group("a", "refused: secret one", 1), group("a", "refused: secret two", 2)];
        let (notes, _) = groups(&all, false);
        assert_eq!((notes.len(), notes[0].rows.as_str()), (1, "3 rows"));
        assert!(!format!("{notes:?}").contains("secret"));
        assert_eq!(reason_for("mapping: weight: \"NaN\"", false), "mapping");
    }

    #[test]
    fn case_237_reasons_beyond_the_notes_are_counted() {
        let all: Vec<QuarantineGroup> = (0..9).map(|at| group("a", &format!("refused: reason {at}"), 1)).collect();
        let (notes, more) = groups(&all, true);
        assert_eq!((notes.len(), more), (NOTES, 3));
    }

    #[test]
    fn each_word_has_its_advice() {
        let mut all: Vec<&str> = WORDS.iter().map(|word| what(word)).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), WORDS.len());
    }
}
