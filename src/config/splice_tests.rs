//! Splices, by examples and by properties.

use proptest::prelude::*;

use super::*;

const FILE: &str = "# the file\nsource: { host: h } # where\nsections:\n  - name: a\n    kind: user_activity # what\n    table: t\n    \
    flush: 5s\n    batch: { rows: 10, bytes: 8MiB }\n    # the fields\n    fields:\n      email: e # who\n      # the action\n      \
    action: { column: c, default: Used }\n      info:\n        plan: plan\n\n  # the second\n  - { name: b, kind: custom_metric, \
    table: u }\nmemory: 64MiB\n";

fn edit(path: &[&str], value: Option<&str>) -> KeyEdit {
    KeyEdit {
        path: path.iter().map(|part| (*part).to_owned()).collect(),
        from: EditValue::default(),
        value: EditValue::single(value.map(str::to_owned)),
    }
}

#[test]
fn only_what_is_named_changes() {
    for (section, path, value, from, to) in [
        ("a", &["flush"][..], Some("1m"), "flush: 5s", "flush: 1m"),
        ("a", &["kind"], Some("custom_metric"), "kind: user_activity # what", "kind: custom_metric # what"),
        ("a", &["batch", "rows"], Some("20"), "rows: 10, bytes", "rows: 20, bytes"),
        ("a", &["batch", "rows"], None, "{ rows: 10, bytes: 8MiB }", "{ bytes: 8MiB }"),
        ("a", &["batch", "bytes"], None, "{ rows: 10, bytes: 8MiB }", "{ rows: 10 }"),
        ("a", &["fields", "email"], Some("{ value: x }"), "email: e # who", "email: { value: x } # who"),
        ("a", &["fields", "action"], None, "      action: { column: c, default: Used }\n", ""),
        ("a", &["fields", "weight"], Some("w"), "        plan: plan\n", "        plan: plan\n      weight: w\n"),
        ("a", &["fields", "info", "plan"], None, "      info:\n        plan: plan\n", ""),
        ("a", &["fields", "info", "x"], Some("x"), "        plan: plan\n", "        plan: plan\n        x: x\n"),
        ("a", &["in_doubt"], Some("hold"), "        plan: plan\n", "        plan: plan\n    in_doubt: hold\n"),
        ("b", &["table"], Some("v"), "table: u }", "table: v }"),
        ("b", &["fields", "value"], Some("n"), "table: u }", "table: u, fields: { value: n } }"),
        ("b", &["kind"], None, "name: b, kind: custom_metric, table", "name: b, table"),
    ] {
        let spliced = edit_section(FILE, section, &[edit(path, value)]).unwrap();
        assert_eq!(spliced, FILE.replacen(from, to, 1), "{path:?}");
    }
}

#[test]
fn other_line_ends_and_the_first_key_of_an_item_stay_right() {
    let windows = FILE.replace('\n', "\r\n");
    let spliced = edit_section(&windows, "a", &[edit(&["in_doubt"], Some("hold"))]).unwrap();
    assert_eq!(spliced, windows.replacen("        plan: plan\r\n", "        plan: plan\r\n    in_doubt: hold\r\n", 1));
    let text = "sections:\n- sync: off\n  name: a\n";
    assert_eq!(edit_section(text, "a", &[edit(&["sync"], None)]).unwrap(), "sections:\n- name: a\n");
    let text = "sections:\n- name: a\n  fields:\n  flush:";
    let spliced = edit_section(text, "a", &[edit(&["flush"], Some("5s"))]).unwrap();
    assert_eq!(spliced, "sections:\n- name: a\n  fields:\n  flush: 5s");
}

#[test]
fn a_key_that_goes_leaves_its_comments_or_says_its_default() {
    let text = "sections:\n  - name: a\n    flush: 1m # quiet\n    batch: { rows: 5, # few\n      bytes: 1MiB }\n    fields:\n      email: # who\n        # she\n        column: e # her\n";
    let gone = |path: &[&str], otherwise| {
        let mut edit = edit(path, None);
        edit.value.otherwise = otherwise;
        edit_section(text, "a", &[edit])
    };
    assert_eq!(gone(&["flush"], Some("5s")).unwrap(), text.replace("flush: 1m", "flush: 5s"));
    assert_eq!(gone(&["flush"], None).unwrap(), text.replace("flush: 1m # quiet", "# quiet"));
    assert_eq!(gone(&["batch", "rows"], Some("10000")).unwrap(), text.replace("rows: 5", "rows: 10000"));
    let few = SpliceError::Loses { key: "batch.rows".into(), what: "the comment `# few`".into() };
    assert_eq!(gone(&["batch", "rows"], None), Err(few));
    let kept = text.split("    fields:").next().unwrap().to_owned() + "    # who\n    # she\n    # her\n";
    assert_eq!(gone(&["fields", "email"], None).unwrap(), kept);
}

