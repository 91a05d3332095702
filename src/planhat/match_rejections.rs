//! Which items of a batch an answer refused: its echoes matched to what was sent. Pure.
//!
//! * In: the items as bytes, in the order sent, and the refusals as read.
//! * Out: the refused items with their reasons; and, where a refusal cannot be laid to an item, that the fate of the others
//!   is unknown.
//! * Never: an item counted as refused by a guess; an item parsed when nothing was refused; more than one item parsed at a time.
//!
//! An echo means an item that equals it: as JSON values with exact numbers, or else with numbers as JavaScript keeps them
//! (64-bit floats), for an echo went through such a server. Several reasons for one item come as several equal echoes, and
//! so do several equal items that are refused alike: of equal echoes as many items are refused as the most frequent of
//! their reasons was given.

use std::collections::HashMap;

use crate::planhat::SinkRejection;
use crate::planhat::echo::{ItemDigest, Numbers, digest_of};

/// Reasons of one item that are kept.
const REASONS: usize = 8;

/// The refused items, as far as the answer proves them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attribution {
    /// Index of each refused item, and Planhat's reason (or reasons); ascending, each index once.
    pub refused: Vec<(usize, String)>,
    /// Some refusal means none of the items surely: what it said. The other items' fate is unknown then.
    pub unresolved: Option<String>,
}

/// Equal echoes.
struct EchoGroup {
    double: ItemDigest,
    /// Distinct reasons, and how often each was given.
    reasons: Vec<(String, usize)>,
    /// The items that match the echo.
    items: Vec<usize>,
}

impl EchoGroup {
    fn add(&mut self, reason: &str) {
        if let Some((_, count)) = self.reasons.iter_mut().find(|(known, _)| known == reason) {
            *count += 1;
        } else if self.reasons.len() < REASONS {
            self.reasons.push((reason.to_owned(), 1));
        }
    }

    /// How many of the equal items are refused.
    fn wanted(&self) -> usize {
        self.reasons.iter().map(|(_, count)| *count).max().unwrap_or(0)
    }

    fn is_open(&self) -> bool {
        self.items.len() < self.wanted()
    }

    fn text(&self) -> String {
        self.reasons.iter().map(|(reason, _)| reason.as_str()).collect::<Vec<_>>().join("; ")
    }
}

/// Matches `refused` to `items`.
pub fn match_refused(items: &[&[u8]], refused: &[SinkRejection]) -> Attribution {
    let (mut groups, mut strays) = (group(refused), Vec::new());
    strays.extend(refused.iter().filter(|one| one.item.is_none()).map(|one| one.error.as_str()));
    let mut blamed = vec![false; items.len()];
    if !groups.is_empty() {
        let exact: HashMap<ItemDigest, Vec<usize>> =
            groups.iter().enumerate().map(|(index, (exact, _))| (*exact, vec![index])).collect();
        lay(items, &mut groups, &exact, Numbers::Exact, &mut blamed);
    }
    if groups.iter().any(|(_, group)| group.is_open()) {
        let mut double: HashMap<ItemDigest, Vec<usize>> = HashMap::new();
        for (index, (_, group)) in groups.iter().enumerate().filter(|(_, (_, group))| group.is_open()) {
            double.entry(group.double).or_default().push(index);
        }
        lay(items, &mut groups, &double, Numbers::Double, &mut blamed);
    }
    let mut attribution = Attribution::default();
    let mut stray_count = strays.len();
    for (_, group) in &groups {
        // What is left of a group that found its item are further reasons for it.
        if group.items.is_empty() {
            stray_count += group.wanted();
            strays.extend(group.reasons.iter().map(|(reason, _)| reason.as_str()));
        }
        attribution.refused.extend(group.items.iter().map(|index| (*index, group.text())));
    }
    if stray_count > 0 {
        let said = said(&strays);
        if items.len() == 1 || attribution.refused.len() + stray_count >= items.len() {
            let rest = blamed.iter().enumerate().filter(|(_, blamed)| !**blamed);
            attribution.refused.extend(rest.map(|(index, _)| (index, said.clone())));
        } else {
            attribution.unresolved = Some(said);
        }
    }
    attribution.refused.sort_unstable_by_key(|(index, _)| *index);
    attribution
}

