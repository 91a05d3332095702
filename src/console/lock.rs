//! Short access to values that several tasks share.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a value, although a thread that held the lock may have panicked.
pub(crate) fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}
