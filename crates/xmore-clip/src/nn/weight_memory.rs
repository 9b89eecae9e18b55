//! Memory for packed weights: regions of huge pages that weights share, one after the other.
//!
//! A mapping for each weight begins anywhere, so that the parts before its first and after its last boundary of a huge page lie on pages of
//! 4 KiB: a third of ViT-B/16's weights, nearly all of each 768 × 768. Prefetches of those wait for the address cache.

use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytemuck::Pod;
use memmap2::{MmapMut, MmapRaw};

use super::aligned_buffer::{AlignedBuffer, LINE_BYTES};

/// Bytes of a huge page on x86-64 and AArch64.
const HUGE_PAGE: usize = 2 << 20;

/// Bytes of a region; larger weights get one of their own. Only what is written takes memory.
const REGION: usize = 64 << 20;

/// Whole blocks of so many bytes are given back when a weight is dropped before its region; a multiple of every page size.
#[cfg(target_os = "linux")]
const FREED: usize = 64 << 10;

/// Smaller weights, in bytes, lie in the heap, as all do where no memory can be mapped.
const MIN_IN_REGION: usize = 64 << 10;

static REGIONS: Mutex<Regions> = Mutex::new(Regions { open: Weak::new(), used: 0 });

/// Where the next weight goes.
struct Regions {
    /// Given back with its last weight.
    open: Weak<Region>,
    /// Bytes of it that weights have.
    used: usize,
}

/// A mapping of zeros. Each byte from `start` on is in at most one [`Part`], ever.
struct Region {
    map: MmapRaw,
    /// The first huge page's offset.
    start: usize,
}

/// A weight's values, which begin at a cache line.
pub(super) struct WeightMemory<T> {
    place: Place<T>,
    len: usize,
}

enum Place<T> {
    Region(Part, PhantomData<T>),
    Heap(AlignedBuffer<T>),
}

/// Bytes of a region that one weight has.
struct Part {
    region: Arc<Region>,
    /// From the mapping's begin.
    offset: usize,
    bytes: usize,
}

impl Part {
    fn pointer(&self) -> *mut u8 {
        self.region.map.as_mut_ptr().wrapping_add(self.offset)
    }
}

impl Drop for Part {
    /// Gives the memory back, which other weights may hold the region of.
    fn drop(&mut self) {
        #[cfg(target_os = "linux")]
        {
            let begin = self.offset - self.region.start;
            let (from, to) = (begin.next_multiple_of(FREED), (begin + self.bytes) / FREED * FREED);
            if from < to {
                let advice = memmap2::UncheckedAdvice::DontNeed;
                // SAFETY: nothing refers to this weight's bytes any more, and no other weight gets them.
                #[allow(unsafe_code)]
                let _ = unsafe {
                    self.region.map.unchecked_advise_range(advice, self.region.start + from, to - from)
                };
            }
        }
    }
}

impl Region {
    /// At least so many bytes in whole huge pages; `None` where the system gives none.
    fn new(bytes: usize) -> Option<Self> {
        let len = bytes.checked_next_multiple_of(HUGE_PAGE)?.checked_add(HUGE_PAGE)?;
        let map = MmapRaw::from(MmapMut::map_anon(len).ok()?);
        // Optional: without huge pages everything works, a little slower.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        let start = map.as_ptr().align_offset(HUGE_PAGE);
        (start < HUGE_PAGE).then_some(Self { map, start })
    }

    /// Bytes from the first huge page on.
    fn len(&self) -> usize {
        self.map.len() - HUGE_PAGE
    }
}

impl Regions {
    /// So many bytes that nothing else has or had.
    fn place(&mut self, bytes: usize) -> Option<Part> {
        let open = self.open.upgrade().filter(|region| region.len() - self.used >= bytes);
        let region = match open {
            Some(region) => region,
            None => {
                let region = Arc::new(Region::new(bytes.max(REGION))?);
                *self = Self { open: Arc::downgrade(&region), used: 0 };
                region
            }
        };
        let offset = region.start + self.used;
        self.used = (self.used + bytes).next_multiple_of(LINE_BYTES).min(region.len());
        Some(Part { region, offset, bytes })
    }
}

impl<T: Pod> WeightMemory<T> {
    /// `len` zeros.
    pub(super) fn zeroed(len: usize) -> Self {
        assert!(LINE_BYTES.is_multiple_of(size_of::<T>()), "values of {} bytes", size_of::<T>());
        let bytes = len.checked_mul(size_of::<T>()).expect("a weight's bytes fit the address space");
        let part = (bytes >= MIN_IN_REGION)
            .then(|| REGIONS.lock().unwrap_or_else(PoisonError::into_inner).place(bytes))
            .flatten();
        let place = match part {
            Some(part) => Place::Region(part, PhantomData),
            None => Place::Heap(AlignedBuffer::zeroed(len)),
        };
        Self { place, len }
    }

