//! The dashboard: every query names what exists (and `rules.rs` draws them all from a real Prometheus).

use crate::names::{known, named};
use crate::tools::text;
use serde_json::Value;
use std::collections::BTreeSet;

fn dashboard() -> Value {
    serde_json::from_str(&text("deploy/grafana/dashboard.json")).unwrap()
}

/// Every panel's title and query, with Grafana's variables filled in.
pub fn queries() -> Vec<(String, String)> {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row");
    let targets =
        panels.flat_map(|panel| panel["targets"].as_array().unwrap().iter().map(move |target| (panel, target)));
    let fill = |query: &str| {
        let filled = query.replace("$__rate_interval", "1m").replace("$job", ".*").replace("$section", ".*");
        assert!(!filled.contains('$'), "a variable is left: {filled}");
        filled
    };
    let pair = |(panel, target): (&Value, &Value)| (panel["title"].to_string(), fill(target["expr"].as_str().unwrap()));
    targets.map(pair).collect()
}

#[test]
fn every_query_names_a_metric_that_exists() {
    let known = known();
    let queries = queries();
    assert!(queries.len() > 30);
    for (title, query) in queries {
        let names = named(&query);
        assert!(!names.is_empty() && names.is_subset(&known), "{title}: {names:?} in {query}");
    }
}

#[test]
fn every_metric_has_its_place_on_it() {
    let shown: BTreeSet<String> = queries().iter().flat_map(|(_, query)| named(query)).collect();
    for name in pg2planhat::testing::telemetry::Metrics::names() {
        assert!(shown.iter().any(|shown| shown.starts_with(&name)), "{name} is on no panel");
    }
}

#[test]
fn panels_have_titles_descriptions_and_ids_of_their_own_and_do_not_overlap() {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut ids = BTreeSet::new();
    let mut squares = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_i64().unwrap()), "{panel}");
        assert!(panel["title"].as_str().is_some_and(|title| !title.is_empty()));
        assert!(
            panel["type"] == "row" || panel["description"].as_str().is_some_and(|text| text.ends_with('.')),
            "{}",
            panel["title"]
        );
        let side = |name: &str| panel["gridPos"][name].as_i64().unwrap();
        for x in side("x")..side("x") + side("w") {
            for y in side("y")..side("y") + side("h") {
                assert!(x < 24 && squares.insert((x, y)), "{} overlaps", panel["title"]);
            }
        }
    }
}
