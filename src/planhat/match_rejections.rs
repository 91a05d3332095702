//! Which items of a batch an answer refused: its echoes matched to what was sent. Pure.
//!
//! * In: the items as bytes, in the order sent, and the refusals as read.
//! * Out: for each refusal the index of its item, or the refusal itself where no item is surely meant.
//! * Never: an item blamed twice; an item blamed by a guess; an item parsed when nothing was refused.
//!
//! Three passes, each over what the last one left: (1) equal as JSON values, numbers by their exact value; (2) numbers as
//! JavaScript keeps them (64-bit floats), for an echo went through such a server; (3) the echo lacks or adds fields, and
//! all items that it could mean are refused or are the same. Before (3), an echo that equals an item refused already is
//! a second reason for it. All are hash joins: ten thousand refusals of ten thousand items are no quadratic matter.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;

use serde_json::{Map, Value};

use crate::planhat::SinkRejection;

/// How many pairs of field sets are compared in the last pass. Real echoes differ from their items in one or two ways; an
/// answer beyond this is noise, and its refusals stay unmatched.
const SHAPES: usize = 1024;

/// Refusals and the items they mean.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Matched {
    /// Index of the item, and Planhat's reason (or reasons); ascending, each index once.
    pub by_index: Vec<(usize, String)>,
    /// Refusals without an echo, or whose echo means no item surely.
    pub unmatched: Vec<SinkRejection>,
}

/// Matches `refused` to `items`.
pub fn match_refused(items: &[&[u8]], refused: &[SinkRejection]) -> Matched {
    let mut matched = Matched::default();
    if refused.is_empty() {
        return matched;
    }
    let items: Vec<Option<Value>> = items.iter().map(|item| serde_json::from_slice(item).ok()).collect();
    let mut open = UnmatchedItem {
        items: items.iter().enumerate().filter_map(|(index, item)| Some((index, item.as_ref()?))).collect(),
        refused: refused.iter().enumerate().filter_map(|(n, refused)| Some((n, refused.item.as_ref()?))).collect(),
    };
    let mut pairs = open.join(|item| canonical(item, Numbers::Exact));
    pairs.extend(open.join(|item| canonical(item, Numbers::Double)));
    pairs.extend(open.second_reasons(&pairs, refused));
    pairs.extend(open.join_shapes());

    let mut taken = vec![false; refused.len()];
    let mut reasons: BTreeMap<usize, String> = BTreeMap::new();
    for (index, n) in pairs {
        taken[n] = true;
        let reason = reasons.entry(index).or_default();
        if !reason.is_empty() {
            reason.push_str("; ");
        }
        reason.push_str(&refused[n].error);
    }
    matched.by_index = reasons.into_iter().collect();
    matched.unmatched =
        refused.iter().zip(taken).filter(|(_, taken)| !taken).map(|(refused, _)| refused.clone()).collect();
    matched
}

/// What no pass has matched yet, in order.
struct UnmatchedItem<'a> {
    items: Vec<(usize, &'a Value)>,
    refused: Vec<(usize, &'a Value)>,
}

impl UnmatchedItem<'_> {
    /// Pairs each echo with the first open item of the same form, and takes both away.
    fn join(&mut self, form: impl Fn(&Value) -> String) -> Vec<(usize, usize)> {
        if self.refused.is_empty() {
            return Vec::new();
        }
        let mut by_form: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, item) in self.items.iter().rev() {
            by_form.entry(form(item)).or_default().push(*index);
        }
        let pair = |(n, echo): &(usize, &Value)| Some((by_form.get_mut(&form(echo))?.pop()?, *n));
        let pairs: Vec<_> = self.refused.iter().filter_map(pair).collect();
        self.remove(&pairs);
        pairs
    }

    /// Pairs each echo that equals an echo matched already with the item of that one, and takes the echo away.
    fn second_reasons(&mut self, pairs: &[(usize, usize)], refused: &[SinkRejection]) -> Vec<(usize, usize)> {
        if self.refused.is_empty() {
            return Vec::new();
        }
        let form = |echo: &Value| canonical(echo, Numbers::Exact);
        let blamed: HashMap<String, usize> =
            pairs.iter().filter_map(|(index, n)| Some((form(refused[*n].item.as_ref()?), *index))).collect();
        let again: Vec<_> = self.refused.iter().filter_map(|(n, echo)| Some((*blamed.get(&form(echo))?, *n))).collect();
        self.remove(&again);
        again
    }

    /// Pairs echoes with items of other fields, where the fields of the one include those of the other and the common
    /// ones are equal.
    fn join_shapes(&mut self) -> Vec<(usize, usize)> {
        let mut pairs = Vec::new();
        let (items, echoes) = (shapes(&self.items), shapes(&self.refused));
        if items.len().saturating_mul(echoes.len()) > SHAPES {
            return pairs;
        }
        let mut claims = Claims::default();
        for (echo_fields, echoes) in &echoes {
            for (item_fields, items) in &items {
                let common = match (includes(item_fields, echo_fields), includes(echo_fields, item_fields)) {
                    (true, _) => echo_fields,
                    (false, true) => item_fields,
                    (false, false) => continue,
                };
                // The empty object is a part of everything, and so says nothing.
                if !common.is_empty() {
                    claims.add(common, items, echoes);
                }
            }
        }
        claims.settle(&mut pairs);
        self.remove(&pairs);
        pairs
    }

    fn remove(&mut self, pairs: &[(usize, usize)]) {
        let (indexes, refusals): (HashSet<_>, HashSet<_>) = pairs.iter().copied().unzip();
        self.items.retain(|(index, _)| !indexes.contains(index));
        self.refused.retain(|(n, _)| !refusals.contains(n));
    }
}

