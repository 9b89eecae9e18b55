//! Memory for packed weights: regions of huge pages that weights share, one after the other.
//!
//! A mapping for each weight begins anywhere, so that the parts before its first and after its last boundary of a huge page lie on pages of
//! 4 KiB: a third of ViT-B/16's weights, nearly all of each 768 × 768. Prefetches of those wait for the address cache.

use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytemuck::Pod;
use memmap2::{MmapMut, MmapRaw};

use super::aligned_buffer::{AlignedBuffer, LINE};

/// Bytes of a huge page on x86-64 and AArch64.
const HUGE_PAGE: usize = 2 << 20;

/// Bytes of a region; larger weights get one of their own. Only what is written takes memory.
const REGION: usize = 64 << 20;

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

/// A mapping of zeros. Each byte from `start` on belongs to at most one [`WeightMemory`].
struct Region {
    map: MmapRaw,
    /// The first huge page's offset.
    start: usize,
}

/// A weight's values, which begin at a cache line.
pub(super) struct WeightMemory<T>(Place<T>);

enum Place<T> {
    Region {
        region: Arc<Region>,
        /// From the mapping's begin, in bytes.
        offset: usize,
        len: usize,
        values: PhantomData<T>,
    },
    Heap(AlignedBuffer<T>),
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
    /// A region with so many bytes that nothing else has, and their offset.
    fn place(&mut self, bytes: usize) -> Option<(Arc<Region>, usize)> {
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
        self.used = (self.used + bytes).next_multiple_of(LINE).min(region.len());
        Some((region, offset))
    }
}

impl<T: Pod> WeightMemory<T> {
    /// `len` zeros or a few more.
    pub(super) fn zeroed(len: usize) -> Self {
        assert!(LINE.is_multiple_of(size_of::<T>()), "values of {} bytes", size_of::<T>());
        let bytes = len.checked_mul(size_of::<T>()).expect("a weight's bytes fit the address space");
        if bytes >= MIN_IN_REGION
            && let Some((region, offset)) =
                REGIONS.lock().unwrap_or_else(PoisonError::into_inner).place(bytes)
        {
            return Self(Place::Region { region, offset, len, values: PhantomData });
        }
        Self(Place::Heap(AlignedBuffer::zeroed(len)))
    }

    pub(super) fn as_slice(&self) -> &[T] {
        match &self.0 {
            // SAFETY: `Regions::place` gave these bytes of the mapping to this weight alone, at a multiple of a cache line; they are zeros or values of `T`, any bits of
            // which are one, and stay mapped while the region is held.
            #[allow(unsafe_code)]
            Place::Region { region, offset, len, .. } => unsafe {
                std::slice::from_raw_parts(region.map.as_ptr().add(*offset).cast(), *len)
            },
            Place::Heap(buffer) => buffer.as_slice(),
        }
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [T] {
        match &mut self.0 {
            // SAFETY: as in `as_slice`; the weight is borrowed as mutable, and no other has these bytes.
            #[allow(unsafe_code)]
            Place::Region { region, offset, len, .. } => unsafe {
                std::slice::from_raw_parts_mut(region.map.as_mut_ptr().add(*offset).cast(), *len)
            },
            Place::Heap(buffer) => buffer.as_mut_slice(),
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
            assert!(memory.as_slice().len() >= len && memory.as_slice().as_ptr().align_offset(LINE) == 0);
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
        let (first, begin) = regions.place(REGION - HUGE_PAGE + 1).expect("memory");
        assert_eq!(first.map.as_ptr().align_offset(HUGE_PAGE), begin);
        let (second, offset) = regions.place(HUGE_PAGE / 2).expect("memory");
        assert!(Arc::ptr_eq(&first, &second));
        assert_eq!(offset, begin + REGION - HUGE_PAGE + LINE);
        let (third, _) = regions.place(HUGE_PAGE).expect("memory");
        assert!(!Arc::ptr_eq(&second, &third));
        let (large, _) = regions.place(REGION + 1).expect("memory");
        assert_eq!(large.len(), REGION + HUGE_PAGE);
        let held = [first, second].map(|region| Arc::downgrade(&region));
        assert!(held.iter().all(|region| region.upgrade().is_none()));
        drop((third, large));
        assert!(regions.open.upgrade().is_none());
        assert!(regions.place(usize::MAX - 5).is_none());
    }
}
