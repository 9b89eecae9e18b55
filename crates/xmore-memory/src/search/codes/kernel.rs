//! The innermost loop of a coded scan: sums of products of code bytes with a query's digits, sixteen rows at a time, and which
//! of them can still matter.

use std::sync::OnceLock;

/// Rows of a block: codes of sixteen rows lie interleaved, so that no instruction set needs sums across a vector.
pub(in crate::search) const BLOCK: usize = 16;
/// Dimensions that one instruction multiplies for each row.
pub(in crate::search) const GROUP: usize = 4;
/// Groups of which the halves of codes lie in the same bytes.
pub(in crate::search) const PAIR: usize = 2;
/// What stands in place of a code's low half where that is not read: the middle of what it can be.
pub(in crate::search) const MIDDLE: u8 = 8;
/// Blocks of the largest tile.
pub(in crate::search) const MAX_BLOCKS: usize = 2;
/// Codes begin on a multiple of this: a vector of the widest instruction set never straddles two cache lines.
pub(in crate::search) const ALIGN: usize = 64;
/// Queries of the largest tile.
pub(in crate::search) const MAX_QUERIES: usize = 12;

/// Sums of sixteen rows with one query.
pub(in crate::search) type Sums = [i32; BLOCK];

/// What decides whether a row with sum d, scale s and error e can still matter:
/// s·(d·factor) + (e·norm + base) ≥ floor. A NaN counts as yes.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::search) struct Test {
    pub(in crate::search) factor: f32,
    pub(in crate::search) norm: f32,
    pub(in crate::search) base: f32,
    pub(in crate::search) floor: f32,
}

impl Test {
    /// The left side of the test.
    #[inline]
    pub(in crate::search) fn upper(&self, sum: i32, scale: f32, error: f32) -> f32 {
        scale * (sum as f32 * self.factor) + (error * self.norm + self.base)
    }
}

/// A few blocks of rows and a few queries.
///
/// A row's sum is Σ (u − 128)·q over its code bytes u and the query's digits q, which are at most 64 in size: then two
/// products of a byte fit 16 bits, and sums of `MAX_DIM` products fit 32.
///
/// A tile of high halves has code bytes u = 16 h + [`MIDDLE`] instead, made from the halves h as they are read.
pub(in crate::search) struct Tile {
    /// The blocks' code bytes, `[groups, BLOCK, GROUP]` each, or high halves, `[groups / PAIR, BLOCK, GROUP]`.
    pub(in crate::search) codes: [*const u8; MAX_BLOCKS],
    /// Their scales and errors, `[BLOCK]` each.
    pub(in crate::search) scales: [*const f32; MAX_BLOCKS],
    pub(in crate::search) errors: [*const f32; MAX_BLOCKS],
    /// Groups of dimensions; an even number of them for high halves.
    pub(in crate::search) groups: usize,
    /// Digits, `[groups, queries, GROUP]`.
    pub(in crate::search) panel: *const i8,
    /// −128 Σ q of each query, for the instruction sets that multiply unsigned bytes: `[queries]`.
    pub(in crate::search) offsets: *const i32,
    /// `[queries]`.
    pub(in crate::search) tests: *const Test,
    /// Sums, `[blocks, queries]`.
    pub(in crate::search) sums: *mut Sums,
    /// Which rows pass the test, a bit each: `[blocks, queries]`.
    pub(in crate::search) passed: *mut u16,
}

/// Computes all sums and tests; bit q of a block's answer says that some row passes query q's test.
///
/// # Safety
/// The tile's pointers must be valid for what [`Tile`] says is read and written, with the function's own number of blocks and
/// queries, and the processor must have the instructions.
pub(in crate::search) type TileFn = unsafe fn(&Tile) -> [u32; MAX_BLOCKS];

