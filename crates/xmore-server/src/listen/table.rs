//! The open connections: how many there are from each address, and which one is evicted for a new one.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::activity::{Activity, Evictable};

/// Fresh connections that are never evicted: their requests may not have arrived yet.
const FRESH: usize = 16;

pub(super) struct Table {
    most: usize,
    most_per_address: usize,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    next: u64,
    connections: HashMap<u64, (IpAddr, Arc<Activity>)>,
    per_address: HashMap<IpAddr, usize>,
}

/// A connection's place in the table, until it is dropped.
pub(super) struct Place {
    table: Arc<Table>,
    id: u64,
    pub(super) activity: Arc<Activity>,
}

impl Table {
    /// A table of at most so many connections, and so many from one address.
    pub(super) fn new(most: usize, most_per_address: usize) -> Self {
        Self { most, most_per_address, open: Mutex::default() }
    }

    /// A place for a connection from an address. Where there is none, another connection is evicted: of the same address where that has as
    /// many as it may, else of the address with the most. `None` if none is evictable.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let mut open = self.lock();
        if open.of(address) >= self.most_per_address {
            open.first_evictable(Some(address))?.request_close();
        } else if open.connections.len() >= self.most {
            open.first_evictable(None)?.request_close();
        }
        let (id, activity) = (open.next, Arc::new(Activity::new()));
        open.next += 1;
        open.connections.insert(id, (address, activity.clone()));
        *open.per_address.entry(address).or_default() += 1;
        Some(Place { table: self.clone(), id, activity })
    }

    /// Evicts one connection, if any is evictable.
    pub(super) fn evict_one(&self) {
        if let Some(activity) = self.lock().first_evictable(None) {
            activity.request_close();
        }
    }

    /// How many connections there are.
    pub(super) fn len(&self) -> usize {
        self.lock().connections.len()
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn of(&self, address: IpAddr) -> usize {
        self.per_address.get(&address).copied().unwrap_or_default()
    }

    /// The connection that is evicted first, of one address or of all.
    fn first_evictable(&self, of: Option<IpAddr>) -> Option<Arc<Activity>> {
        let now = Instant::now();
        let candidates = self.connections.values().filter(|(address, _)| of.is_none_or(|of| of == *address));
        let ranked = candidates.filter_map(|(address, activity)| {
            let why = activity.evictable(now)?;
            Some(((std::cmp::Reverse(self.of(*address)), why), activity))
        });
        let mut ranked: Vec<_> = ranked.collect();
        let fresh = ranked.iter().filter(|((_, why), _)| matches!(why, Evictable::Fresh(_))).count();
        if fresh <= FRESH {
            ranked.retain(|((_, why), _)| !matches!(why, Evictable::Fresh(_)));
        }
        ranked.into_iter().min_by_key(|(rank, _)| *rank).map(|(_, activity)| activity.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.table.lock();
        if let Some((address, _)) = open.connections.remove(&self.id)
            && let Some(count) = open.per_address.get_mut(&address)
        {
            *count -= 1;
            if *count == 0 {
                open.per_address.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([127, 0, 0, last])
    }

    fn is_evicted(place: &Place) -> bool {
        place.activity.evictable(Instant::now()).is_none()
    }

    fn wait() {
        std::thread::sleep(Duration::from_millis(60));
    }

    #[test]
    fn the_oldest_idle_connection_of_an_address_is_evicted_for_its_next() {
        let table = Arc::new(Table::new(10, 2));
        let other = table.admit(address(1)).unwrap();
        let (first, second) = (table.admit(address(2)).unwrap(), table.admit(address(2)).unwrap());
        first.activity.begin(Some(0));
        assert!(table.admit(address(2)).is_none(), "their requests may be about to arrive");
        wait();
        let third = table.admit(address(2)).unwrap();
        assert_eq!([&other, &second, &third].map(is_evicted), [false, true, false]);
        assert_eq!(table.len(), 4, "until it is closed");
        third.activity.begin(Some(0));
        drop(second);
        assert!(table.admit(address(2)).is_none(), "none of them is evictable");
        drop(third);
        assert!(table.admit(address(2)).is_some());
    }

    #[test]
    fn where_the_table_is_full_the_address_with_the_most_loses_one() {
        let table = Arc::new(Table::new(4, 3));
        let old = table.admit(address(1)).unwrap();
        let many: Vec<Place> = (0..3).map(|_| table.admit(address(2)).unwrap()).collect();
        wait();
        let new = table.admit(address(3)).unwrap();
        assert_eq!([&old, &many[0], &many[1], &new].map(is_evicted), [false, true, false, false]);
        table.evict_one();
        assert!(is_evicted(&many[1]));
    }

    #[test]
    fn of_many_fresh_connections_the_oldest_is_evicted() {
        let table = Arc::new(Table::new(100, 40));
        let many: Vec<Place> = (0..50).map(|_| table.admit(address(1)).unwrap()).collect();
        assert_eq!(many.iter().take_while(|place| is_evicted(place)).count(), 10);
        assert!(!many[10..].iter().any(is_evicted));
    }
}
