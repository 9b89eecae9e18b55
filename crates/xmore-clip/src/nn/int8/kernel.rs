//! The innermost loop of the 8-bit product: one tile of sums of unsigned times signed bytes, made floats as they are stored.
//!
//! The sums are exact and the floats come in one order, so that every kernel gives the same bits.

use crate::nn::simd::{self, Kernels, MAX_ROWS, tile_table};

/// Inputs that one instruction multiplies for each column.
pub(super) const GROUP: usize = 4;

/// What a tile function computes: `c[r][j] += scale[r] · column_scale[j] · (Σ_k a[r][k] b[k][j] − zero[r] · column_sum[j])`.
pub(super) struct Tile {
    /// Rows of unsigned bytes, whole groups of them.
    pub(super) a: [*const u8; MAX_ROWS],
    /// Groups of inputs.
    pub(super) groups: usize,
    /// The panel, `[groups, width, GROUP]`.
    pub(super) b: *const i8,
    pub(super) c: *mut f32,
    /// Elements from one row of `c` to the next.
    pub(super) stride: usize,
    /// Whether what `c` holds is added to, else it is written.
    pub(super) add: bool,
    pub(super) scale: [f32; MAX_ROWS],
    pub(super) zero: [i32; MAX_ROWS],
    /// `[width]` each.
    pub(super) column_scale: *const f32,
    pub(super) column_sum: *const i32,
    pub(super) bias: *const f32,
}

/// # Safety
/// The tile's pointers must be valid for what [`Tile`] says is read and written, with the function's own number of rows and width, and the
/// processor must have the instructions.
pub(super) type TileFn = unsafe fn(&Tile);

/// Tile functions for one instruction set.
pub(super) type Kernel = simd::Kernel<TileFn>;

/// All kernels, the best first.
pub(super) static KERNELS: Kernels<TileFn> = Kernels::new(&[
    #[cfg(target_arch = "x86_64")]
    &AVX512,
    #[cfg(target_arch = "x86_64")]
    &AVX2,
    &PORTABLE,
]);

