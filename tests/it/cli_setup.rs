//! `setup`: publication, slot and state schema; and the script that a DBA runs instead.

use crate::harness::{App, Cluster, ConfigText, SectionText};
use crate::least_role::psql;

fn config(cluster: &Cluster) -> ConfigText {
    ConfigText::new(cluster, "http://127.0.0.1:9").section(SectionText::metric("seats", "usage"))
}

async fn made(output: &crate::harness::app::Output) -> Vec<(String, bool)> {
    assert_eq!(output.code, 0, "{}", output.stderr);
    let steps = output.json()["steps"].as_array().unwrap().clone();
    steps.iter().map(|step| (step["what"].as_str().unwrap().to_owned(), step["made"].as_bool().unwrap())).collect()
}

#[tokio::test]
async fn it_makes_what_is_missing_and_may_run_again() {
    let cluster = Cluster::start().await;
    cluster.sql(&SectionText::metric_table("usage")).await;
    let config = config(&cluster);
    let denied = App::command(&config.clone().set("source.manage", "false"), &["setup"]).await;
    assert_eq!(denied.code, 75);
    assert!(denied.stderr.contains("CREATE PUBLICATION"), "{}", denied.stderr);
    assert_eq!(cluster.number("SELECT count(*) FROM pg_publication").await, 0);
    let steps = |made: bool| ["state schema", "publication", "slot"].map(|what| (what.to_owned(), made)).to_vec();
    assert_eq!(made(&App::command(&config, &["--json", "setup"]).await).await, steps(true));
    assert_eq!(made(&App::command(&config, &["--json", "setup"]).await).await, steps(false));
    assert_eq!(cluster.text("SELECT pubinsert AND NOT pubupdate AND NOT pubdelete FROM pg_publication").await, "t");
    assert_eq!(cluster.text("SELECT plugin FROM pg_replication_slots").await, "pgoutput");
    cluster.sql(&SectionText::metric_table("more")).await;
    let config = config.section(SectionText::metric("more", "more"));
    let people = App::command(&config, &["setup"]).await;
    assert!(people.stdout.contains("made   publication pg2planhat\n       ALTER PUBLICATION"), "{}", people.stdout);
    assert!(people.stdout.contains("there  slot pg2planhat\n"), "{}", people.stdout);
}

#[tokio::test]
async fn the_script_of_the_dba_gives_a_least_privileged_role_all_that_it_needs_and_needs_psql() {
    let cluster = Cluster::start().await;
    cluster.sql(&SectionText::metric_table("usage")).await;
    cluster.sql(&SectionText::activity_table("\"we''ird \"\"table\"")).await;
    let config = config(&cluster)
        .set("source.user", "\"the role\"")
        .section(SectionText::activity("events", r#"'public."we''''ird ""table"'"#));
    // The role is not there yet, so nothing can be looked up.
    let script = App::command(&config, &["setup", "--print-sql"]).await;
    assert_eq!(script.code, 0, "{}", script.stderr);
    assert!(!script.stdout.contains("PASSWORD '"), "{}", script.stdout);
    assert_eq!(cluster.number("SELECT count(*) FROM pg_publication").await, 0, "nothing is done");
    for round in ["first", "again"] {
        psql(&cluster, &script.stdout).unwrap_or_else(|stderr| panic!("{round}: {stderr}\n{}", script.stdout));
    }
    let output = App::command(&config.clone().set("source.manage", "false"), &["--json", "setup"]).await;
    assert_eq!(made(&output).await.iter().filter(|(_, made)| *made).count(), 0);
    let check = App::command(&config.set("source.manage", "false"), &["--json", "check"]).await.json();
    let errors: Vec<_> = check["findings"].as_array().unwrap().iter().filter(|f| f["severity"] == "error").collect();
    assert!(errors.iter().all(|finding| finding["code"] == "sink_unreachable"), "{errors:?}");
    let rights =
        "SELECT rolsuper OR rolcreatedb OR rolcreaterole OR rolbypassrls FROM pg_roles WHERE rolname = 'the role'";
    assert_eq!(cluster.text(rights).await, "f");
    assert_eq!(cluster.text("SELECT has_table_privilege('the role', 'usage', 'INSERT')").await, "f");
}
