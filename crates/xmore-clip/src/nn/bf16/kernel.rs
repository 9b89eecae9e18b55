//! The innermost loop of the product in bf16: one tile of the output, in 32-bit sums that are held in registers.
//!
//! Each sum is one chain: the second input of the first pair, then its first, then those of the next pair, and so on, where every product is exact
//! and every addition is rounded to nearest even. That is what `vdpbf16ps` does (Intel, "Software Developer's Manual", volume 2,
//! "VDPBF16PS"), but for the numbers below the least normal one, which the instruction takes for zero. They do not occur: inputs are zero or
//! at least [`SMALLEST`](super::round::SMALLEST) in size, so that products, and whatever is a sum of them, are multiples of 2⁻¹¹⁴. So all kernels give the same bits
//! as long as sums and products stay below 2¹²⁸.

use std::ops::Range;

use crate::nn::simd::{self, Kernels, LINE, MAX_ROWS, tile_table};

use super::round::pair;

/// What a tile function computes: `c[r][j] = Σ_k a[r][k] b[k][j] + bias[j]`, and what `c` holds if that is added to.
pub(super) struct Tile {
    /// Rows of pairs of inputs.
    pub(super) a: [*const u32; MAX_ROWS],
    pub(super) pairs: usize,
    /// The panel, `[pairs, width]`.
    pub(super) b: *const u32,
    pub(super) c: *mut f32,
    /// Elements from one row of `c` to the next.
    pub(super) stride: usize,
    /// Whether what `c` holds is added to, else it is written.
    pub(super) add: bool,
    /// `[width]`.
    pub(super) bias: *const f32,
    /// Memory that will be read next: two cache lines of it are prefetched at every fourth step.
    pub(super) prefetch: Range<*const u32>,
}

/// # Safety
/// The tile's pointers must be valid for what [`Tile`] says is read and written, with the function's own number of rows and width, and the
/// processor must have the instructions.
pub(super) type TileFn = unsafe fn(&Tile);

/// Tile functions for one instruction set.
pub(super) type Kernel = simd::Kernel<TileFn>;

