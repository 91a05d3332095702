//! What operators are given, checked with the tools that they use: promtool, a real Prometheus, kubectl, a schema validator,
//! hadolint, systemd-analyze. `.ci/tools` brings them; what is missing is skipped loudly, or fails with `DEPLOY_TOOLS=required`.

#![allow(unreachable_pub, reason = "the modules of a test are no interface")]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "in a test a panic is the verdict, and stderr its report")]
#![allow(clippy::too_many_lines, reason = "a scenario reads best in one piece")]

#[allow(dead_code, unused_imports, reason = "the integration tests' harness, of which these use a part")]
#[path = "../it/harness/mod.rs"]
mod harness;

mod agree;
mod dashboard;
mod image;
mod kubernetes;
mod names;
mod outage;
mod prometheus;
mod rollout;
mod rules;
mod runbook;
mod scene;
mod tools;
