//! What operators are given, checked with the tools that they use: promtool, a real Prometheus, kubectl, a schema validator,
//! hadolint, systemd-analyze, helm. `.ci/tools` brings them. A test that needs one has it in its name (`needs_helm`): `.ci/test`
//! leaves it out where the tool cannot be had, and says so; run without the tool, it fails.

#![allow(unreachable_pub, reason = "the modules of a test are no interface")]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "in a test a panic is the verdict, and stderr its report")]
#![allow(clippy::too_many_lines, reason = "a scenario reads best in one piece")]

#[allow(dead_code, unused_imports, reason = "the integration tests' harness, of which these use a part")]
#[path = "../it/harness/mod.rs"]
mod harness;

mod agree;
mod dashboard;
mod helm;
mod helm_traps;
mod image;
mod kubernetes;
mod manifests;
mod names;
mod needs_prometheus {
    mod outage;
}
mod prometheus;
mod rollout;
mod rules;
mod runbook;
mod scene;
mod tools;
