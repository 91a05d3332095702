//! TCP ports that nobody else uses, for as long as they are held.
//!
//! A port got by "bind 0 and close" can be given to someone else before its server binds it: the kernel draws outgoing
//! connections from the same range. So these come from below that range, each held by a lock file: a server may stop and
//! start again, and neither another test nor another connection takes its place.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};

use rustix::fs::{FlockOperation, flock};

use super::scratch::{base, make_dir};

/// Below Linux's ephemeral range (32768 and up).
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// A reserved port; free again when dropped.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    /// Reserves one on the loopback interface.
    pub fn reserve() -> Port {
        let locks = base().join("ports");
        make_dir(&locks);
        for _ in 0..1_000 {
            let number = fastrand::u16(RANGE);
            let lock = File::create(locks.join(number.to_string())).unwrap();
            let ours = flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok();
            if ours && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Port { number, _lock: lock };
            }
        }
        panic!("no free port in {RANGE:?}");
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }
}
