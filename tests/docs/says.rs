//! What a document must say, because a reader did otherwise without it.

use crate::root;

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

#[test]
fn case_256_docs_say_that_a_credential_of_the_unit_is_renewed_by_a_restart() {
    let unit = read("deploy/systemd/pg2planhat.service");
    assert!(!unit.contains("LoadCredential=") || unit.contains("systemctl restart pg2planhat"), "the unit's head");
    let row = read("docs/operations.md");
    let row = row.lines().find(|line| line.contains("rotate a password")).unwrap_or_default().to_owned();
    for word in ["LoadCredential", "systemctl restart", "`env:`"] {
        assert!(row.contains(word), "{word} is not in {row}");
    }
}

#[test]
fn case_259_docs_say_which_variables_lead_to_planhat_and_whom_they_trust() {
    let security = read("docs/security.md");
    for word in ["HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE"] {
        assert!(security.contains(word), "{word}");
    }
}

#[test]
fn case_79_docs_say_that_an_older_row_may_come_after_a_newer_one_beside_a_backfill() {
    let exactness = read("docs/exactness.md");
    let told =
        exactness.lines().skip_while(|line| !line.contains("The last value of a day, beside a backfill")).take(2);
    let told = told.collect::<String>();
    for word in ["an older row may arrive after a newer one", "LAST", "let the backfill end", "`resync --from-time`"] {
        assert!(told.contains(word), "{word} is not in {told:?}");
    }
}