/// The echoes, equal ones together, in the order of the answer.
fn group(refused: &[SinkRejection]) -> Vec<(ItemDigest, EchoGroup)> {
    let mut groups: Vec<(ItemDigest, EchoGroup)> = Vec::new();
    let mut known: HashMap<ItemDigest, usize> = HashMap::new();
    for (echo, reason) in refused.iter().filter_map(|one| Some((one.item?, &one.error))) {
        let index = *known.entry(echo.exact).or_insert_with(|| {
            groups.push((echo.exact, EchoGroup { double: echo.double, reasons: Vec::new(), items: Vec::new() }));
            groups.len() - 1
        });
        groups[index].1.add(reason);
    }
    groups
}

/// Matches each item that is not refused yet to the first open group of its digest.
fn lay(
    items: &[&[u8]],
    groups: &mut [(ItemDigest, EchoGroup)],
    by_digest: &HashMap<ItemDigest, Vec<usize>>,
    numbers: Numbers,
    blamed: &mut [bool],
) {
    for (index, item) in items.iter().enumerate().filter(|(index, _)| !blamed[*index]).collect::<Vec<_>>() {
        let Some(meant) = digest_of(item, numbers).and_then(|digest| by_digest.get(&digest)) else { continue };
        if let Some(group) = meant.iter().find(|group| groups[**group].1.is_open()) {
            groups[*group].1.items.push(index);
            blamed[index] = true;
        }
    }
}

