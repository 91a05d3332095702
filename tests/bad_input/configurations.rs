//! Files: each key with each odd value, and files that are odd as a whole.

use crate::{Case, judge, right};

/// Odd values, as YAML.
const VALUES: [&str; 14] = [
    "",
    "\"\"",
    "[]",
    "{}",
    "-1",
    "99999999999999999999999999",
    "[[[[x]]]]",
    "{ a: { b: c } }",
    "\"a\\e[2Jb\\nerror: forged\\n  remedy: forged\"",
    "\"\\u202Egpj\\x9b2J\"",
    "'; DROP TABLE x; --'",
    "1e400",
    "!!binary aGVsbG8=",
    "\"\\0\"",
];

/// Every key, and how it is reached.
const KEYS: [&str; 34] = [
    "source.url",
    "source.host",
    "source.port",
    "source.database",
    "source.user",
    "source.password",
    "source.tls",
    "source.ca",
    "source.cert",
    "source.schema",
    "source.slot",
    "source.publication",
    "source.manage",
    "source.reader",
    "planhat.tenant",
    "planhat.url",
    "planhat.timeout",
    "planhat.halt_probe",
    "planhat.bulk_activity_names",
    "state.schema",
    "state.url",
    "state.keep_deliveries",
    "state.keep_quarantine",
    "admin.listen",
    "admin.hosts",
    "memory.",
    "shutdown_grace.",
    "sections.",
    "unknown.",
    "source.",
    "planhat.",
    "state.",
    "admin.",
    "source.failover_slot",
];

/// Keys of a section.
const OF_SECTION: [&str; 13] = [
    "name", "kind", "model", "sync", "table", "key", "start", "batch", "flush", "in_doubt", "date", "timezone",
    "fields",
];

/// The right file with one key set, instead of what it had.
fn with(key: &str, value: &str) -> String {
    let (group, name) = key.split_once('.').unwrap();
    let base = right(1, 1);
    if name.is_empty() {
        let mut kept = String::new();
        let mut inside = false;
        for line in base.lines() {
            if !line.starts_with(' ') {
                inside = line.starts_with(&format!("{group}:"));
            }
            if !inside {
                kept.push_str(line);
                kept.push('\n');
            }
        }
        return format!("{kept}{group}: {value}\n");
    }
    let mut kept = String::new();
    let mut done = false;
    for line in base.lines() {
        if line.starts_with(&format!("  {name}:")) {
            continue;
        }
        kept.push_str(line);
        kept.push('\n');
        if line == format!("{group}:") {
            kept.push_str(&format!("  {name}: {value}\n"));
            done = true;
        }
    }
    if done { kept } else { format!("{kept}{group}:\n  {name}: {value}\n") }
}

fn in_section(name: &str, value: &str) -> String {
    let base = right(1, 1);
    let (head, section) = base.split_at(base.find("  - name").unwrap());
    let mut kept = String::from("  - odd: 1\n");
    let mut inside = false;
    for line in section.replacen("  - name", "    name", 1).lines() {
        if !line.starts_with("      ") {
            inside = line.starts_with(&format!("    {name}:"));
        }
        if !inside {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    format!("{head}{}    {name}: {value}\n", kept.replacen("  - odd: 1\n    ", "  - ", 1))
}

#[test]
fn every_key_with_every_odd_value() {
    let mut cases = Vec::new();
    for (number, value) in VALUES.iter().enumerate() {
        for key in KEYS {
            // Names are looked up, and paths opened, where a command goes on: those that read the file alone are enough there.
            let elsewhere = ["source.host", "source.url", "planhat.url", "state.url"].contains(&key);
            let command: &[&str] = if elsewhere || number % 2 == 0 { &["preview", "none"] } else { &["discover"] };
            cases.push(Case::new(format!("{key}: {value}"), with(key, value), command));
        }
        for name in OF_SECTION {
            let arguments: &[&str] =
                if number % 3 == 0 { &["--json", "preview", "none"] } else { &["preview", "seats"] };
            cases.push(Case::new(format!("section {name}: {value}"), in_section(name, value), arguments));
        }
    }
    assert!(cases.len() > 600, "{}", cases.len());
    judge(&cases);
}

#[test]
fn case_102_files_that_are_odd_as_a_whole() {
    let aliases = format!("x: &a \"{}\"\ny: [{}]\n", "z".repeat(300_000), "*a,".repeat(9_000));
    let laughs = (1..9).fold("a0: &a0 [x, x]\n".to_owned(), |text, level| {
        format!("{text}a{level}: &a{level} [{}]\n", format!("*a{},", level - 1).repeat(9))
    });
    let base = right(1, 1);
    let texts: Vec<(&str, Vec<u8>)> = vec![
        ("empty", Vec::new()),
        ("blank", b" \n\t\n".to_vec()),
        ("not YAML", b"{{{{".to_vec()),
        ("aliases of one long scalar", aliases.into_bytes()),
        ("a billion laughs", laughs.into_bytes()),
        ("anchors within anchors", (0..30).map(|n| format!("&b{n} [")).collect::<String>().into_bytes()),
        ("deep", "[".repeat(100_000).into_bytes()),
        ("deep maps", "{a: ".repeat(50_000).into_bytes()),
        ("not UTF-8", vec![0xff; 1000]),
        ("NUL", format!("{base}\0").into_bytes()),
        ("escapes in a key", b"\"a\\e[2J\\nerror: forged\": 1\n".to_vec()),
        ("escapes", b"source: {host: \"\x1b[2J\"}\n".to_vec()),
        ("C1", "source: \u{9b}2J\n".into()),
        ("a long line", "x".repeat(1 << 20).into_bytes()),
        ("too large", vec![b'#'; 3 << 20]),
        ("many sections", format!("{base}{}", "  - { name: a }\n".repeat(5_000)).into_bytes()),
        ("many keys", (0..20_000).map(|n| format!("k{n}: 1\n")).collect::<String>().into_bytes()),
        ("two documents", format!("{base}---\n{base}").into_bytes()),
        ("CRLF", base.replace('\n', "\r\n").into_bytes()),
        ("a BOM", format!("\u{feff}{base}").into_bytes()),
        ("merge keys", format!("a: &a {{}}\n<<: *a\n{base}").into_bytes()),
        ("a directive", format!("%YAML 1.2\n---\n{base}").into_bytes()),
        ("a tag bomb", "!!".repeat(10_000).into_bytes()),
        ("an itself", b"a: &a [*a]\n".to_vec()),
    ];
    let mut cases: Vec<Case> = Vec::new();
    for (name, bytes) in texts {
        cases.push(Case::new(name, bytes.clone(), &["check"]));
        cases.push(Case::new(format!("{name}, source alone"), bytes, &["query", "SELECT 1"]));
    }
    for path in ["/dev/zero", "/dev/null", "/", "/proc/self/mem", "/dev/full", "/nowhere", "\u{1b}[2J", ""] {
        cases.push(Case::new(format!("--config {path:?}"), "", &["--config", path, "check"]));
        let secret = format!("password: {{ file: \"{}\" }}", path.replace('\u{1b}', "\\e"));
        cases.push(Case::new(
            format!("a secret in {path:?}"),
            right(1, 1).replace("password: secret", &secret),
            &["discover"],
        ));
    }
    judge(&cases);
}
