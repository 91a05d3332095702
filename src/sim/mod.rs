//! The Planhat stand-in: PLANHAT.md's contract over a real socket, with faults on request.
//!
//! * In: HTTP requests, and faults queued or drawn from a seed.
//! * Out: what Planhat would answer; and, on routes of its own, what it received.
//! * Never: a request to anywhere.
