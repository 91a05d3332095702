//! Arguments and environments.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use crate::{Case, judge, right};

#[test]
fn odd_arguments_and_environments() {
    let mut cases = Vec::new();
    let commands = [
        "discover",
        "check",
        "setup",
        "preview",
        "status",
        "logs",
        "pause",
        "resume",
        "resync",
        "quarantine",
        "query",
        "repair",
        "teardown",
        "completions",
        "schema",
        "trace",
        "audit",
    ];
    let odd = [
        "--nonsense",
        "\u{1b}[2J",
        "x\nerror: forged",
        "-n",
        "--rows=99999999999999999999",
        "\u{202e}gpj",
        "--",
        "--json=maybe",
    ];
    for command in commands {
        for argument in odd {
            cases.push(Case::new(format!("{command} {argument:?}"), right(1, 1), &[command, argument]));
        }
        let mut bytes = Case::new(format!("{command} not UTF-8"), right(1, 1), &[command]);
        bytes.arguments.push(OsString::from_vec(vec![0xff, 0x1b, b'[']));
        cases.push(bytes);
    }
    for arguments in [
        &["query", "--timeout", "0s", "SELECT 1"][..],
        &["query", "--timeout", "2h", "SELECT 1"],
        &["query", "--allow-source-role", "SELECT 1"],
        &["query", "-n", "-1", "SELECT 1"],
        &["--log-level", "\u{1b}[2J", "check"],
        &["--log-level", "a=b=c", "check"],
        &["--log-format", "xml", "check"],
        &["resync", "seats", "--from-time", "\u{1b}never"],
        &["logs", "--since", "\u{9b}2J"],
        &[],
        &["help"],
        &["--version"],
    ] {
        cases.push(Case::new(format!("{arguments:?}"), right(1, 1), arguments));
    }
    let bare = "planhat: { tenant: 11111111-2222-4333-8444-555555555555 }\n";
    for (name, value) in [
        ("PGPORT", "abc"),
        ("PGPORT", "0"),
        ("PGPORT", "1,2,3"),
        ("PGHOST", ""),
        ("PGHOST", ",,,"),
        ("PGHOST", "/nowhere"),
        ("PGSSLMODE", "prefer"),
        ("PGSSLMODE", "\u{1b}[2J"),
        ("PGUSER", "\u{1b}]0;x\u{7}"),
        ("PGCONNECT_TIMEOUT", "-5"),
        ("PGCONNECT_TIMEOUT", "nan"),
        ("PGOPTIONS", "-c \u{1b}x"),
        ("PGPASSFILE", "/dev/zero"),
        ("PGPASSFILE", "/"),
        ("PGSSLROOTCERT", "/dev/zero"),
        ("PGSSLCERT", "/dev/zero"),
        ("PGTARGETSESSIONATTRS", "any-of"),
        ("RUST_LOG", "a=b=c"),
        ("RUST_LOG", "\u{1b}[2J"),
        ("NO_COLOR", "1"),
        ("COLUMNS", "0"),
        ("COLUMNS", "99999999"),
        ("TERM", "\u{1b}"),
        ("HOME", ""),
        ("HOME", "/dev/null"),
        ("HTTPS_PROXY", "\u{1b}nonsense"),
        ("TZ", "\u{1b}"),
        ("LANG", "\u{ff}"),
        ("PGAPPNAME", "a\nerror: forged"),
        ("PGCHANNELBINDING", "maybe"),
        ("PGSSLNEGOTIATION", "\n"),
        ("USER", ""),
    ] {
        let case = Case::new(format!("{name}={value:?}"), bare, &["discover"]);
        // What is not asked for goes to a port where nobody listens.
        let case = if name == "PGHOST" { case } else { case.env("PGHOST", "127.0.0.1") };
        let case = if name == "PGPORT" { case } else { case.env("PGPORT", "1") };
        cases.push(case.env(name, value));
    }
    let mut bytes = Case::new("PGUSER not UTF-8", bare, &["discover"]).env("PGHOST", "127.0.0.1").env("PGPORT", "1");
    bytes.environment.push(("PGUSER".into(), OsString::from_vec(vec![0xff, 0xfe])));
    cases.push(bytes);
    judge(&cases);
}
