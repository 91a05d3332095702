//! The console in a real browser, and over plain sockets: a throwaway PostgreSQL, the Planhat stand-in, the program with a
//! console, and node with Chromium in front of it.
//!
//! Each browser test is a `*.test.mjs` beside this file. It finds the world by its environment: `CONSOLE_URL`, the two
//! tokens, and `CONTROL`, a port by which it inserts rows, makes faults, and kills the program. `.ci/tools`
//! brings Chromium and the packages; where they cannot be had, these tests (`needs_chromium`) are left out aloud.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "in a test a panic is the verdict, and stderr its report")]
#![allow(unreachable_pub, unused_imports, reason = "the harness is shared, and `pub` is its interface")]
#![allow(clippy::too_many_lines, reason = "a scenario reads best in one piece")]

#[allow(dead_code, reason = "the harness is a library: a subset of the tests does not use all of it")]
#[path = "../it/harness/mod.rs"]
mod harness;

mod asks;
mod attacks;
mod browser;
mod control;
mod quiet;
mod security;
mod strain;
mod trials;
mod world;
