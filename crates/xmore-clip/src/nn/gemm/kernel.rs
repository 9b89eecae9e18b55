//! The innermost loop of the matrix product: one tile of the output, held in registers.
//!
//! A tile is up to [`MAX_ROWS`] rows of the left operand times one panel (one to four vectors wide) of the right one. The rows come as
//! pointers, so that a convolution's windows need not be copied side by side first. Each output element is one chain of fused
//! multiply-adds in the order of the inputs, whatever the tile's shape and the instruction set: the bits are the same on all of them.

use std::ops::Range;

use crate::nn::simd::{self, Kernels, LINE, MAX_ROWS, tile_table};

/// What a tile function computes: `c[r][j] = init + Σ_t Σ_i a[t][r][skip + i] · b[t · depth + i][j]`.
pub(super) struct Tile {
    /// `taps` groups of [`MAX_ROWS`] pointers; of each group the tile's rows are read.
    pub(super) a: *const *const f32,
    pub(super) taps: usize,
    /// Elements to skip at each pointer.
    pub(super) skip: usize,
    /// Elements read at each pointer.
    pub(super) depth: usize,
    /// The panel, `[taps * depth, width]`.
    pub(super) b: *const f32,
    pub(super) c: *mut f32,
    /// Elements from one row of `c` to the next.
    pub(super) stride: usize,
    /// Added to every row where not null, `[width]`.
    pub(super) bias: *const f32,
    /// Whether what `c` holds is added to.
    pub(super) add: bool,
    /// Where there is one, sums are stored clamped to zero and this.
    pub(super) ceiling: Option<f32>,
    /// Memory that will be read next, whole cache lines. One of them is prefetched at every fourth step, at the first steps two where they are more than that.
    pub(super) prefetch: Range<*const f32>,
}

/// Steps from one prefetch to the next, which the tile functions write out.
pub(super) const STEPS_PER_PREFETCH: usize = 4;

/// # Safety
/// The tile's pointers must be valid for what [`Tile`] says is read and written, with the function's own number of rows and width, and the
/// processor must have the instructions.
pub(super) type TileFn = unsafe fn(&Tile);

/// Tile functions for one instruction set.
pub(super) type Kernel = simd::Kernel<TileFn>;

/// Columns of the widest panel.
pub(super) const WIDEST_PANEL: usize = 64;

/// All kernels, the best first.
pub(super) static KERNELS: Kernels<TileFn> = Kernels::new(&[
    #[cfg(target_arch = "x86_64")]
    &AVX512,
    #[cfg(target_arch = "x86_64")]
    &AVX512_WIDE,
    #[cfg(target_arch = "x86_64")]
    &AVX2,
    &PORTABLE,
]);

/// The kernel for a weight of so many columns.
pub(super) fn for_columns(columns: usize) -> &'static Kernel {
    let best = KERNELS.best();
    #[cfg(target_arch = "x86_64")]
    if std::ptr::eq(best, &AVX512) && fills_wide_panels(columns) {
        return &AVX512_WIDE;
    }
    best
}

/// Whether next to all panels of 64 columns are full: narrower ones are multiplied at a lower rate.
#[cfg(target_arch = "x86_64")]
fn fills_wide_panels(columns: usize) -> bool {
    let rest = columns % AVX512_WIDE.panel_columns();
    columns >= 512 || rest == 0 || rest > 48
}

