//! Reading what `/metrics` shows.

use std::collections::BTreeMap;

/// One scrape.
#[derive(Clone, Debug, Default)]
pub struct Metrics(Vec<Sample>);

#[derive(Clone, Debug)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Metrics {
    /// Parses the text format; panics at a line that is not one.
    pub fn parse(text: &str) -> Metrics {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        Metrics(lines.map(|line| sample(line).unwrap_or_else(|| panic!("not a sample: {line:?}"))).collect())
    }

    /// The sum of the samples with this name that have these labels (and maybe others); `None` if there is none.
    /// The prefix `pg2planhat_` may be left out.
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let prefixed = format!("pg2planhat_{name}");
        let named = self.0.iter().filter(|sample| sample.name == name || sample.name == prefixed);
        let fits =
            |sample: &&Sample| labels.iter().all(|(key, value)| sample.labels.get(*key).is_some_and(|v| v == value));
        let values = named.filter(fits).map(|sample| sample.value).collect::<Vec<_>>();
        (!values.is_empty()).then(|| values.iter().sum())
    }
}

fn sample(line: &str) -> Option<Sample> {
    let end = line.find(['{', ' '])?;
    let mut labels = BTreeMap::new();
    let mut rest = &line[end..];
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while let Some((key, after)) = rest.split_once("=\"").filter(|(key, _)| !key.contains('}')) {
            let (value, after) = quoted(after)?;
            labels.insert(key.trim_start_matches(',').to_owned(), value);
            rest = after;
        }
        rest = rest.trim_start_matches(',').strip_prefix('}')?;
    }
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name: line[..end].to_owned(), labels, value })
}

/// The text up to the closing quote, unescaped, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[test]
fn samples_are_read() {
    let text = "# HELP x y\npg2planhat_rows_total{section=\"a\",phase=\"stream\"} 3\n\
                pg2planhat_rows_total{section=\"b}\\\"=\\\"\\n\",phase=\"stream\"} 4\nprocess_open_fds 9\nodd{} +Inf\n";
    let metrics = Metrics::parse(text);
    assert_eq!(metrics.get("rows_total", &[("section", "a")]), Some(3.0));
    assert_eq!(metrics.get("rows_total", &[("section", "b}\"=\"\n")]), Some(4.0));
    assert_eq!(metrics.get("rows_total", &[("phase", "stream")]), Some(7.0));
    assert_eq!(metrics.get("rows_total", &[("phase", "backfill")]), None);
    assert_eq!(metrics.get("process_open_fds", &[]), Some(9.0));
    assert_eq!(metrics.get("odd", &[]), Some(f64::INFINITY));
}
