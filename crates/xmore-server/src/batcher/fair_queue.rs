//! A fair queue: each caller has a queue of its own, of bounded length, and they are served in turn (round robin).

use std::collections::VecDeque;

/// Items of callers, within bounds.
pub(super) struct FairQueue<C, T> {
    limits: QueueLimits,
    /// Callers with waiting items, the one served next at the front.
    turns: VecDeque<(C, VecDeque<(T, usize)>)>,
    items: usize,
    bytes: usize,
}

/// How much may wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueueLimits {
    /// Items of one caller.
    pub(super) per_caller: usize,
    /// Items of all callers.
    pub(super) items: usize,
    /// Bytes of all items.
    pub(super) bytes: usize,
}

impl<C: Copy + Eq, T> FairQueue<C, T> {
    pub(super) fn new(limits: QueueLimits) -> Self {
        Self { limits, turns: VecDeque::new(), items: 0, bytes: 0 }
    }

    /// Puts an item at the end of its caller's queue. Where all callers together have too many, the last items of callers with more than
    /// this one are displaced and returned.
    ///
    /// # Errors
    /// The item, where it does not fit.
    pub(super) fn push(&mut self, caller: C, item: T, bytes: usize) -> Result<Vec<T>, T> {
        let own = self.turns.iter().find(|(other, _)| *other == caller).map_or(0, |(_, items)| items.len());
        if own >= self.limits.per_caller || bytes > self.limits.bytes {
            return Err(item);
        }
        // How many items each of the others loses.
        let mut lost = vec![0; self.turns.len()];
        let (mut items, mut left) = (self.items, self.bytes);
        while items >= self.limits.items || left + bytes > self.limits.bytes {
            let waiting = self.turns.iter().zip(&lost).map(|((_, items), lost)| items.len() - lost);
            // Displacing from one with no more than this caller would have would only reverse their roles.
            match waiting.enumerate().max_by_key(|(_, waiting)| *waiting) {
                Some((most, waiting)) if waiting > own + 1 => {
                    left -= self.turns[most].1[waiting - 1].1;
                    items -= 1;
                    lost[most] += 1;
                }
                _ => return Err(item),
            }
        }
        let mut displaced = Vec::new();
        for ((_, items), lost) in self.turns.iter_mut().zip(lost) {
            displaced.extend(items.split_off(items.len() - lost).into_iter().map(|(item, _)| item));
        }
        (self.items, self.bytes) = (items, left);
        self.items += 1;
        self.bytes += bytes;
        match self.turns.iter_mut().find(|(other, _)| *other == caller) {
            Some((_, items)) => items.push_back((item, bytes)),
            None => self.turns.push_back((caller, VecDeque::from([(item, bytes)]))),
        }
        Ok(displaced)
    }

    /// The first item of the caller whose turn it is.
    pub(super) fn pop(&mut self) -> Option<T> {
        let (caller, mut items) = self.turns.pop_front()?;
        let (item, bytes) = items.pop_front()?;
        if !items.is_empty() {
            self.turns.push_back((caller, items));
        }
        self.items -= 1;
        self.bytes -= bytes;
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: QueueLimits = QueueLimits { per_caller: 4, items: 6, bytes: 100 };

    fn queue(waiting: &[(char, u32)]) -> FairQueue<char, u32> {
        let mut queue = FairQueue::new(LIMITS);
        for &(caller, item) in waiting {
            assert_eq!(queue.push(caller, item, 1), Ok(vec![]));
        }
        queue
    }

    fn all(mut queue: FairQueue<char, u32>) -> Vec<u32> {
        let all = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!((queue.items, queue.bytes), (0, 0));
        all
    }

    #[test]
    fn callers_are_served_in_turn() {
        let queue = queue(&[('a', 1), ('a', 2), ('a', 3), ('b', 4), ('a', 5), ('c', 6)]);
        assert_eq!(all(queue), [1, 4, 6, 2, 3, 5]);
    }

    #[test]
    fn one_caller_has_a_bound_and_others_still_get_in() {
        let mut queue = queue(&[('a', 1), ('a', 2), ('a', 3), ('a', 4), ('b', 5), ('b', 6)]);
        assert_eq!(queue.push('a', 7, 1), Err(7), "it has as many as it may");
        assert_eq!(queue.push('c', 8, 1), Ok(vec![4]), "of the caller with the most");
        assert_eq!(queue.push('c', 9, 1), Ok(vec![3]));
        assert_eq!(queue.push('c', 10, 1), Err(10), "nobody has more than c would have");
        assert_eq!(queue.push('d', 11, 1), Ok(vec![9]));
        assert_eq!(all(queue), [1, 5, 8, 11, 2, 6]);
    }

    #[test]
    fn bytes_are_bounded_and_what_is_refused_displaces_nothing() {
        let mut queue = FairQueue::new(LIMITS);
        assert_eq!(queue.push('a', 0, 101), Err(0));
        for item in 1..4 {
            assert_eq!(queue.push('a', item, 30), Ok(vec![]));
        }
        assert_eq!(queue.push('b', 4, 95), Err(4), "one of two would not be enough");
        assert_eq!(queue.push('b', 5, 40), Ok(vec![3]));
        assert_eq!(all(queue), [1, 5, 2]);
    }
}
