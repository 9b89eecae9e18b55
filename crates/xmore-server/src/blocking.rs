//! Work that may block its thread for longer than its caller waits, such as reads from a network disk that does not answer: a bounded number
//! at a time, so that it never takes all threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicIsize, Ordering};
use std::time::Instant;

use tokio::sync::Semaphore;

use crate::api_error::ApiError;

/// Threads for one kind of work.
pub(crate) struct BlockingPool {
    places: Arc<Semaphore>,
    count: usize,
    /// Places whose work is not done by its deadline.
    overdue: Arc<AtomicIsize>,
}

impl BlockingPool {
    pub(crate) fn new(places: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(places)), count: places, overdue: Arc::default() }
    }

    /// Does work in a thread of its own. After the deadline it continues without a receiver and keeps its place until it is done.
    ///
    /// # Errors
    /// [`crate::api_error::ErrorCode::Timeout`] where it is not done by the deadline; at once where all places are taken by work that is
    /// overdue. [`crate::api_error::ErrorCode::Internal`] where it panicked.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        deadline: Instant,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        if self.overdue.load(Ordering::SeqCst) >= self.count as isize {
            return Err(ApiError::timeout());
        }
        let place = tokio::time::timeout_at(deadline.into(), self.places.clone().acquire_owned()).await;
        let place = place.map_err(|_| ApiError::timeout())?.map_err(|error| ApiError::internal(&error))?;
        let ended = Ended { first: Arc::default(), overdue: self.overdue.clone() };
        let (first, overdue) = (ended.first.clone(), &self.overdue);
        let work = tokio::task::spawn_blocking(move || {
            let (_place, _ended) = (place, ended);
            work()
        });
        match tokio::time::timeout_at(deadline.into(), work).await {
            Ok(done) => done.map_err(|error| ApiError::internal(&error)),
            Err(_) => {
                if !first.swap(true, Ordering::SeqCst) {
                    overdue.fetch_add(1, Ordering::SeqCst);
                }
                Err(ApiError::timeout())
            }
        }
    }
}

/// Says that work has ended, when it is dropped.
struct Ended {
    /// Set by the first of the work's end and its deadline.
    first: Arc<AtomicBool>,
    overdue: Arc<AtomicIsize>,
}

impl Drop for Ended {
    fn drop(&mut self) {
        if self.first.swap(true, Ordering::SeqCst) {
            self.overdue.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};
    use std::time::Duration;

    use super::*;
    use crate::api_error::ErrorCode;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(30)
    }

    fn late() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    /// Work that continues until its sender is dropped.
    async fn stuck(pool: &BlockingPool) -> Sender<()> {
        let (sender, receiver) = channel();
        let refused = pool.run(soon(), move || receiver.recv().is_err()).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::Timeout);
        sender
    }

    #[tokio::test]
    async fn work_that_is_stuck_keeps_its_place_and_no_other() {
        let pool = BlockingPool::new(2);
        assert_eq!(pool.run(late(), || 1).await.unwrap(), 1);
        let first = stuck(&pool).await;
        assert_eq!(pool.run(late(), || 2).await.unwrap(), 2, "one place is left");
        let second = stuck(&pool).await;
        let begin = Instant::now();
        let refused = pool.run(late(), || 3).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::Timeout);
        assert!(begin.elapsed() < Duration::from_secs(30), "stuck work is not waited for");
        drop(first);
        while pool.places.available_permits() == 0 || pool.overdue.load(Ordering::SeqCst) > 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(pool.run(late(), || 4).await.unwrap(), 4);
        drop(second);
    }

    #[tokio::test]
    async fn a_panic_releases_its_place() {
        let pool = BlockingPool::new(1);
        let refused = pool.run(late(), || panic!("a test")).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::Internal);
        assert_eq!(pool.run(late(), || 1).await.unwrap(), 1);
    }
}
