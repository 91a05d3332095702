//! Short looks at what several share.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A lock's content, whatever became of who held it before.
pub(crate) fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}