/// Writes a tile function's body from an instruction set's operations.
macro_rules! tile {
    (
        $(#[$attribute:meta])* $name:ident, $lanes:expr,
        zero: $zero:expr, load: $load:expr, splat: $splat:expr, dot: $dot:expr,
        store: $store:expr
    ) => {
        $(#[$attribute])*
        pub(super) unsafe fn $name<const ROWS: usize, const VECTORS: usize>(tile: &Tile) {
            // SAFETY: see `TileFn`: all pointers are valid for the tile's rows, vectors and groups.
            unsafe {
                let mut sum = [[$zero; VECTORS]; ROWS];
                let mut b = tile.b;
                for k in 0..tile.groups {
                    let vectors: [_; VECTORS] = std::array::from_fn(|v| $load(b.add(v * $lanes * GROUP)));
                    for r in 0..ROWS {
                        let x = $splat(tile.a[r].add(k * GROUP));
                        for v in 0..VECTORS {
                            sum[r][v] = $dot(sum[r][v], x, vectors[v]);
                        }
                    }
                    b = b.add(VECTORS * $lanes * GROUP);
                }
                for r in 0..ROWS {
                    for v in 0..VECTORS {
                        $store(tile, r, v * $lanes, sum[r][v]);
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

    use super::{GROUP, Tile};

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn store_512(tile: &Tile, r: usize, column: usize, sum: __m512i) {
        // SAFETY: the caller's tile has row `r` and 16 columns from `column` on.
        unsafe {
            let zeros = _mm512_mullo_epi32(
                _mm512_set1_epi32(tile.zero[r]),
                _mm512_loadu_si512(tile.column_sum.add(column).cast()),
            );
            let value = _mm512_cvtepi32_ps(_mm512_sub_epi32(sum, zeros));
            let scale =
                _mm512_mul_ps(_mm512_set1_ps(tile.scale[r]), _mm512_loadu_ps(tile.column_scale.add(column)));
            let at = tile.c.add(r * tile.stride + column);
            let mut before = _mm512_loadu_ps(tile.bias.add(column));
            if tile.add {
                before = _mm512_add_ps(before, _mm512_loadu_ps(at));
            }
            _mm512_storeu_ps(at, _mm512_fmadd_ps(value, scale, before));
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn store_256(tile: &Tile, r: usize, column: usize, sum: __m256i) {
        // SAFETY: the caller's tile has row `r` and 8 columns from `column` on.
        unsafe {
            // The sums are of x − 128.
            let zeros = _mm256_mullo_epi32(
                _mm256_set1_epi32(tile.zero[r] - 128),
                _mm256_loadu_si256(tile.column_sum.add(column).cast()),
            );
            let value = _mm256_cvtepi32_ps(_mm256_sub_epi32(sum, zeros));
            let scale =
                _mm256_mul_ps(_mm256_set1_ps(tile.scale[r]), _mm256_loadu_ps(tile.column_scale.add(column)));
            let at = tile.c.add(r * tile.stride + column);
            let mut before = _mm256_loadu_ps(tile.bias.add(column));
            if tile.add {
                before = _mm256_add_ps(before, _mm256_loadu_ps(at));
            }
            _mm256_storeu_ps(at, _mm256_fmadd_ps(value, scale, before));
        }
    }

    tile!(
        #[target_feature(enable = "avx512f,avx512vnni")]
        avx512, 16,
        zero: _mm512_setzero_si512(),
        load: |b: *const i8| _mm512_loadu_si512(b.cast()),
        splat: |a: *const u8| _mm512_set1_epi32(a.cast::<i32>().read_unaligned()),
        dot: _mm512_dpbusd_epi32,
        store: store_512
    );

    tile!(
        #[target_feature(enable = "avx2,fma")]
        avx2, 8,
        zero: _mm256_setzero_si256(),
        load: |b: *const i8| _mm256_loadu_si256(b.cast()),
        splat: |a: *const u8| {
            let x = _mm256_set1_epi32(a.cast::<i32>().read_unaligned());
            let signed = _mm256_xor_si256(x, _mm256_set1_epi8(-128));
            (_mm256_abs_epi8(signed), signed)
        },
        dot: |sum, (size, sign), w| {
            // Two products of 255 and 127 do not fit into 16 bits. Of x − 128 they do: at most 2 · 128 · 127 = 32,512. Its size is the
            // unsigned factor, its sign goes to the weight, which is never −128. `store_256` puts the 128 back.
            let pairs = _mm256_maddubs_epi16(size, _mm256_sign_epi8(w, sign));
            _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        },
        store: store_256
    );
}

/// `vpdpbusd`: four products for each of 16 columns in one instruction.
#[cfg(target_arch = "x86_64")]
static AVX512: Kernel = {
    use x86::avx512;
    let tiles = tile_table!(avx512: 1 2 3 4 5 6 7 8 9 10 11 12 13 14);
    let is_supported = || is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512f");
    Kernel { name: "avx512", lanes: 16, vectors: 2, rows: 14, is_supported, tiles }
};

/// Without such an instruction: four, with 16-bit sums in between that cannot overflow.
#[cfg(target_arch = "x86_64")]
static AVX2: Kernel = {
    use x86::avx2;
    let (is_supported, tiles) = (simd::has_avx2, tile_table!(avx2: 1 2 3 4 5 6));
    Kernel { name: "avx2", lanes: 8, vectors: 2, rows: 6, is_supported, tiles }
};

mod plain {
    #![allow(unsafe_code)]
    use super::{GROUP, Tile};

    type Weights = [[i8; GROUP]; 4];

    fn dot(sum: [i32; 4], x: [u8; GROUP], w: Weights) -> [i32; 4] {
        std::array::from_fn(|j| {
            sum[j] + (0..GROUP).map(|i| i32::from(x[i]) * i32::from(w[j][i])).sum::<i32>()
        })
    }

    unsafe fn store(tile: &Tile, r: usize, column: usize, sum: [i32; 4]) {
        for (j, sum) in sum.into_iter().enumerate() {
            // SAFETY: the caller's tile has row `r` and four columns from `column` on.
            unsafe {
                let at = tile.c.add(r * tile.stride + column + j);
                let value = (sum - tile.zero[r] * *tile.column_sum.add(column + j)) as f32;
                let scale = tile.scale[r] * *tile.column_scale.add(column + j);
                let before = *tile.bias.add(column + j) + if tile.add { *at } else { 0.0 };
                *at = value.mul_add(scale, before);
            }
        }
    }

    tile!(
        portable, 4,
        zero: [0i32; 4],
        load: |b: *const i8| b.cast::<Weights>().read(),
        splat: |a: *const u8| a.cast::<[u8; GROUP]>().read(),
        dot: dot,
        store: store
    );
}

static PORTABLE: Kernel = {
    use plain::portable;
    Kernel {
        name: "portable",
        lanes: 4,
        vectors: 2,
        rows: 4,
        is_supported: || true,
        tiles: tile_table!(portable: 1 2 3 4),
    }
};