type Members<'a> = Vec<(usize, &'a Map<String, Value>)>;

/// Objects by their set of fields.
fn shapes<'a>(values: &[(usize, &'a Value)]) -> Vec<(Vec<&'a str>, Members<'a>)> {
    let mut by_fields: HashMap<Vec<&str>, Members<'_>> = HashMap::new();
    for (index, value) in values {
        if let Value::Object(object) = value {
            let mut fields: Vec<&str> = object.keys().map(String::as_str).collect();
            fields.sort_unstable();
            by_fields.entry(fields).or_default().push((*index, object));
        }
    }
    let mut shapes: Vec<_> = by_fields.into_iter().collect();
    shapes.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    shapes
}

/// Whether `small` is a part of `large`; both are sorted.
fn includes(large: &[&str], small: &[&str]) -> bool {
    small.iter().all(|field| large.binary_search(field).is_ok())
}

/// Items and echoes that are equal in their common fields.
#[derive(Default)]
struct Bucket {
    /// Item indexes, with each item's whole form.
    items: Vec<(usize, String)>,
    /// Numbers of refusals.
    echoes: Vec<usize>,
}

/// The items that each echo could mean.
#[derive(Default)]
struct Claims {
    buckets: Vec<Bucket>,
    /// How many buckets fit an echo.
    fits: HashMap<usize, usize>,
    /// How many buckets hold an item.
    held: HashMap<usize, usize>,
}

impl Claims {
    fn add(&mut self, common: &[&str], items: &Members<'_>, echoes: &Members<'_>) {
        let project = |object: &Map<String, Value>| {
            let mut form = String::new();
            for field in common {
                write_canonical(&mut form, object.get(*field).unwrap_or(&Value::Null), Numbers::Double);
                form.push(',');
            }
            form
        };
        let mut by_form: HashMap<String, Bucket> = HashMap::new();
        for (n, echo) in echoes {
            by_form.entry(project(echo)).or_default().echoes.push(*n);
        }
        for (index, item) in items {
            if let Some(bucket) = by_form.get_mut(&project(item)) {
                bucket.items.push((*index, canonical_object(item)));
            }
        }
        for bucket in by_form.into_values().filter(|bucket| !bucket.items.is_empty()) {
            bucket.echoes.iter().for_each(|n| *self.fits.entry(*n).or_default() += 1);
            bucket.items.iter().for_each(|(index, _)| *self.held.entry(*index).or_default() += 1);
            self.buckets.push(bucket);
        }
    }

    /// A bucket is sure where its echoes fit nowhere else, its items are claimed by nobody else, and either all its items
    /// are refused or they are all the same.
    fn settle(self, pairs: &mut Vec<(usize, usize)>) {
        for Bucket { items, echoes } in &self.buckets {
            let alone =
                echoes.iter().all(|n| self.fits[n] == 1) && items.iter().all(|(index, _)| self.held[index] == 1);
            let sure = echoes.len() >= items.len() || items.windows(2).all(|pair| pair[0].1 == pair[1].1);
            if alone && sure {
                pairs.extend(items.iter().map(|(index, _)| *index).zip(echoes.iter().copied()));
            }
        }
    }
}

/// How numbers are told apart.
#[derive(Clone, Copy)]
enum Numbers {
    /// `1`, `1.0` and `1e0` are one; 2^53 and 2^53 + 1 are two.
    Exact,
    /// As 64-bit floats: 2^53 and 2^53 + 1 are one.
    Double,
}

fn canonical(value: &Value, numbers: Numbers) -> String {
    let mut form = String::new();
    write_canonical(&mut form, value, numbers);
    form
}

