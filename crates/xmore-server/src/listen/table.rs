//! The open connections: how many there are from where, and which one makes room for a new one.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::activity::{Activity, Spare};

/// Connections without a request, the newest of an address, that are not closed before their request can have come.
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

    /// A place for a connection from an address. Where there is none, the connection that can be spared best is told to leave, of the
    /// same address where that has as many as it may, else of the address with the most. `None` if none can be spared.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let mut open = self.lock();
        if open.of(address) >= self.most_per_address {
            open.spare(Some(address))?.tell_to_leave();
        } else if open.connections.len() >= self.most {
            open.spare(None)?.tell_to_leave();
        }
        let (id, activity) = (open.next, Arc::new(Activity::new()));
        open.next += 1;
        open.connections.insert(id, (address, activity.clone()));
        *open.per_address.entry(address).or_default() += 1;
        Some(Place { table: self.clone(), id, activity })
    }

    /// Tells the connection that can be spared best to leave.
    pub(super) fn make_room(&self) {
        if let Some(activity) = self.lock().spare(None) {
            activity.tell_to_leave();
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

    /// The connection that can be spared best, of one address or of all.
    fn spare(&self, of: Option<IpAddr>) -> Option<Arc<Activity>> {
        let now = Instant::now();
        let candidates = self.connections.values().filter(|(address, _)| of.is_none_or(|of| of == *address));
        let ranked = candidates.filter_map(|(address, activity)| {
            let spare = activity.spare(now)?;
            Some(((std::cmp::Reverse(self.of(*address)), spare), activity))
        });
        let mut ranked: Vec<_> = ranked.collect();
        let fresh = ranked.iter().filter(|((_, spare), _)| matches!(spare, Spare::Fresh(_))).count();
        if fresh <= FRESH {
            ranked.retain(|((_, spare), _)| !matches!(spare, Spare::Fresh(_)));
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

    fn is_told(place: &Place) -> bool {
        place.activity.spare(Instant::now()).is_none()
    }

    fn wait() {
        std::thread::sleep(Duration::from_millis(60));
    }

    #[test]
    fn the_oldest_idle_connection_of_an_address_makes_room_for_its_next() {
        let table = Arc::new(Table::new(10, 2));
        let other = table.take(address(1)).unwrap();
        let (first, second) = (table.take(address(2)).unwrap(), table.take(address(2)).unwrap());
        first.activity.begin(Some(0));
        assert!(table.take(address(2)).is_none(), "a request may be on its way");
        wait();
        let third = table.take(address(2)).unwrap();
        assert_eq!([&other, &second, &third].map(is_told), [false, true, false]);
        assert_eq!(table.len(), 4, "until it has left");
        third.activity.begin(Some(0));
        drop(second);
        assert!(table.take(address(2)).is_none(), "none of them can be spared");
        drop(third);
        assert!(table.take(address(2)).is_some());
    }

    #[test]
    fn where_all_are_taken_the_address_with_the_most_makes_room() {
        let table = Arc::new(Table::new(4, 3));
        let old = table.take(address(1)).unwrap();
        let many: Vec<Place> = (0..3).map(|_| table.take(address(2)).unwrap()).collect();
        wait();
        let new = table.take(address(3)).unwrap();
        assert_eq!([&old, &many[0], &many[1], &new].map(is_told), [false, true, false, false]);
        table.make_room();
        assert!(is_told(&many[1]));
    }

    #[test]
    fn of_many_that_have_just_come_the_oldest_makes_room() {
        let table = Arc::new(Table::new(100, 40));
        let many: Vec<Place> = (0..50).map(|_| table.take(address(1)).unwrap()).collect();
        assert_eq!(many.iter().take_while(|place| is_told(place)).count(), 10);
        assert!(!many[10..].iter().any(is_told));
    }
}
