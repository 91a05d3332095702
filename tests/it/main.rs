//! The integration tests: real PostgreSQL servers, the real binary, and faults between them.
//!
//! One binary, so that the harness is compiled once. Each test makes what it needs and shares nothing but the cached
//! server binaries and the `initdb` templates; they may run in any order, side by side, in one process or in many.

#![allow(unreachable_pub, reason = "the modules of a test are no interface")]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "in a test a panic is the verdict, and stderr its report")]
#![allow(clippy::too_many_lines, reason = "a scenario reads best in one piece")]

#[allow(dead_code, reason = "the harness is a library: a subset of the tests does not use all of it")]
mod harness;

mod attaching;
mod audit_trials;
mod cli_basics;
mod cli_check;
mod cli_check_more;
mod cli_discover;
mod cli_json;
mod cli_ops_again;
mod cli_ops_look;
mod cli_ops_mend;
mod cli_query;
mod cli_repair;
mod cli_setup;
mod cli_snapshots;
mod copied_database;
mod crash;
mod delivery_scene;
mod demo;
mod diff;
mod diff_bounds;
mod diff_shapes;
mod encodings;
mod faults_answers;
mod faults_mapping;
mod faults_planhat;
mod faults_process;
mod faults_server;
mod faults_signals;
mod faults_slot;
mod faults_stream;
mod faults_stream_scene;
mod faults_stream_wire;
mod faults_truth;
mod first_steps;
mod gaps_resync;
mod generated_beside_updates;
mod harness_works;
mod healthy_histories;
mod in_flight;
mod keys;
mod keys_lost;
mod keys_out_of_line;
mod least_role;
mod locked_catalog;
mod main_job;
mod main_job_backfill;
mod main_job_flush;
mod main_job_oracle;
mod main_job_schema;
mod main_job_values;
mod memory;
mod memory_table;
mod older_rows;
mod partition_histories;
mod plans;
mod planted_losses;
mod proof;
mod proof_bounds;
mod put_back;
mod random;
mod recovery_doubt;
mod recovery_locks;
mod recovery_publication;
mod recovery_upgrade;
mod reload;
mod reported_elsewhere;
mod retry_versions;
mod rules_changed;
mod section_names;
mod shapes_guesses;
mod shapes_trials;
mod shapes_updates;
mod shapes_where;
mod table_changes;
mod tls_libpq;
mod tls_scene;
mod tls_server;
mod told_again;
mod unreadable_rows;
mod updates_taken_up;
mod versions_differences;
mod versions_main_job;
mod versions_position;
mod walk_quickstart;
mod walk_scene;
