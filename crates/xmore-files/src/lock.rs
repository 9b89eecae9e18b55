//! Locks of files between processes.

use std::fs::{File, TryLockError};
use std::time::{Duration, Instant};

/// How long a lock that another holds is tried again: a process that is being started has its parent's locks for a moment.
const WAIT: Duration = Duration::from_secs(1);

/// Locks a file for this process alone.
///
/// # Errors
/// [`TryLockError::WouldBlock`] if another process holds it for longer than a second; what the operating system says.
pub fn lock_file(file: &File) -> Result<(), TryLockError> {
    let start = Instant::now();
    loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if start.elapsed() < WAIT => {
                std::thread::sleep(Duration::from_millis(10));
            }
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_waited_for_a_moment() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let (first, second) = (File::create(&path).unwrap(), File::create(&path).unwrap());
        lock_file(&first).unwrap();
        assert!(matches!(lock_file(&second), Err(TryLockError::WouldBlock)));
        std::thread::scope(|scope| {
            scope.spawn(move || {
                std::thread::sleep(Duration::from_millis(50));
                drop(first);
            });
            lock_file(&second).unwrap();
        });
    }
}