fn canonical_object(object: &Map<String, Value>) -> String {
    let mut form = String::new();
    write_object(&mut form, object, Numbers::Exact);
    form
}

/// Writes a form that is equal for equal values: fields sorted, texts with their length, numbers by value.
fn write_canonical(form: &mut String, value: &Value, numbers: Numbers) {
    match value {
        Value::Null => form.push('n'),
        Value::Bool(value) => form.push(if *value { 't' } else { 'f' }),
        Value::Number(number) => write_number(form, number, numbers),
        Value::String(text) => write_text(form, text),
        Value::Array(values) => {
            form.push('[');
            values.iter().for_each(|value| write_canonical(form, value, numbers));
            form.push(']');
        }
        Value::Object(object) => write_object(form, object, numbers),
    }
}

fn write_object(form: &mut String, object: &Map<String, Value>, numbers: Numbers) {
    let mut fields: Vec<_> = object.iter().collect();
    fields.sort_unstable_by_key(|(name, _)| *name);
    form.push('{');
    for (name, value) in fields {
        write_text(form, name);
        write_canonical(form, value, numbers);
    }
    form.push('}');
}

fn write_text(form: &mut String, text: &str) {
    // Writing to a String cannot fail.
    write!(form, "\"{}:{text}", text.len()).unwrap_or_default();
}