/// Distinct reasons, the first few.
fn said(strays: &[&str]) -> String {
    let mut distinct: Vec<&str> = Vec::new();
    for reason in strays {
        if distinct.len() < 3 && !distinct.contains(reason) {
            distinct.push(reason);
        }
    }
    distinct.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::planhat::Echo;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn refusal(item: &Value) -> SinkRejection {
        reason(item, "bad")
    }

    fn reason(item: &Value, error: &str) -> SinkRejection {
        SinkRejection { item: Echo::of(item.to_string().as_bytes()), error: error.into() }
    }

    fn without_echo(error: &str) -> SinkRejection {
        SinkRejection { item: None, error: error.into() }
    }

    fn laid(items: &[Value], refused: &[SinkRejection]) -> Attribution {
        let items: Vec<String> = items.iter().map(Value::to_string).collect();
        let items: Vec<&[u8]> = items.iter().map(String::as_bytes).collect();
        match_refused(&items, refused)
    }

    fn indexes(laid: &Attribution) -> Vec<usize> {
        laid.refused.iter().map(|(index, _)| *index).collect()
    }

    #[test]
    fn nothing_is_parsed_when_nothing_was_refused() {
        assert_eq!(match_refused(&[b"not json"], &[]), Attribution::default());
    }

    #[test]
    fn numbers_go_by_value_and_fields_by_name() {
        let items: [&[u8]; 5] =
            [br#"{"a":1.50,"b":"x"}"#, br#"{"a":1e2}"#, br#"{"a":-0.0}"#, b"garbage", br#"{"a":7}"#];
        let refused = [refusal(&json!({"b": "x", "a": 1.5})), refusal(&json!({"a": 100})), refusal(&json!({"a": 0}))];
        assert_eq!(indexes(&match_refused(&items, &refused)), [0, 1, 2]);
    }

    #[test]
    fn javascripts_numbers_match_only_where_no_exact_item_does() {
        let twins = [json!({"v": 9007199254740993u64}), json!({"v": 9007199254740992u64}), json!({"v": 1})];
        assert_eq!(indexes(&laid(&twins, &[refusal(&twins[1])])), [1]);
        let both = [refusal(&twins[1]), refusal(&twins[1])];
        assert_eq!(indexes(&laid(&twins, &both)), [0, 1]);
        assert_eq!(indexes(&laid(&twins[..1], &[refusal(&twins[1])])), [0]);
    }

    #[test]
    fn equal_items_that_are_refused_alike_are_each_blamed_once() {
        let item = json!({"a": 1});
        let items = [item.clone(), json!({"a": 2}), item.clone(), item.clone()];
        let found = laid(&items, &[refusal(&item), refusal(&item)]);
        assert_eq!((indexes(&found), found.unresolved), (vec![0, 2], None));
    }

    #[test]
    fn case_67_two_reasons_for_one_item_do_not_blame_its_accepted_twin() {
        let item = json!({"a": 1});
        let items = [item.clone(), item.clone(), json!({"b": 1})];
        let found = laid(&items, &[reason(&item, "no value"), reason(&item, "no company")]);
        assert_eq!(found, Attribution { refused: vec![(0, "no value; no company".into())], unresolved: None });
        let both = ["x", "y", "x", "y"].map(|error| reason(&item, error));
        assert_eq!(indexes(&laid(&items, &both)), [0, 1], "two items with two reasons each");
        let again = laid(&items[1..], &[reason(&item, "x"), reason(&item, "x")]);
        assert_eq!((indexes(&again), again.unresolved), (vec![0], None), "one item can be refused only once");
    }

    #[test]
    fn case_67_what_cannot_be_laid_to_an_item_leaves_the_others_unknown() {
        let items = [json!({"a": 1}), json!({"a": 2}), json!({"a": 3})];
        let one = laid(&items, &[without_echo("something is wrong")]);
        assert_eq!(one, Attribution { refused: Vec::new(), unresolved: Some("something is wrong".into()) });
        let stranger = laid(&items, &[refusal(&json!({"a": 9})), reason(&items[1], "no")]);
        assert_eq!(stranger, Attribution { refused: vec![(1, "no".into())], unresolved: Some("bad".into()) });
        // An echo that lacks fields, or has others, may mean an item; nothing proves it.
        let poorer = laid(&[json!({"a": 1, "b": 1}), json!({"a": 2, "b": 2})], &[refusal(&json!({"a": 1}))]);
        assert_eq!((indexes(&poorer), poorer.unresolved), (vec![], Some("bad".into())));
    }

    #[test]
    fn case_67_as_many_refusals_as_items_refuse_them_all() {
        let items = [json!({"a": 1}), json!({"a": 2}), json!({"a": 3})];
        assert_eq!(indexes(&laid(&items[..1], &[without_echo("no")])), [0], "a batch of one");
        let all = laid(&items, &[without_echo("x"), without_echo("y"), reason(&items[1], "z")]);
        assert_eq!(all.refused, [(0, "x; y".into()), (1, "z".into()), (2, "x; y".into())]);
        assert_eq!(all.unresolved, None);
    }

    #[test]
    fn ten_thousand_refusals_are_no_quadratic_matter() {
        let items: Vec<Value> = (0..10_000).map(|n| json!({"n": n, "t": "x".repeat(100)})).collect();
        let refused: Vec<_> = items.iter().rev().map(refusal).collect();
        let began = std::time::Instant::now();
        assert_eq!(laid(&items, &refused).refused.len(), items.len());
        assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
    }

    fn item() -> impl Strategy<Value = Value> {
        (0..4u8, "[a-c]{0,2}", prop::bool::ANY).prop_map(|(n, text, nested)| match nested {
            true => json!({"v": n, "info": {"t": text, "l": [n, null, true]}}),
            false => json!({"v": n, "t": text}),
        })
    }

    proptest! {
        #[test]
        fn exact_echoes_blame_exactly_equal_items(items in proptest::collection::vec(item(), 1..30), picks: Vec<proptest::sample::Index>) {
            let mut chosen: Vec<usize> = picks.iter().map(|pick| pick.index(items.len())).collect();
            chosen.sort_unstable();
            chosen.dedup();
            let echoes: Vec<SinkRejection> = chosen.iter().map(|index| refusal(&items[*index])).collect();
            let found = laid(&items, &echoes);
            prop_assert_eq!(&found.unresolved, &None);
            let mut blamed: Vec<String> = indexes(&found).iter().map(|index| items[*index].to_string()).collect();
            let mut expected: Vec<String> = chosen.iter().map(|index| items[*index].to_string()).collect();
            blamed.sort();
            expected.sort();
            prop_assert_eq!(blamed, expected);
        }

        /// Whatever the echo lacks, no single item of equal ones is refused for it: all of them are, or none.
        #[test]
        fn a_poorer_echo_blames_no_stranger(items in proptest::collection::vec(item(), 2..12), pick: proptest::sample::Index) {
            let mut echo = items[pick.index(items.len())].clone();
            echo.as_object_mut().unwrap().remove("t");
            let found = laid(&items, &[refusal(&echo)]);
            for index in indexes(&found) {
                prop_assert_eq!(&items[index], &echo);
            }
            prop_assert_eq!(found.unresolved.is_some(), found.refused.is_empty());
        }
    }
}
