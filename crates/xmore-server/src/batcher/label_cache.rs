//! A cache of label sets, within a number of bytes that its users share: many new sets do not evict those in use.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use lru::LruCache;

/// A value that was asked for again within this time is in use and not evicted.
const IN_USE: Duration = Duration::from_secs(60);

/// Values of a number of bytes, by key, and who used them last.
pub(super) struct SharedCache<K: Hash + Eq, C, V> {
    most_bytes: usize,
    bytes: usize,
    /// Bytes of each user's.
    per_user: HashMap<C, usize>,
    /// The most recently used first.
    entries: LruCache<K, Entry<C, V>>,
}

struct Entry<C, V> {
    value: V,
    bytes: usize,
    /// Who asked for it last.
    user: C,
    used: Instant,
    /// Whether it was asked for again since it was made.
    again: bool,
}

impl<K: Clone + Hash + Eq, C: Copy + Eq + Hash, V> SharedCache<K, C, V> {
    pub(super) fn new(most_bytes: usize) -> Self {
        Self { most_bytes, bytes: 0, per_user: HashMap::new(), entries: LruCache::unbounded() }
    }

    /// A value, used now.
    pub(super) fn get(&mut self, key: &K, user: C, now: Instant) -> Option<&V> {
        let entry = self.entries.get_mut(key)?;
        let before = std::mem::replace(&mut entry.user, user);
        (entry.used, entry.again) = (now, true);
        let bytes = entry.bytes;
        self.uncount(before, bytes);
        *self.per_user.entry(user).or_default() += bytes;
        self.peek(key)
    }

    /// A value, without counting as a use of it.
    pub(super) fn peek(&self, key: &K) -> Option<&V> {
        self.entries.peek(key).map(|entry| &entry.value)
    }

    /// Keeps a value if it fits, evicting values that are not in use: first those of the user with the most bytes, of these the ones that were
    /// asked for only once, and of these the least recently used. `is_held` tells which are in use at this moment.
    pub(super) fn put(
        &mut self,
        key: K,
        value: V,
        bytes: usize,
        user: C,
        now: Instant,
        is_held: impl Fn(&V) -> bool,
    ) {
        self.remove(&key);
        self.bytes += bytes;
        *self.per_user.entry(user).or_default() += bytes;
        self.entries.push(key.clone(), Entry { value, bytes, user, used: now, again: false });
        while self.bytes > self.most_bytes {
            let in_use = |entry: &Entry<C, V>| {
                is_held(&entry.value) || entry.again && now.saturating_duration_since(entry.used) < IN_USE
            };
            let others = self.entries.iter().rev().filter(|(other, entry)| **other != key && !in_use(entry));
            // Of equals the first, which is the least recently used.
            let first = others.min_by_key(|(_, entry)| {
                (std::cmp::Reverse(self.bytes_of(entry.user)), entry.user != user, entry.again)
            });
            match first.map(|(other, _)| other.clone()) {
                Some(other) => self.remove(&other),
                // It does not fit, so it is not kept; a value that is alone always is.
                None if self.entries.len() > 1 => return self.remove(&key),
                None => return,
            }
        }
    }

    /// Removes the values of some keys.
    pub(super) fn remove_if(&mut self, is_removed: impl Fn(&K) -> bool) {
        let removed: Vec<K> =
            self.entries.iter().map(|(key, _)| key).filter(|key| is_removed(key)).cloned().collect();
        removed.iter().for_each(|key| self.remove(key));
    }

    /// The keys, most recently used first.
    pub(super) fn keys(&self) -> impl Iterator<Item = &K> {
        self.entries.iter().map(|(key, _)| key)
    }

    fn remove(&mut self, key: &K) {
        if let Some(entry) = self.entries.pop(key) {
            self.bytes -= entry.bytes;
            self.uncount(entry.user, entry.bytes);
        }
    }

    fn bytes_of(&self, user: C) -> usize {
        self.per_user.get(&user).copied().unwrap_or_default()
    }

    fn uncount(&mut self, user: C, bytes: usize) {
        if let Some(all) = self.per_user.get_mut(&user) {
            *all -= bytes;
            if *all == 0 {
                self.per_user.remove(&user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Kept {
        cache: SharedCache<u32, char, u32>,
        now: Instant,
    }

    impl Kept {
        fn new(most_bytes: usize) -> Self {
            Self { cache: SharedCache::new(most_bytes), now: Instant::now() }
        }

        fn put(&mut self, user: char, key: u32, bytes: usize) {
            self.now += Duration::from_millis(1);
            self.cache.put(key, key, bytes, user, self.now, |value| *value >= 1000);
            assert!(self.cache.bytes <= self.cache.most_bytes || self.cache.entries.len() == 1);
            assert_eq!(self.cache.per_user.values().sum::<usize>(), self.cache.bytes);
        }

        fn get(&mut self, user: char, key: u32) -> bool {
            self.cache.get(&key, user, self.now).is_some()
        }

        fn keys(&self) -> Vec<u32> {
            let mut keys: Vec<u32> = self.cache.keys().copied().collect();
            keys.sort_unstable();
            keys
        }
    }

    #[test]
    fn what_is_in_use_is_not_evicted_by_many_new_values() {
        for other in ['a', 'b'] {
            let mut kept = Kept::new(100);
            kept.put('a', 1, 60);
            assert!(kept.get('a', 1));
            (10..50).for_each(|key| kept.put(other, key, 25));
            assert_eq!(kept.keys(), [1, 49]);
            kept.put(other, 50, 90);
            assert_eq!(kept.keys(), [1], "what does not fit is not kept");
        }
    }

    #[test]
    fn what_is_held_now_is_not_evicted() {
        let mut kept = Kept::new(100);
        kept.put('a', 1000, 60);
        (10..20).for_each(|key| kept.put('b', key, 30));
        assert_eq!(kept.keys(), [19, 1000]);
    }

    #[test]
    fn the_user_with_most_bytes_loses_the_least_recently_used_first() {
        let mut kept = Kept::new(100);
        kept.put('a', 1, 20);
        assert!(kept.get('a', 1));
        kept.now += 2 * IN_USE;
        (10..30).for_each(|key| kept.put('b', key, 20));
        assert_eq!(kept.keys(), [1, 26, 27, 28, 29], "b has more than a");
        assert!(kept.get('b', 26));
        kept.put('b', 30, 20);
        assert_eq!(kept.keys(), [1, 26, 28, 29, 30]);
        kept.now += 2 * IN_USE;
        (40..50).for_each(|key| kept.put('c', key, 20));
        assert!(kept.keys().contains(&1) && !kept.keys().contains(&28), "{:?}", kept.keys());
    }

    #[test]
    fn the_only_one_is_kept_whatever_its_size() {
        let mut kept = Kept::new(10);
        kept.put('a', 1, 20);
        assert!(kept.get('a', 1));
        kept.now += 2 * IN_USE;
        kept.put('a', 2, 30);
        assert_eq!(kept.keys(), [2]);
        kept.put('a', 2, 5);
        assert_eq!((kept.keys(), kept.cache.bytes), (vec![2], 5));
        kept.cache.remove_if(|key| *key == 2);
        assert_eq!((kept.keys(), kept.cache.bytes), (vec![], 0));
    }
}
