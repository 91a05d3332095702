//! What `make dist` makes, installed and run: the tarball, the Debian package, the image, the chart, the list of contents.
//!
//! `make test-dist` makes it and runs these. Without it (`needs_dist` in a name) they are left out, aloud, by `.ci/test`.

#![allow(unreachable_pub, reason = "the modules of a test are no interface")]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "in a test a panic is the verdict, and stderr its report")]
#![allow(clippy::too_many_lines, reason = "a walk reads best in one piece")]

#[allow(dead_code, unused_imports, reason = "the integration tests' harness, of which these use a part")]
#[path = "../it/harness/mod.rs"]
mod harness;

#[allow(dead_code, reason = "the documents' reader, of which these use a part")]
#[path = "../docs/markdown.rs"]
mod markdown;
#[allow(dead_code, reason = "the deployment tests' tools, of which these use a part")]
#[path = "../deploy/tools.rs"]
mod tools;
#[path = "../it/walk_scene.rs"]
mod walk_scene;

mod parts;
mod release;
mod walks;
