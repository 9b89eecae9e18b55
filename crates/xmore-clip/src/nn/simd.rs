//! The choice of an instruction set at run time, for the products that are written for each of them.

use std::sync::OnceLock;

/// Rows of the largest tile.
pub(super) const MAX_ROWS: usize = 14;
/// Columns of a panel of two vectors, at most.
pub(super) const MAX_WIDTH: usize = 32;
/// Vectors of the widest panel.
pub(super) const MAX_VECTORS: usize = 4;

/// Values of 4 bytes in a cache line.
pub(crate) const LINE: usize = 16;

/// Values of 4 bytes from the beginning of a row of `len` to the next, so that rows do not share the few sets of a cache that a distance of a
/// power of two would leave them: an odd number of cache lines.
pub(super) fn row_distance(len: usize) -> usize {
    (len.div_ceil(LINE) | 1) * LINE
}

/// Tile functions of type `F` for one instruction set.
pub(super) struct Kernel<F: 'static> {
    pub(super) name: &'static str,
    /// Columns in a vector.
    pub(super) lanes: usize,
    /// Vectors in a panel.
    pub(super) vectors: usize,
    /// Rows of the tile that uses the registers best.
    pub(super) rows: usize,
    /// Whether this processor has the instructions.
    pub(super) is_supported: fn() -> bool,
    /// `tiles[v - 1][r - 1]` computes `r` rows of `v` vectors.
    pub(super) tiles: [[Option<F>; MAX_ROWS]; MAX_VECTORS],
}

impl<F> Kernel<F> {
    /// Columns of all panels but the last.
    pub(super) const fn panel_columns(&self) -> usize {
        self.vectors * self.lanes
    }

    /// Columns of panel `p` of a matrix, those that do not exist included: the last panel has as few vectors as suffice.
    pub(super) fn panel_width(&self, columns: usize, p: usize) -> usize {
        let rest = columns - p * self.panel_columns();
        rest.next_multiple_of(self.lanes).min(self.panel_columns())
    }
}

impl<F: Copy> Kernel<F> {
    /// The function of a tile of `rows` rows, at most [`Kernel::rows`], and `vectors` vectors, at most [`Kernel::vectors`].
    pub(super) fn tile(&self, rows: usize, vectors: usize) -> F {
        self.tiles[vectors - 1][rows - 1].expect("the kernel has such tiles")
    }
}

/// All kernels of one product.
pub(super) struct Kernels<F: 'static> {
    /// The best first; the last runs on every processor.
    all: &'static [&'static Kernel<F>],
    best: OnceLock<&'static Kernel<F>>,
}

impl<F> Kernels<F> {
    pub(super) const fn new(all: &'static [&'static Kernel<F>]) -> Self {
        Self { all, best: OnceLock::new() }
    }

    /// Those that this processor runs, the best first.
    pub(super) fn available(&self) -> Vec<&'static Kernel<F>> {
        self.all.iter().copied().filter(|kernel| (kernel.is_supported)()).collect()
    }

    /// The best that this processor runs; the environment variable `XMORE_SIMD` (`avx512`, `avx2`, `portable`) chooses another.
    pub(super) fn best(&self) -> &'static Kernel<F> {
        self.best.get_or_init(|| {
            let name = std::env::var("XMORE_SIMD").ok();
            let mut available = self.available();
            let chosen = available.iter().position(|kernel| Some(kernel.name) == name.as_deref());
            available.swap_remove(chosen.unwrap_or(0))
        })
    }
}

/// Whether [`Kernels::best`] takes this for the name of a vector kernel.
pub(super) fn is_kernel_name(name: &str) -> bool {
    ["avx512", "avx2", "portable"].contains(&name)
}

/// Asks for a cache line; no more than a hint, at any address.
#[inline(always)]
pub(super) fn prefetch<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a prefetch reads nothing and faults at no address; SSE is part of x86-64.
        #[allow(unsafe_code)]
        unsafe {
            _mm_prefetch::<_MM_HINT_T1>(at.cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Whether the processor has AVX2 and fused multiply-add.
#[cfg(target_arch = "x86_64")]
pub(super) fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
}

/// [`Kernel::tiles`] of a generic tile function, for these numbers of rows and one and two vectors, or also three and four.
macro_rules! tile_table {
    ($name:ident: $($rows:literal)*) => { tile_table!($name, [1, 2]: $($rows)*) };
    (wide $name:ident: $($rows:literal)*) => { tile_table!($name, [1, 2, 3, 4]: $($rows)*) };
    ($name:ident, $vectors:tt: $($rows:literal)*) => {{
        use crate::nn::simd::{MAX_ROWS, MAX_VECTORS};
        let mut tiles: [[Option<TileFn>; MAX_ROWS]; MAX_VECTORS] = [[None; MAX_ROWS]; MAX_VECTORS];
        $(tile_table!(row tiles, $name, $rows, $vectors);)*
        tiles
    }};
    (row $tiles:ident, $name:ident, $rows:literal, [$($vectors:literal),*]) => {
        $($tiles[$vectors - 1][$rows - 1] = Some($name::<$rows, $vectors>);)*
    };
}
pub(super) use tile_table;