    pub(super) fn as_slice(&self) -> &[T] {
        match &self.place {
            // SAFETY: `Regions::place` gave these bytes of the mapping to this weight alone, at a multiple of a cache line; they are zeros or values of `T`, any bits of
            // which are one, and stay mapped while the region is held.
            #[allow(unsafe_code)]
            Place::Region(part, _) => unsafe { std::slice::from_raw_parts(part.pointer().cast(), self.len) },
            Place::Heap(buffer) => &buffer.as_slice()[..self.len],
        }
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [T] {
        match &mut self.place {
            // SAFETY: as in `as_slice`; the weight is borrowed as mutable, and no other has these bytes.
            #[allow(unsafe_code)]
            Place::Region(part, _) => unsafe {
                std::slice::from_raw_parts_mut(part.pointer().cast(), self.len)
            },
            Place::Heap(buffer) => &mut buffer.as_mut_slice()[..self.len],
        }
    }
}

#[cfg(test)]
mod tests {
    use rayon::prelude::*;

    use super::*;

    #[test]
    fn weights_are_zeros_at_cache_lines_and_share_no_byte() {
        // In the heap, in a region, next to the end of one, and larger than one.
        let lengths = [0, 1, 1000, 16384, 20001, 4 << 20, 9 << 20, 14 << 20, 300_000, 17 << 20, 50_000];
        let mut all: Vec<WeightMemory<u32>> =
            lengths.par_iter().map(|&len| WeightMemory::zeroed(len)).collect();
        for (n, (memory, len)) in all.iter_mut().zip(lengths).enumerate() {
            assert!(
                memory.as_slice().len() == len && memory.as_slice().as_ptr().align_offset(LINE_BYTES) == 0
            );
            assert!(memory.as_slice().iter().all(|&v| v == 0), "{len} values");
            memory.as_mut_slice().fill(n as u32 + 1);
        }
        for (n, memory) in all.iter().enumerate() {
            assert!(memory.as_slice().iter().all(|&v| v == n as u32 + 1));
        }
    }

    #[test]
    fn weights_share_a_region_until_it_is_full_and_the_last_one_gives_it_back() {
        let mut regions = Regions { open: Weak::new(), used: 0 };
        let mut place = |bytes| regions.place(bytes).expect("memory");
        let first = place(REGION - HUGE_PAGE + 1);
        assert_eq!(first.region.map.as_ptr().align_offset(HUGE_PAGE), first.offset);
        let second = place(HUGE_PAGE / 2);
        assert!(Arc::ptr_eq(&first.region, &second.region));
        assert_eq!(second.offset, first.offset + REGION - HUGE_PAGE + LINE_BYTES);
        let third = place(HUGE_PAGE);
        assert!(!Arc::ptr_eq(&second.region, &third.region));
        let large = place(REGION + 1);
        assert_eq!(large.region.len(), REGION + HUGE_PAGE);
        let held = Arc::downgrade(&first.region);
        drop(first);
        assert!(held.upgrade().is_some());
        drop((second, third, large));
        assert!(held.upgrade().is_none());
        assert!(regions.open.upgrade().is_none());
        assert!(regions.place(usize::MAX - 5).is_none());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_dropped_weight_gives_its_pages_back_and_leaves_its_neighbors() {
        let mut regions = Regions { open: Weak::new(), used: 0 };
        let sizes = [LINE_BYTES, 10 * FREED, 3 * FREED];
        let [first, second, third] = sizes.map(|bytes| regions.place(bytes).expect("memory"));
        let region = Arc::clone(&first.region);
        let bytes = |part: &Part| (part.offset, part.bytes);
        let places = [&first, &second, &third].map(bytes);
        let slice = |(offset, len): (usize, usize)| {
            // SAFETY: the region is held, and nothing writes to it meanwhile.
            #[allow(unsafe_code)]
            unsafe {
                std::slice::from_raw_parts(region.map.as_ptr().add(offset), len)
            }
        };
        for part in [&first, &second, &third] {
            // SAFETY: the part's bytes, which nothing else refers to.
            #[allow(unsafe_code)]
            unsafe {
                part.pointer().write_bytes(7, part.bytes);
            }
        }
        drop(second);
        let left = slice(places[1]).iter().filter(|&&byte| byte == 7).count();
        assert_eq!(left, FREED, "the parts of blocks that it shares with its neighbors");
        assert!([places[0], places[2]].map(slice).concat().iter().all(|&byte| byte == 7));
        drop((first, third));
    }
}