/// Tile functions for one instruction set.
pub(in crate::search) struct Kernel {
    pub(in crate::search) name: &'static str,
    /// Blocks and queries of the tile that uses the registers best.
    pub(in crate::search) blocks: usize,
    pub(in crate::search) queries: usize,
    /// `tiles[b - 1][q - 1]` takes `b` blocks and `q` queries.
    pub(in crate::search) tiles: [[Option<TileFn>; MAX_QUERIES]; MAX_BLOCKS],
    /// `halves[q - 1]` takes the high halves of a block and `q` queries.
    pub(in crate::search) halves: [Option<TileFn>; MAX_QUERIES],
    join: JoinFn,
}

/// Joins halves of codes, see [`join`].
///
/// # Safety
/// The processor must have the instructions.
type JoinFn = unsafe fn(&[u8], &[u8], &mut [u8]);

impl Kernel {
    /// Makes a block's code bytes, `[groups, BLOCK, GROUP]`, of their high and low halves, `[groups / PAIR, BLOCK, GROUP]` each.
    pub(in crate::search) fn join(&self, high: &[u8], low: &[u8], out: &mut [u8]) {
        // SAFETY: kernels are those that the processor was found to have.
        #[allow(unsafe_code)]
        unsafe {
            (self.join)(high, low, out);
        }
    }
}

/// Bytes of the halves of two groups; the first group's half is the lower one.
const PAIR_BYTES: usize = BLOCK * GROUP;

#[inline(always)]
fn join(high: &[u8], low: &[u8], out: &mut [u8]) {
    let halves = high.chunks_exact(PAIR_BYTES).zip(low.chunks_exact(PAIR_BYTES));
    for ((high, low), out) in halves.zip(out.chunks_exact_mut(PAIR * PAIR_BYTES)) {
        let (first, second) = out.split_at_mut(PAIR_BYTES);
        for i in 0..PAIR_BYTES {
            first[i] = high[i] << 4 | low[i] & 15;
            second[i] = high[i] & 0xf0 | low[i] >> 4;
        }
    }
}

/// The best kernel that this processor runs; `XMORE_SIMD` (`avx512`, `avxvnni`, `avx2`, `neon`, `portable`) asks for those of
/// another.
pub(in crate::search) fn best() -> &'static Kernel {
    static BEST: OnceLock<&Kernel> = OnceLock::new();
    BEST.get_or_init(|| {
        let wish = std::env::var("XMORE_SIMD").ok();
        let mut offered = available();
        let wished = offered.iter().position(|k| Some(k.name) == wish.as_deref());
        offered.swap_remove(wished.unwrap_or(0))
    })
}

/// All kernels that this processor runs, the best first.
pub(in crate::search) fn available() -> Vec<&'static Kernel> {
    let mut kernels: Vec<&Kernel> = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512bw") {
            kernels.push(&AVX512);
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            if is_x86_feature_detected!("avxvnni") {
                kernels.push(&AVX_VNNI);
            }
            kernels.push(&AVX2);
        }
    }
    #[cfg(target_arch = "aarch64")]
    kernels.push(&NEON);
    kernels.push(&PORTABLE);
    kernels
}