/// All kernels, the best first: another instruction set is a row here and a `tile!` below. Its sums must be those above; one with another order
/// has a product of its own, as AMX has.
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
        load_sums: $load_sums:expr, add: $add:expr, store: $store:expr
    ) => {
        $(#[$attribute])*
        pub(super) unsafe fn $name<const ROWS: usize, const VECTORS: usize>(tile: &Tile) {
            // SAFETY: see `TileFn`: all pointers are valid for the tile's rows, vectors and pairs.
            unsafe {
                let mut sum = [[$zero; VECTORS]; ROWS];
                let a: [*const u32; ROWS] = std::array::from_fn(|r| tile.a[r]);
                let mut b = tile.b;
                let Range { start: mut next, end: next_end } = tile.prefetch;
                macro_rules! step {
                    ($k:expr) => {{
                        let vectors: [_; VECTORS] = std::array::from_fn(|v| $load(b.add(v * $lanes)));
                        for r in 0..ROWS {
                            let x = $splat(a[r].add($k));
                            for v in 0..VECTORS {
                                sum[r][v] = $dot(sum[r][v], x, vectors[v]);
                            }
                        }
                        b = b.add(VECTORS * $lanes);
                    }};
                }
                let mut k = 0;
                while k + 4 <= tile.pairs {
                    if next < next_end {
                        prefetch(next);
                        prefetch(next.wrapping_add(LINE));
                        next = next.wrapping_add(2 * LINE);
                    }
                    step!(k);
                    step!(k + 1);
                    step!(k + 2);
                    step!(k + 3);
                    k += 4;
                }
                while k < tile.pairs {
                    step!(k);
                    k += 1;
                }
                for v in 0..VECTORS {
                    let bias = $load_sums(tile.bias.add(v * $lanes));
                    for r in 0..ROWS {
                        let at = tile.c.add(r * tile.stride + v * $lanes);
                        let mut value = $add(sum[r][v], bias);
                        if tile.add {
                            value = $add(value, $load_sums(at));
                        }
                        $store(at, value);
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

    use super::{LINE, Range, Tile};
    use crate::nn::simd::prefetch;

    /// As they lie in memory.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn pairs(bits: __m512i) -> __m512bh {
        // SAFETY: both are 512 bits of any value.
        unsafe { std::mem::transmute::<__m512i, __m512bh>(bits) }
    }

    tile!(
        #[target_feature(enable = "avx512f,avx512bf16")]
        avx512, 16,
        zero: _mm512_setzero_ps(),
        load: |b: *const u32| pairs(_mm512_loadu_si512(b.cast())),
        splat: |a: *const u32| pairs(_mm512_set1_epi32(a.cast::<i32>().read_unaligned())),
        dot: _mm512_dpbf16_ps,
        load_sums: _mm512_loadu_ps,
        add: _mm512_add_ps,
        store: _mm512_storeu_ps
    );

    tile!(
        #[target_feature(enable = "avx2,fma")]
        avx2, 8,
        zero: _mm256_setzero_ps(),
        load: |b: *const u32| {
            let bits = _mm256_loadu_si256(b.cast());
            let first = _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits));
            (first, _mm256_castsi256_ps(_mm256_and_si256(bits, _mm256_set1_epi32(-0x1_0000))))
        },
        splat: |a: *const u32| {
            let bits = a.read_unaligned();
            let [first, second] = [bits << 16, bits & 0xffff_0000].map(f32::from_bits);
            (_mm256_set1_ps(first), _mm256_set1_ps(second))
        },
        dot: |sum, (x1, x2), (w1, w2)| _mm256_fmadd_ps(x1, w1, _mm256_fmadd_ps(x2, w2, sum)),
        load_sums: _mm256_loadu_ps,
        add: _mm256_add_ps,
        store: _mm256_storeu_ps
    );
}

/// `vdpbf16ps`: two products for each of 16 columns in one instruction; 28 of 32 registers hold sums.
#[cfg(target_arch = "x86_64")]
static AVX512: Kernel = {
    use x86::avx512;
    let tiles = tile_table!(avx512: 1 2 3 4 5 6 7 8 9 10 11 12 13 14);
    let is_supported = || {
        let found = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16");
        found && gives_the_bits_of_the_portable_one(avx512::<3, 2>)
    };
    Kernel { name: "avx512", lanes: 16, vectors: 2, rows: 14, is_supported, tiles }
};

/// Without such an instruction: both halves of a pair as 32-bit floats.
#[cfg(target_arch = "x86_64")]
static AVX2: Kernel = {
    use x86::avx2;
    let (is_supported, tiles) = (simd::has_avx2, tile_table!(avx2: 1 2 3 4));
    Kernel { name: "avx2", lanes: 8, vectors: 2, rows: 4, is_supported, tiles }
};

mod plain {
    #![allow(unsafe_code)]
    use super::{LINE, Range, Tile};
    use crate::nn::simd::prefetch;

    type Sums = [f32; 4];
    type Pairs = [u32; 4];

    fn first(pair: u32) -> f32 {
        f32::from_bits(pair << 16)
    }

    fn second(pair: u32) -> f32 {
        f32::from_bits(pair & 0xffff_0000)
    }

    /// A product of two bf16 is exact in 32 bits.
    fn dot(sum: Sums, x: u32, w: Pairs) -> Sums {
        std::array::from_fn(|j| sum[j] + second(x) * second(w[j]) + first(x) * first(w[j]))
    }

    fn add(a: Sums, b: Sums) -> Sums {
        std::array::from_fn(|j| a[j] + b[j])
    }

    tile!(
        portable, 4,
        zero: [0.0f32; 4],
        load: |b: *const u32| b.cast::<Pairs>().read(),
        splat: |a: *const u32| a.read(),
        dot: dot,
        load_sums: |at: *const f32| at.cast::<Sums>().read(),
        add: add,
        store: |at: *mut f32, value| at.cast::<Sums>().write(value)
    );
}

static PORTABLE: Kernel = {
    use plain::portable;
    let tiles = tile_table!(portable: 1 2 3 4);
    Kernel { name: "portable", lanes: 4, vectors: 2, rows: 4, is_supported: || true, tiles }
};

/// Whether a kernel has an instruction for products in bf16.
pub(super) fn has_instruction(kernel: &Kernel) -> bool {
    kernel.name == "avx512"
}

/// Whether a function of 3 rows and 32 columns rounds as the portable kernel does, on a product whose every addition is rounded.
#[cfg(target_arch = "x86_64")]
fn gives_the_bits_of_the_portable_one(function: TileFn) -> bool {
    const ROWS: usize = 3;
    const PAIRS: usize = 25;
    const WIDTH: usize = 32;
    let mut state = 1u32;
    let mut value = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let mut some = |n: usize| (0..n).map(|_| pair(value(), value() * 0.01)).collect::<Vec<u32>>();
    let (rows, panel) = (some(ROWS * PAIRS), some(PAIRS * WIDTH));
    let bias = [0.125f32; WIDTH];
    let mut a = [std::ptr::null(); MAX_ROWS];
    for (pointer, row) in a.iter_mut().zip(rows.chunks_exact(PAIRS)) {
        *pointer = row.as_ptr();
    }
    let run = |function: TileFn, panel: &[u32], columns: Range<usize>, out: &mut [f32; ROWS * WIDTH]| {
        let tile = Tile {
            a,
            pairs: PAIRS,
            b: panel.as_ptr(),
            c: out[columns.start..].as_mut_ptr(),
            stride: WIDTH,
            add: true,
            bias: bias[columns].as_ptr(),
            prefetch: std::ptr::null()..std::ptr::null(),
        };
        // SAFETY: rows, panel, bias and output have the sizes that the function reads and writes, and the caller asks for its instructions first.
        #[allow(unsafe_code)]
        unsafe {
            function(&tile);
        }
    };
    let (mut found, mut expected) = ([0.5f32; ROWS * WIDTH], [0.5f32; ROWS * WIDTH]);
    run(function, &panel, 0..WIDTH, &mut found);
    let narrow = PORTABLE.panel_columns();
    for first in (0..WIDTH).step_by(narrow) {
        let columns = first..first + narrow;
        let part: Vec<u32> =
            panel.chunks_exact(WIDTH).flat_map(|line| &line[columns.clone()]).copied().collect();
        run(plain::portable::<ROWS, 2>, &part, columns, &mut expected);
    }
    found.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits())
}