#[test]
fn a_comment_behind_a_bracket_or_a_quote_is_not_of_the_value() {
    let text = "sections:\n  - name: a\n    x: { y: \"b # \\\" b\" } # c\n    z: 'd '' # d' # e\n    w: [1] # f\n    v: \"g\" # h\n";
    for (key, from) in [("x", "{ y: \"b # \\\" b\" }"), ("z", "'d '' # d'"), ("w", "[1]"), ("v", "\"g\"")] {
        let changed = edit_section(text, "a", &[edit(&[key], Some("7"))]).unwrap();
        assert_eq!(changed, text.replacen(from, "7", 1), "{key}");
        let gone = edit_section(text, "a", &[edit(&[key], None)]).unwrap();
        assert_eq!(gone, text.replacen(&format!("{key}: {from} "), "", 1), "{key}");
    }
}

#[test]
fn a_mapping_is_changed_by_its_members_and_keeps_what_the_form_does_not_know() {
    let text = "sections:\n  - name: a\n    flush: { daily_at: \"07:00\", timezone: UTC, odd: 1 }\n    fields:\n      x:\n        column: c # c\n        odd: 2\n";
    let change = |path: &[&str], from: EditValue, value: EditValue| {
        let path = path.iter().map(|part| (*part).to_owned()).collect();
        edit_section(text, "a", &[KeyEdit { path, from, value }])
    };
    let daily = |at: Option<&str>, zone: Option<&str>, short: Option<&str>| EditValue {
        short: short.map(str::to_owned),
        members: vec![("daily_at", at.map(str::to_owned)), ("timezone", zone.map(str::to_owned))],
        otherwise: Some("5s"),
    };
    let seven = daily(Some("\"07:00\""), Some("UTC"), None);
    let eight = change(&["flush"], seven.clone(), daily(Some("\"08:00\""), Some("UTC"), None)).unwrap();
    assert_eq!(eight, text.replace("07:00", "08:00"));
    let odd = SpliceError::Loses { key: "flush".into(), what: "the key `odd`".into() };
    assert_eq!(change(&["flush"], seven, daily(None, None, Some("1m"))), Err(odd));
    let column = |column: &str, default: Option<&str>| EditValue {
        short: default.is_none().then(|| column.to_owned()),
        members: vec![("column", Some(column.to_owned())), ("default", default.map(str::to_owned))],
        otherwise: None,
    };
    let changed = change(&["fields", "x"], column("c", None), column("d", Some("0"))).unwrap();
    assert_eq!(
        changed,
        text.replace("column: c # c\n        odd: 2\n", "column: d # c\n        odd: 2\n        default: 0\n")
    );
}

#[test]
fn what_is_shared_is_changed_only_where_nothing_else_changes_with_it() {
    let text = "sections:\n  - &one\n    name: a\n    table: t # x\n  - name: b\n    table: u\n";
    assert_eq!(edit_section(text, "a", &[edit(&["table"], Some("v"))]).unwrap(), text.replace("table: t", "table: v"));
    assert_eq!(edit_section(text, "c", &[edit(&["table"], Some("v"))]), Err(SpliceError::Absent));
    let used = "sections:\n  - name: a\n    batch: &b { rows: 1 }\n  - name: b\n    batch: *b\n";
    for (value, path) in [(Some("2"), &["batch", "rows"][..]), (None, &["batch"])] {
        let refused = edit_section(used, "a", &[edit(path, value)]).unwrap_err();
        let what = "what `&b` shares with another place".to_owned();
        assert_eq!(refused, SpliceError::Loses { key: path.join("."), what });
    }
    let refused = edit_section(used, "b", &[edit(&["batch", "rows"], Some("2"))]).unwrap_err();
    assert_eq!(refused, SpliceError::Loses { key: "batch.rows".into(), what: "what stands in `*b`".into() });
}

#[test]
fn a_section_is_added_behind_the_last() {
    let lines = ["name: c".to_owned(), "table: v".to_owned()];
    let added = add_section(FILE, &lines).unwrap();
    assert_eq!(added, FILE.replacen("table: u }\n", "table: u }\n  - name: c\n    table: v\n", 1));
    assert_eq!(add_section("sections: [{ name: a }]\n", &lines), Err(SpliceError::Odd));
}

#[test]
fn scalars_are_plain_where_they_mean_the_same() {
    for (text, written) in [
        ("user_id", "user_id"),
        ("Feature used", "Feature used"),
        ("off", "\"off\""),
        ("5", "\"5\""),
        ("a: b", "\"a: b\""),
        ("", "\"\""),
        ("ä\"", "\"ä\\\"\""),
        ("x #y", "\"x #y\""),
    ] {
        assert_eq!(scalar(text), written);
    }
}