/// Writes an instruction set's two tile functions, for code bytes and for their high halves, from its operations on vectors of
/// `lanes` rows; `halves` makes the codes of two groups of what `load` loads.
macro_rules! tile {
    (
        $(#[$attribute:meta])* $name:ident, $of_halves:ident, $lanes:expr,
        start: $start:expr, load: $load:expr, halves: $halves:expr, $($operation:ident: $with:expr),*
    ) => {
        tile_function!(
            $(#[$attribute])* $name, $lanes, 1,
            start: $start, load: |u: *const u8| [$load(u)], $($operation: $with),*
        );
        tile_function!(
            $(#[$attribute])* $of_halves, $lanes, PAIR,
            start: $start, load: |u: *const u8| $halves($load(u)), $($operation: $with),*
        );
    };
}

/// Writes one of them; `load` gives the vectors of `groups` consecutive groups.
macro_rules! tile_function {
    (
        $(#[$attribute:meta])* $name:ident, $lanes:expr, $groups:expr,
        start: $start:expr, load: $load:expr, splat: $splat:expr, dot: $dot:expr, add: $add:expr, store: $store:expr,
        passes: $passes:expr
    ) => {
        $(#[$attribute])*
        pub(super) unsafe fn $name<const BLOCKS: usize, const QUERIES: usize, const CHAINS: usize>(
            tile: &Tile,
        ) -> [u32; MAX_BLOCKS] {
            const VECTORS: usize = BLOCK / $lanes;
            // SAFETY: see `TileFn`: all pointers are valid for the tile's blocks, queries and groups.
            unsafe {
                let mut sums: [[[[_; VECTORS]; QUERIES]; BLOCKS]; CHAINS] = std::array::from_fn(|chain| {
                    let offset = |q| if chain == 0 { *tile.offsets.add(q) } else { 0 };
                    std::array::from_fn(|_| std::array::from_fn(|q| [$start(offset(q)); VECTORS]))
                });
                let loads = tile.groups / $groups;
                let whole = loads - loads % CHAINS;
                let mut step = |k: usize, chain: usize| {
                    let rows: [[[_; $groups]; VECTORS]; BLOCKS] = std::array::from_fn(|b| {
                        std::array::from_fn(|v| $load(tile.codes[b].add((k * BLOCK + v * $lanes) * GROUP)))
                    });
                    for g in 0..$groups {
                        for q in 0..QUERIES {
                            let digits = $splat(tile.panel.add(((k * $groups + g) * QUERIES + q) * GROUP));
                            for b in 0..BLOCKS {
                                for v in 0..VECTORS {
                                    sums[chain][b][q][v] = $dot(sums[chain][b][q][v], rows[b][v][g], digits);
                                }
                            }
                        }
                    }
                };
                for k in (0..whole).step_by(CHAINS) {
                    for chain in 0..CHAINS {
                        step(k + chain, chain);
                    }
                }
                for k in whole..loads {
                    step(k, 0);
                }
                let mut some = [0; MAX_BLOCKS];
                for b in 0..BLOCKS {
                    for q in 0..QUERIES {
                        let out = tile.sums.add(b * QUERIES + q).cast::<i32>();
                        let test = &*tile.tests.add(q);
                        let mut passed = 0;
                        for v in 0..VECTORS {
                            let mut sum = sums[0][b][q][v];
                            for chain in 1..CHAINS {
                                sum = $add(sum, sums[chain][b][q][v]);
                            }
                            let (scales, errors) = (tile.scales[b].add(v * $lanes), tile.errors[b].add(v * $lanes));
                            $store(out.add(v * $lanes), sum);
                            passed |= ($passes(sum, scales, errors, test) as u16) << (v * $lanes);
                        }
                        tile.passed.add(b * QUERIES + q).write(passed);
                        some[b] |= u32::from(passed != 0) << q;
                    }
                }
                some
            }
        }
    };
}

/// The table of a tile function's instances.
macro_rules! table {
    ($name:ident: $($queries:literal)*) => {{
        let mut tiles: [[Option<TileFn>; MAX_QUERIES]; MAX_BLOCKS] = [[None; MAX_QUERIES]; MAX_BLOCKS];
        $(
            tiles[0][$queries - 1] = Some($name::<1, $queries, 1>);
            tiles[1][$queries - 1] = Some($name::<2, $queries, 1>);
        )*
        // Of one query with one block the sums would wait for each other.
        tiles[0][0] = Some($name::<1, 1, 4>);
        tiles
    }};
}

/// The same of functions for high halves.
macro_rules! table_of_halves {
    ($name:ident: $($queries:literal)*) => {{
        let mut tiles: [Option<TileFn>; MAX_QUERIES] = [None; MAX_QUERIES];
        $(
            tiles[$queries - 1] = Some($name::<1, $queries, 1>);
        )*
        tiles[0] = Some($name::<1, 1, 2>);
        tiles
    }};
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod x86 {
    use std::arch::x86_64::*;

    use super::{BLOCK, GROUP, MAX_BLOCKS, MIDDLE, PAIR, Test, Tile, join};

    /// Codes of two groups from their high halves.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn halves_512(x: __m512i) -> [__m512i; PAIR] {
        let (high, middle) = (_mm512_set1_epi8(0xf0u8 as i8), _mm512_set1_epi8(MIDDLE as i8));
        let first = _mm512_and_si512(_mm512_slli_epi32::<4>(x), high);
        [_mm512_or_si512(first, middle), _mm512_or_si512(_mm512_and_si512(x, high), middle)]
    }

    /// The same of 8 rows.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn halves_256(x: __m256i) -> [__m256i; PAIR] {
        let (high, middle) = (_mm256_set1_epi8(0xf0u8 as i8), _mm256_set1_epi8(MIDDLE as i8));
        let first = _mm256_and_si256(_mm256_slli_epi32::<4>(x), high);
        [_mm256_or_si256(first, middle), _mm256_or_si256(_mm256_and_si256(x, high), middle)]
    }

    /// [`join`] in vectors of 64 bytes.
    #[target_feature(enable = "avx512bw")]
    pub(super) fn join_512(high: &[u8], low: &[u8], out: &mut [u8]) {
        join(high, low, out);
    }

    /// [`join`] in vectors of 32 bytes.
    #[target_feature(enable = "avx2")]
    pub(super) fn join_256(high: &[u8], low: &[u8], out: &mut [u8]) {
        join(high, low, out);
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn passes_512(sums: __m512i, scales: *const f32, errors: *const f32, test: &Test) -> u16 {
        // SAFETY: the caller's block has 16 rows.
        let (scales, errors) = unsafe { (_mm512_loadu_ps(scales), _mm512_loadu_ps(errors)) };
        let radius = _mm512_fmadd_ps(errors, _mm512_set1_ps(test.norm), _mm512_set1_ps(test.base));
        let value = _mm512_mul_ps(_mm512_cvtepi32_ps(sums), _mm512_set1_ps(test.factor));
        let upper = _mm512_fmadd_ps(scales, value, radius);
        // Not less, so that a NaN passes.
        _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(upper, _mm512_set1_ps(test.floor))
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn passes_256(sums: __m256i, scales: *const f32, errors: *const f32, test: &Test) -> i32 {
        // SAFETY: the caller's block has 8 rows from here on.
        let (scales, errors) = unsafe { (_mm256_loadu_ps(scales), _mm256_loadu_ps(errors)) };
        let radius = _mm256_fmadd_ps(errors, _mm256_set1_ps(test.norm), _mm256_set1_ps(test.base));
        let value = _mm256_mul_ps(_mm256_cvtepi32_ps(sums), _mm256_set1_ps(test.factor));
        let upper = _mm256_fmadd_ps(scales, value, radius);
        _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_NLT_UQ>(upper, _mm256_set1_ps(test.floor)))
    }

    tile!(
        #[target_feature(enable = "avx512f,avx512vnni")]
        avx512, avx512_halves, 16,
        start: _mm512_set1_epi32,
        load: |u: *const u8| _mm512_loadu_si512(u.cast()),
        halves: halves_512,
        splat: |q: *const i8| _mm512_set1_epi32(q.cast::<i32>().read_unaligned()),
        dot: _mm512_dpbusd_epi32,
        add: _mm512_add_epi32,
        store: |out: *mut i32, sums| _mm512_storeu_si512(out.cast(), sums),
        passes: passes_512
    );

    tile!(
        #[target_feature(enable = "avx2,fma,avxvnni")]
        avx_vnni, avx_vnni_halves, 8,
        start: _mm256_set1_epi32,
        load: |u: *const u8| _mm256_loadu_si256(u.cast()),
        halves: halves_256,
        splat: |q: *const i8| _mm256_set1_epi32(q.cast::<i32>().read_unaligned()),
        dot: _mm256_dpbusd_avx_epi32,
        add: _mm256_add_epi32,
        store: |out: *mut i32, sums| _mm256_storeu_si256(out.cast(), sums),
        passes: passes_256
    );

    tile!(
        #[target_feature(enable = "avx2,fma")]
        avx2, avx2_halves, 8,
        start: _mm256_set1_epi32,
        load: |u: *const u8| _mm256_loadu_si256(u.cast()),
        halves: halves_256,
        splat: |q: *const i8| _mm256_set1_epi32(q.cast::<i32>().read_unaligned()),
        dot: |sums, u, q| {
            // Digits of 64 at most: 2 · 255 · 64 fits 16 bits, so nothing saturates.
            let pairs = _mm256_maddubs_epi16(u, q);
            _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        },
        add: _mm256_add_epi32,
        store: |out: *mut i32, sums| _mm256_storeu_si256(out.cast(), sums),
        passes: passes_256
    );
}

/// `vpdpbusd`: four products for each of 16 rows in one instruction.
#[cfg(target_arch = "x86_64")]
static AVX512: Kernel = {
    use x86::{avx512, avx512_halves, join_512};
    let tiles = table!(avx512: 1 2 3 4 5 6 7 8 9 10 11 12);
    let halves = table_of_halves!(avx512_halves: 1 2 3 4 5 6 7 8 9 10 11 12);
    Kernel { name: "avx512", blocks: 2, queries: 12, tiles, halves, join: join_512 }
};

/// The same instruction for 8 rows, on processors without AVX-512.
#[cfg(target_arch = "x86_64")]
static AVX_VNNI: Kernel = {
    use x86::{avx_vnni, avx_vnni_halves, join_256};
    let (tiles, halves) = (table!(avx_vnni: 1 2 3 4 5 6), table_of_halves!(avx_vnni_halves: 1 2 3 4 5 6));
    Kernel { name: "avxvnni", blocks: 1, queries: 6, tiles, halves, join: join_256 }
};

/// Without such an instruction: three, with 16-bit sums in between.
#[cfg(target_arch = "x86_64")]
static AVX2: Kernel = {
    use x86::{avx2, avx2_halves, join_256};
    let (tiles, halves) = (table!(avx2: 1 2 3 4), table_of_halves!(avx2_halves: 1 2 3 4));
    Kernel { name: "avx2", blocks: 1, queries: 4, tiles, halves, join: join_256 }
};

#[cfg(target_arch = "aarch64")]
#[allow(unsafe_code)]
mod aarch64 {
    use std::arch::aarch64::*;

    use super::{BLOCK, GROUP, MAX_BLOCKS, MIDDLE, PAIR, Test, Tile};

    #[inline]
    #[target_feature(enable = "neon")]
    fn dot(sums: int32x4_t, u: int8x16_t, q: int8x16_t) -> int32x4_t {
        let low = vmull_s8(vget_low_s8(u), vget_low_s8(q));
        let high = vmull_high_s8(u, q);
        // Digits of 64 at most: 2 · 128 · 64 fits 16 bits.
        vpadalq_s16(sums, vpaddq_s16(low, high))
    }

    #[inline]
    #[target_feature(enable = "neon")]
    fn halves(x: int8x16_t) -> [int8x16_t; PAIR] {
        // The highest bit of the second group's half was turned when it was loaded; that of the first one's is turned here.
        let (x, high) = (vreinterpretq_u8_s8(x), vdupq_n_u8(0xf0));
        let first = veorq_u8(vshlq_n_u8::<4>(x), vdupq_n_u8(0x80));
        let (first, second) = (vandq_u8(first, high), vandq_u8(x, high));
        let middle = vdupq_n_u8(MIDDLE);
        [vreinterpretq_s8_u8(vorrq_u8(first, middle)), vreinterpretq_s8_u8(vorrq_u8(second, middle))]
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn passes(sums: int32x4_t, scales: *const f32, errors: *const f32, test: &Test) -> u32 {
        // SAFETY: the caller's block has 4 rows from here on.
        let (scales, errors) = unsafe { (vld1q_f32(scales), vld1q_f32(errors)) };
        let radius = vfmaq_f32(vdupq_n_f32(test.base), errors, vdupq_n_f32(test.norm));
        let value = vmulq_f32(vcvtq_f32_s32(sums), vdupq_n_f32(test.factor));
        let less = vcltq_f32(vfmaq_f32(radius, scales, value), vdupq_n_f32(test.floor));
        // Not less, so that a NaN passes: a bit for each lane.
        let bits = [1, 2, 4, 8];
        // SAFETY: four values are read of four.
        vaddvq_u32(vbicq_u32(unsafe { vld1q_u32(bits.as_ptr()) }, less))
    }

    tile!(
        #[target_feature(enable = "neon")]
        neon, neon_halves, 4,
        // Bytes are made signed as they are loaded, so there is nothing to take off.
        start: |_: i32| vdupq_n_s32(0),
        load: |u: *const u8| vreinterpretq_s8_u8(veorq_u8(vld1q_u8(u), vdupq_n_u8(0x80))),
        halves: halves,
        splat: |q: *const i8| vreinterpretq_s8_s32(vdupq_n_s32(q.cast::<i32>().read_unaligned())),
        dot: dot,
        add: |a, b| vaddq_s32(a, b),
        store: |out: *mut i32, sums| vst1q_s32(out, sums),
        passes: passes
    );
}

/// Widening products and pairwise sums.
#[cfg(target_arch = "aarch64")]
static NEON: Kernel = {
    use aarch64::{neon, neon_halves};
    let (tiles, halves) = (table!(neon: 1 2 3 4), table_of_halves!(neon_halves: 1 2 3 4));
    Kernel { name: "neon", blocks: 1, queries: 4, tiles, halves, join }
};

#[allow(unsafe_code)]
mod plain {
    use super::{BLOCK, GROUP, MAX_BLOCKS, MIDDLE, PAIR, Test, Tile};

    type Row = [u8; GROUP];

    fn dot(sums: [i32; 4], u: [Row; 4], q: [i8; GROUP]) -> [i32; 4] {
        std::array::from_fn(|r| {
            sums[r] + (0..GROUP).map(|i| i32::from(u[r][i]) * i32::from(q[i])).sum::<i32>()
        })
    }

    fn halves(x: [Row; 4]) -> [[Row; 4]; PAIR] {
        [x.map(|x| x.map(|u| u << 4 | MIDDLE)), x.map(|x| x.map(|u| u & 0xf0 | MIDDLE))]
    }

    unsafe fn passes(sums: [i32; 4], scales: *const f32, errors: *const f32, test: &Test) -> u32 {
        (0..4).fold(0, |bits, r| {
            // SAFETY: the caller's block has 4 rows from here on.
            let (scale, error) = unsafe { (*scales.add(r), *errors.add(r)) };
            let upper = test.upper(sums[r], scale, error);
            bits | u32::from(upper.is_nan() || upper >= test.floor) << r
        })
    }

    tile!(
        portable, portable_halves, 4,
        start: |offset: i32| [offset; 4],
        load: |u: *const u8| u.cast::<[Row; 4]>().read(),
        halves: halves,
        splat: |q: *const i8| q.cast::<[i8; GROUP]>().read(),
        dot: dot,
        add: |a: [i32; 4], b: [i32; 4]| std::array::from_fn(|r| a[r] + b[r]),
        store: |out: *mut i32, sums: [i32; 4]| out.cast::<[i32; 4]>().write(sums),
        passes: passes
    );
}

static PORTABLE: Kernel = {
    use plain::{portable, portable_halves};
    let (tiles, halves) = (table!(portable: 1 2), table_of_halves!(portable_halves: 1 2));
    Kernel { name: "portable", blocks: 1, queries: 2, tiles, halves, join }
};