/// Writes a tile function's body: `$zero`, `$load`, `$store`, `$splat`, `$add`, `$max`, `$min`, `$fma` are the instruction set's.
macro_rules! tile {
    ($(#[$attribute:meta])* $name:ident, $lanes:expr, $zero:expr, $load:expr, $store:expr, $splat:expr, $add:expr, $max:expr, $min:expr, $fma:expr) => {
        $(#[$attribute])*
        pub(super) unsafe fn $name<const ROWS: usize, const VECTORS: usize>(tile: &Tile) {
            // SAFETY: see `TileFn`: all pointers are valid for the tile's rows, vectors and depth.
            unsafe {
                let mut sum = [[$zero; VECTORS]; ROWS];
                if tile.add {
                    for r in 0..ROWS {
                        for v in 0..VECTORS {
                            sum[r][v] = $load(tile.c.add(r * tile.stride + v * $lanes));
                        }
                    }
                }
                if !tile.bias.is_null() {
                    for v in 0..VECTORS {
                        let bias = $load(tile.bias.add(v * $lanes));
                        for r in 0..ROWS {
                            sum[r][v] = $add(sum[r][v], bias);
                        }
                    }
                }
                let mut b = tile.b;
                let Range { start: mut next, end: next_end } = tile.prefetch;
                let more = ((next_end as usize - next as usize) / size_of::<[f32; LINE]>())
                    .saturating_sub(tile.taps * (tile.depth / STEPS_PER_PREFETCH));
                let two_until = next.wrapping_add(2 * more * LINE);
                for tap in 0..tile.taps {
                    let a: [*const f32; ROWS] =
                        std::array::from_fn(|r| (*tile.a.add(tap * MAX_ROWS + r)).add(tile.skip));
                    macro_rules! step {
                        ($k:expr) => {{
                            let vectors: [_; VECTORS] = std::array::from_fn(|v| $load(b.add(v * $lanes)));
                            for r in 0..ROWS {
                                let x = $splat(a[r].add($k));
                                for v in 0..VECTORS {
                                    sum[r][v] = $fma(x, vectors[v], sum[r][v]);
                                }
                            }
                            b = b.add(VECTORS * $lanes);
                        }};
                    }
                    let mut k = 0;
                    while k + STEPS_PER_PREFETCH <= tile.depth {
                        if next < next_end {
                            prefetch(next);
                            next = next.wrapping_add(LINE);
                            if next < two_until {
                                prefetch(next);
                                next = next.wrapping_add(LINE);
                            }
                        }
                        step!(k);
                        step!(k + 1);
                        step!(k + 2);
                        step!(k + 3);
                        k += STEPS_PER_PREFETCH;
                    }
                    while k < tile.depth {
                        step!(k);
                        k += 1;
                    }
                }
                if let Some(ceiling) = tile.ceiling {
                    let ceiling = $splat(&ceiling);
                    for row in &mut sum {
                        for value in row {
                            *value = $min($max(*value, $zero), ceiling);
                        }
                    }
                }
                for r in 0..ROWS {
                    for v in 0..VECTORS {
                        $store(tile.c.add(r * tile.stride + v * $lanes), sum[r][v]);
                    }
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod x86 {
    use std::arch::x86_64::*;

    use super::{LINE, MAX_ROWS, Range, STEPS_PER_PREFETCH, Tile};
    use crate::nn::simd::prefetch;

    tile!(
        #[target_feature(enable = "avx512f")]
        avx512,
        16,
        _mm512_setzero_ps(),
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        |x: *const f32| _mm512_set1_ps(*x),
        _mm512_add_ps,
        _mm512_max_ps,
        _mm512_min_ps,
        _mm512_fmadd_ps
    );

    tile!(
        #[target_feature(enable = "avx2,fma")]
        avx2,
        8,
        _mm256_setzero_ps(),
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        |x: *const f32| _mm256_broadcast_ss(&*x),
        _mm256_add_ps,
        _mm256_max_ps,
        _mm256_min_ps,
        _mm256_fmadd_ps
    );
}

/// 14 × 32: 28 of 32 registers hold sums.
#[cfg(target_arch = "x86_64")]
static AVX512: Kernel = {
    use x86::avx512;
    let tiles = tile_table!(avx512: 1 2 3 4 5 6 7 8 9 10 11 12 13 14);
    Kernel {
        name: "avx512",
        lanes: 16,
        vectors: 2,
        rows: 14,
        is_supported: || is_x86_feature_detected!("avx512f"),
        tiles,
    }
};

/// 6 × 64: 24 of 32 registers hold sums. Reads 10 vectors for 24 multiply-adds, 14 × 32 reads 16 for 28, of which an Intel Xeon (Sapphire
/// Rapids) multiplies fewer in a second.
#[cfg(target_arch = "x86_64")]
static AVX512_WIDE: Kernel = {
    use x86::avx512;
    let tiles = tile_table!(wide avx512: 1 2 3 4 5 6);
    Kernel { name: "avx512-wide", lanes: 16, vectors: 4, rows: 6, is_supported: AVX512.is_supported, tiles }
};

/// 6 × 16: 12 of 16 registers hold sums.
#[cfg(target_arch = "x86_64")]
static AVX2: Kernel = {
    use x86::avx2;
    let (is_supported, tiles) = (simd::has_avx2, tile_table!(avx2: 1 2 3 4 5 6));
    Kernel { name: "avx2", lanes: 8, vectors: 2, rows: 6, is_supported, tiles }
};

/// Plain Rust, which compilers turn into the target's own vectors (NEON, for one).
mod plain {
    #![allow(unsafe_code)]
    use super::{LINE, MAX_ROWS, Range, STEPS_PER_PREFETCH, Tile};
    use crate::nn::simd::prefetch;

    type V = [f32; 4];

    #[inline(always)]
    unsafe fn load(at: *const f32) -> V {
        // SAFETY: the caller's pointer is valid for four elements.
        unsafe { at.cast::<V>().read() }
    }

    #[inline(always)]
    unsafe fn store(at: *mut f32, v: V) {
        // SAFETY: the caller's pointer is valid for four elements.
        unsafe { at.cast::<V>().write(v) }
    }

    #[inline(always)]
    fn add(a: V, b: V) -> V {
        std::array::from_fn(|i| a[i] + b[i])
    }

    #[inline(always)]
    fn max(a: V, b: V) -> V {
        std::array::from_fn(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn min(a: V, b: V) -> V {
        std::array::from_fn(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn fma(a: V, b: V, c: V) -> V {
        std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
    }

    tile!(portable, 4, [0.0; 4], load, store, |x: *const f32| [*x; 4], add, max, min, fma);
}

static PORTABLE: Kernel = {
    use plain::portable;
    let tiles = tile_table!(portable: 1 2 3 4 5 6 7 8);
    Kernel { name: "portable", lanes: 4, vectors: 2, rows: 8, is_supported: || true, tiles }
};