/// A value of YAML in one line.
fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z]{1,6}",
        "[ -~]{0,8}".prop_map(|text| scalar(&text)),
        ("[a-z]{1,4}", "[ -~]{0,6}").prop_map(|(column, text)| format!(
            "{{ column: {}, default: {} }}",
            scalar(&column),
            scalar(&text)
        )),
        Just("7".to_owned()),
    ]
}

/// A section written in some way, with comments and blank lines.
fn written() -> impl Strategy<Value = String> {
    let entries = || proptest::collection::vec(("[b-m]{2,4}", value(), 0..4_u8), 0..5);
    (entries(), entries(), any::<bool>(), any::<bool>()).prop_map(|(keys, fields, flow, comments)| {
        let unique = |entries: Vec<(String, String, u8)>| {
            let mut seen = Vec::new();
            let mut kept = Vec::new();
            for entry in entries {
                if !seen.contains(&entry.0) {
                    seen.push(entry.0.clone());
                    kept.push(entry);
                }
            }
            kept
        };
        let (keys, fields) = (unique(keys), unique(fields));
        let mut text = "top: 1\nsections:\n  - name: a\n".to_owned();
        let note = |style: u8| if comments && style == 1 { " # note" } else { "" };
        for (key, value, style) in &keys {
            if comments && *style == 2 {
                text.push_str("    # before\n\n");
            }
            text.push_str(&format!("    k{key}: {value}{}\n", note(*style)));
        }
        if flow {
            let inner: Vec<String> = fields.iter().map(|(key, value, _)| format!("f{key}: {value}")).collect();
            text.push_str(&format!("    fields: {{ {} }}\n", inner.join(", ")));
        } else if !fields.is_empty() {
            text.push_str("    fields:\n");
            for (key, value, style) in &fields {
                text.push_str(&format!("      f{key}: {value}{}\n", note(*style)));
            }
        }
        text + "  # other\n  - name: other\n    table: t # o\nend: 2\n"
    })
}

proptest! {
    #[test]
    fn a_splice_says_what_was_asked_and_keeps_the_other_lines(
        text in written(), inside in any::<bool>(), pick in any::<proptest::sample::Index>(),
        fresh in "[n-z]{2,4}", new in proptest::option::of(value()),
    ) {
        let root = spans(&text).unwrap();
        let own = item(&root, "a").unwrap();
        let map = if inside { own.entry("fields").map(|fields| &fields.value).filter(|fields| !fields.entries().is_empty()) } else { Some(own) };
        let known: Vec<String> = map.map(|map| map.entries().iter().map(|entry| entry.key.clone()).filter(|key| key != "name").collect()).unwrap_or_default();
        let key = if known.is_empty() || new.is_some() && pick.index(3) == 0 { fresh } else { known[pick.index(known.len())].clone() };
        let path: Vec<String> = if inside { vec!["fields".to_owned(), key.clone()] } else { vec![key.clone()] };
        // The last field of a block goes only with `fields` itself.
        prop_assume!(!(new.is_none() && inside && known.len() == 1));
        let step = Step { path: path.clone(), value: new.clone(), otherwise: None };
        let edits = [KeyEdit { path, from: EditValue::default(), value: EditValue::single(new) }];
        let spliced = edit_section(&text, "a", &edits);
        if let Err(SpliceError::Loses { what, .. }) = &spliced {
            prop_assert!(what.starts_with("the comment") && text.contains(" # note"), "{text}\n{edits:?}\n{what}");
            return Ok(());
        }
        prop_assert!(spliced.is_ok(), "{text}\n{edits:?}\n{spliced:?}");
        let spliced = spliced.unwrap();
        prop_assert_eq!(says(&spliced), expected(&text, "a", &step));
        // Lines that do not belong to the key are there, in their order.
        let touched = map.and_then(|map| map.entry(&key)).map(|entry| (entry.start, entry.end()));
        let place = |at: usize| text[..at].matches('\n').count();
        let flow_line = own.entry("fields").filter(|fields| inside && fields.value.is_flow(&text)).map(|fields| place(fields.start));
        let kept = text.lines().enumerate().filter(|(number, _)| {
            let of_key = touched.is_some_and(|(start, end)| (place(start)..=place(end)).contains(number));
            !of_key && flow_line != Some(*number)
        });
        let mut left = spliced.lines();
        for (_, line) in kept {
            prop_assert!(left.any(|other| other == line), "{line:?} is gone from\n{spliced}");
        }
    }
}
