//! What an outsider strained: gaps beside a re-sync, and a wizard whose files are in the way.

use std::time::Duration;

use crate::harness::{SectionText, eventually};
use crate::world::{OPERATOR, World, bearer};

const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";
const HERE: &str = "Sec-Fetch-Site: same-origin\r\n";

#[tokio::test]
async fn case_284_a_resync_tells_of_the_gaps_that_it_closes_and_leaves() {
    let mut world = World::new().await;
    world.insert(20).await;
    world.wait_delivered(20).await;
    // Off for a while: its rows of that time are a gap.
    let on = world.config.clone();
    let off = SectionText::activity("logins", "app_event").set("sync", "off");
    world
        .restart(on.clone().without_sections().section(off).section(SectionText::metric("seats", "usage_daily")))
        .await;
    world.insert(5).await;
    world.restart(on).await;
    let gaps = || async { (world.cluster.text("SELECT count(*) FROM pg2planhat.gap").await == "1").then_some(()) };
    eventually(Duration::from_secs(20), "the gap", gaps).await;
    let operator = format!("{}{FORM}", bearer(OPERATOR));
    let planned = async |by: &str| {
        let answer = world.ask("POST", "/sections/logins/resync", &operator, by).await;
        assert_eq!(answer.status, 303, "{}", answer.body);
        world.ask("GET", answer.header("location")[0], &operator, "").await.body
    };
    let all = planned("by=all").await;
    assert!(all.contains("closes the open gap 1") && !all.contains("stays open"), "{all}");
    assert!(!all.contains("25 rows will count twice"), "the rows of the gap are none of those that Planhat has");
    let later = planned("by=key&key=23").await;
    assert!(later.contains("The open gap 1 may have rows beside these") && later.contains("Everything"), "{later}");
}

#[tokio::test]
async fn case_285_a_wizard_that_cannot_write_leaves_nothing_behind() {
    let world = World::empty().await;
    let log = world.app.log();
    let link = log.split_whitespace().find(|word| word.contains("/login#k=")).unwrap().to_owned();
    let login = format!("token={}", link.split_once("#k=").unwrap().1);
    let answer = world.ask("POST", "/session", &format!("{FORM}{HERE}"), &login).await;
    let cookie = answer.header("set-cookie").join("").split(';').next().unwrap().to_owned();
    let person = format!("Cookie: {cookie}\r\n{FORM}{HERE}");
    let ends = format!(
        "host=127.0.0.1&port={}&database=postgres&user=postgres&password=x&tls=disable&planhat_url={}&tenant=t-1",
        world.cluster.port(),
        world.sim.url()
    );
    assert_eq!(world.ask("POST", "/setup/connect", &person, &ends).await.status, 303);
    assert_eq!(world.ask("POST", "/setup/tables", &person, "schema=public&table=public.app_event").await.status, 303);
    let folder = world.app.config_path().parent().unwrap().to_owned();
    // An earlier one had left this.
    let (password, tenant) = (folder.join("pg2planhat.password"), folder.join("pg2planhat.tenant"));
    std::fs::write(&tenant, "old").unwrap();
    let refused = world.ask("POST", "/setup/run", &person, "in_files=1").await;
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert!(!password.exists() && !world.app.config_path().exists(), "nothing is written by halves");
    std::fs::remove_file(&tenant).unwrap();
    let written = world.ask("POST", "/setup/run", &person, "in_files=1").await;
    assert_eq!(written.status, 303, "{}", written.body);
    assert!(password.exists() && tenant.exists() && world.app.config_path().exists());
}
