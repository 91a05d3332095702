//! What operators are given, checked with the tools that they use: promtool, a real Prometheus, kubectl, a schema validator,
//! hadolint, systemd-analyze. `.ci/tools` brings them; what is missing is skipped loudly, or fails with `DEPLOY_TOOLS=required`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic where it stands")]

mod dashboard;
mod image;
mod kubernetes;
mod names;
mod rules;
mod runbook;
mod tools;
