//! The integration tests: real PostgreSQL servers, the real binary, and faults between them.
//!
//! One binary, so that the harness is compiled once. Each test makes what it needs and shares nothing but the cached
//! server binaries and the `initdb` templates; they may run in any order, side by side, in one process or in many.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "in a test a panic is the verdict, and stderr its report")]

#[allow(dead_code, reason = "the harness is a library: a subset of the tests does not use all of it")]
mod harness;

mod faults_slot;
mod faults_stream;
mod faults_stream_scene;
mod faults_stream_wire;
mod harness_works;
