//! The queue of what waits for the next batch.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Waiting items, taken many at a time.
///
/// It does not bound itself: the caller that puts something in holds a permit for it ([`super::Batcher::slots`]).
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    items: VecDeque<T>,
    closed: bool,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        Self { state: Mutex::new(State { items: VecDeque::new(), closed: false }), changed: Condvar::new() }
    }

    /// Puts items at the end; a closed queue drops them.
    pub(super) fn push(&self, items: impl IntoIterator<Item = T>) {
        let mut state = self.lock();
        if !state.closed {
            state.items.extend(items);
            self.changed.notify_one();
        }
    }

    /// Waits for an item, then takes all that there are, `most` at most. It waits for the first only: what is queued while a batch runs is in
    /// the next, so that batches grow with the load. `None` once the queue is closed and empty.
    pub(super) fn take(&self, most: usize) -> Option<Vec<T>> {
        let mut state = self.lock();
        while state.items.is_empty() {
            if state.closed {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let count = state.items.len().min(most);
        Some(state.items.drain(..count).collect())
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.lock().items.len()
    }

    /// Lets [`Queue::take`] end when nothing is left.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_taken_in_order_until_the_end() {
        let queue = Queue::new();
        queue.push([1, 2, 3]);
        queue.push([4]);
        assert_eq!(queue.len(), 4);
        assert_eq!(queue.take(3), Some(vec![1, 2, 3]));
        queue.close();
        queue.push([5]);
        assert_eq!(queue.take(3), Some(vec![4]), "what was in before is still answered");
        assert_eq!(queue.take(3), None);
    }

    #[test]
    fn taking_waits_for_the_first() {
        let queue = Queue::new();
        std::thread::scope(|scope| {
            let taker = scope.spawn(|| queue.take(8));
            std::thread::sleep(std::time::Duration::from_millis(20));
            queue.push([7]);
            assert_eq!(taker.join().unwrap(), Some(vec![7]));
        });
    }
}