fn write_number(form: &mut String, number: &serde_json::Number, numbers: Numbers) {
    let double = number.as_f64().unwrap_or_default();
    let exact = matches!(numbers, Numbers::Exact) && !number.is_f64();
    // `+ 0.0` makes -0 and 0 one; a float below 2^53 without a fraction prints as the integer that it is.
    if exact { write!(form, "#{number}") } else { write!(form, "#{}", double + 0.0) }.unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn refusal(item: Value) -> SinkRejection {
        SinkRejection { item: Some(item), error: "bad".into() }
    }

    /// The indexes matched, and the number of refusals that were not.
    fn matched(items: &[Value], refused: &[Value]) -> (Vec<usize>, usize) {
        let items: Vec<String> = items.iter().map(Value::to_string).collect();
        let items: Vec<&[u8]> = items.iter().map(String::as_bytes).collect();
        let refused: Vec<_> = refused.iter().cloned().map(refusal).collect();
        let matched = match_refused(&items, &refused);
        (matched.by_index.into_iter().map(|(index, _)| index).collect(), matched.unmatched.len())
    }

    #[test]
    fn nothing_is_parsed_when_nothing_was_refused() {
        assert_eq!(match_refused(&[b"not json"], &[]), Matched::default());
    }

    #[test]
    fn numbers_go_by_value_and_fields_by_name() {
        let items: [&[u8]; 4] = [br#"{"a":1.50,"b":"x"}"#, br#"{"a":1e2}"#, br#"{"a":-0.0}"#, b"garbage"];
        let refused = [refusal(json!({"b": "x", "a": 1.5})), refusal(json!({"a": 100})), refusal(json!({"a": 0}))];
        let indexes: Vec<_> = match_refused(&items, &refused).by_index.into_iter().map(|(index, _)| index).collect();
        assert_eq!(indexes, [0, 1, 2]);
    }

    #[test]
    fn javascripts_numbers_match_only_where_no_exact_item_does() {
        let items: [&[u8]; 2] = [br#"{"v":9007199254740993}"#, br#"{"v":12345678901234567890123}"#];
        let echoes = [refusal(json!({"v": 9007199254740992u64})), refusal(json!({"v": 1.2345678901234568e22}))];
        assert!(match_refused(&items, &echoes).unmatched.is_empty());
        let twins = [json!({"v": 9007199254740993u64}), json!({"v": 9007199254740992u64})];
        assert_eq!(matched(&twins, &twins[1..]), (vec![1], 0));
    }

    #[test]
    fn equal_items_are_each_blamed_once() {
        let item = json!({"a": 1});
        let items = [item.clone(), json!({"a": 2}), item.clone(), item.clone()];
        assert_eq!(matched(&items, &[item.clone(), item.clone()]), (vec![0, 2], 0));
    }

    #[test]
    fn a_second_reason_stays_with_its_item() {
        let items: [&[u8]; 2] = [br#"{"a":1}"#, br#"{"a":1,"b":2}"#];
        let again = SinkRejection { item: Some(json!({"a": 1})), error: "worse".into() };
        let matched = match_refused(&items, &[refusal(json!({"a": 1})), again]);
        assert_eq!(matched, Matched { by_index: vec![(0, "bad; worse".into())], unmatched: Vec::new() });
    }

    #[test]
    fn a_rounded_echo_is_no_second_reason_while_its_item_is_open() {
        let items: [&[u8]; 2] = [br#"{"v":9007199254740992}"#, br#"{"v":9007199254740993}"#];
        let echo = refusal(json!({"v": 9007199254740992u64}));
        assert_eq!(match_refused(&items, &[echo.clone(), echo]).by_index.len(), 2);
    }

    #[test]
    fn an_echo_may_lack_or_add_fields_where_it_means_one_item() {
        let items = [json!({"id": 1, "date": "x"}), json!({"id": 2, "date": "x"}), json!({"id": 3})];
        assert_eq!(matched(&items, &[json!({"id": 2})]), (vec![1], 0));
        assert_eq!(matched(&items, &[json!({"id": 1, "date": "x", "_id": "f"})]), (vec![0], 0));
        assert_eq!(matched(&items, &[json!({"date": "x"})]), (vec![], 1), "two items fit");
        let other = [json!({"id": 1, "date": "x"}), json!({"id": 1, "name": "x"})];
        assert_eq!(matched(&other, &[json!({"id": 1})]), (vec![], 1), "two items of other fields fit");
        assert_eq!(matched(&items, &[json!({})]), (vec![], 1), "says nothing");
        assert_eq!(matched(&items, &[json!({"id": 1, "date": "y"})]), (vec![], 1), "contradicts");
        assert_eq!(matched(&items, &[json!("id")]), (vec![], 1), "is no object");
        let dated = [json!({"id": 1, "date": "x"}), json!({"id": 1, "date": "y"})];
        assert_eq!(matched(&dated, &[json!({"id": 1})]), (vec![], 1), "either");
        assert_eq!(matched(&dated, &[json!({"id": 1}), json!({"id": 1})]), (vec![0, 1], 0), "both");
        let same = [json!({"id": 1, "date": "x"}), json!({"id": 1, "date": "x"})];
        assert_eq!(matched(&same, &[json!({"id": 1})]), (vec![0], 0), "the same twice");
    }

    #[test]
    fn a_refusal_without_an_echo_is_kept() {
        let refusal = SinkRejection { item: None, error: "something".into() };
        let found = match_refused(&[b"{}"], std::slice::from_ref(&refusal));
        assert_eq!(found, Matched { by_index: Vec::new(), unmatched: vec![refusal] });
    }

    #[test]
    fn ten_thousand_refusals_of_ten_thousand_items() {
        let items: Vec<Value> =
            (0..10_000).map(|n| json!({"externalId": format!("u{n}"), "value": n, "date": "x"})).collect();
        let echo = |item: &Value, drop: bool| {
            let mut echo = item.clone();
            if drop {
                echo.as_object_mut().unwrap().remove("date")
            } else {
                echo.as_object_mut().unwrap().insert("_id".into(), json!(1))
            };
            echo
        };
        let begun = std::time::Instant::now();
        let all: Vec<usize> = (0..10_000).collect();
        assert_eq!(matched(&items, &items), (all.clone(), 0));
        let echoes: Vec<Value> = items.iter().map(|item| echo(item, true)).collect();
        assert_eq!(matched(&items, &echoes), (all.clone(), 0));
        let echoes: Vec<Value> = items.iter().map(|item| echo(item, false)).collect();
        assert_eq!(matched(&items, &echoes), (all, 0));
        // A quadratic join of this size takes minutes.
        assert!(begun.elapsed() < std::time::Duration::from_secs(20), "{:?}", begun.elapsed());
    }

    fn item() -> impl Strategy<Value = Value> {
        (0..4i64, "[ab]{0,2}", any::<bool>()).prop_map(|(n, text, nested)| match nested {
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
            let echoes: Vec<Value> = chosen.iter().map(|index| items[*index].clone()).collect();
            let (indexes, unmatched) = matched(&items, &echoes);
            prop_assert_eq!(unmatched, 0);
            let mut blamed: Vec<String> = indexes.iter().map(|index| items[*index].to_string()).collect();
            let mut expected: Vec<String> = echoes.iter().map(Value::to_string).collect();
            blamed.sort();
            expected.sort();
            prop_assert_eq!(blamed, expected);
        }

        /// Whatever was taken from the echo, an item is blamed only if the echo is a part of it.
        #[test]
        fn a_poorer_echo_blames_no_stranger(items in proptest::collection::vec(item(), 1..12), pick: proptest::sample::Index) {
            let mut echo = items[pick.index(items.len())].clone();
            echo.as_object_mut().unwrap().remove("t");
            let (indexes, _) = matched(&items, std::slice::from_ref(&echo));
            for index in indexes {
                for (name, value) in echo.as_object().unwrap() {
                    prop_assert_eq!(items[index].get(name), Some(value));
                }
            }
        }
    }
}
