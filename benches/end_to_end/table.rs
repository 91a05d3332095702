//! The table that comes out.

use std::time::Duration;

/// Rows of figures against goals.
#[derive(Default)]
pub struct Table(Vec<[String; 6]>);

impl Table {
    /// A ratio of ours to a limit.
    pub fn ratio(&mut self, what: &str, limit: Duration, ours: Duration, goal: Option<(f64, f64)>) {
        let ratio = ours.as_secs_f64() / limit.as_secs_f64();
        let bounds = goal.map(|(goal, bar)| (goal, bar, "×"));
        self.add(what, &seconds(limit), &seconds(ours), ratio, "×", bounds);
    }

    /// A figure that stands by itself.
    pub fn figure(&mut self, what: &str, figure: f64, unit: &'static str, goal: f64, bar: f64) {
        self.add(what, "", "", figure, unit, Some((goal, bar, unit)));
    }

    fn add(&mut self, what: &str, limit: &str, ours: &str, figure: f64, unit: &str, bounds: Option<(f64, f64, &str)>) {
        let shown = |figure: f64, unit: &str| match unit {
            "×" => format!("{figure:.2} ×"),
            "s" => format!("{figure:.2} s"),
            _ => format!("{figure:.1} {unit}"),
        };
        let (aims, verdict) = match bounds {
            None => (String::new(), ""),
            Some((goal, bar, unit)) => {
                let verdict = if figure <= goal {
                    "goal"
                } else if figure <= bar {
                    "bar"
                } else {
                    "MISSED"
                };
                (format!("{} / {}", shown(goal, unit), shown(bar, unit)), verdict)
            }
        };
        let line = [what.to_owned(), limit.to_owned(), ours.to_owned(), shown(figure, unit), aims, verdict.to_owned()];
        println!("  {}", line.join(" | "));
        self.0.push(line);
    }

    /// Prints it, as Markdown.
    pub fn print(&self) {
        let head = ["what", "limit", "ours", "figure", "goal / bar", "met"].map(str::to_owned);
        let width = |column: usize| {
            let cells = self.0.iter().chain([&head]).map(|line| line[column].chars().count());
            cells.max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        let written = |line: &[String; 6]| {
            let cells = line.iter().zip(&widths).map(|(cell, width)| format!(" {cell:<width$} "));
            format!("|{}|", cells.collect::<Vec<_>>().join("|"))
        };
        println!("\n{}", written(&head));
        println!("|{}|", widths.iter().map(|width| "-".repeat(width + 2)).collect::<Vec<_>>().join("|"));
        self.0.iter().for_each(|line| println!("{}", written(line)));
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}
