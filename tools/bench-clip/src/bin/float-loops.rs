//! What f32's multiply-adds reach where a tile reads its operands: `cargo run --release -p bench-clip --bin float-loops`.
//!
//! Tiles of several shapes with AVX-512 on one thread, over operands in the first and in the second cache: GFLOP/s, medians of several runs. See
//! docs/decisions/matrix-product.md.

#[path = "../peak.rs"]
mod peak;

fn main() {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") {
        return avx512::main();
    }
    println!("no AVX-512 here");
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod avx512 {
    use std::arch::x86_64::{
        _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps,
    };
    use std::hint::black_box;
    use std::time::Instant;

    /// Floats of a vector.
    const LANES: usize = 16;
    /// Runs of each loop, of which the median is printed, and multiply-adds of vectors in each, more or less.
    const RUNS: usize = 7;
    const WORK: usize = 40_000_000;

    /// Floats from one row to the next.
    fn distance(depth: usize) -> usize {
        depth + LANES
    }

    /// Adds the products of `depth` inputs of `ROWS` rows and of a panel of `VECTORS` vectors to sums in registers, `times` times.
    ///
    /// # Safety
    /// The processor must have AVX-512, `depth` a multiple of 4, `rows` be `[ROWS, distance(depth)]`, `panel` `[depth, VECTORS * 16]` and `sums` `[ROWS, VECTORS * 16]`.
    #[target_feature(enable = "avx512f")]
    unsafe fn tile<const ROWS: usize, const VECTORS: usize>(
        [rows, panel]: [*const f32; 2],
        depth: usize,
        times: usize,
        sums: *mut f32,
    ) {
        let mut sum = [[_mm512_setzero_ps(); VECTORS]; ROWS];
        // SAFETY: as promised by the caller.
        unsafe {
            let rows: [_; ROWS] = std::array::from_fn(|r| rows.add(r * distance(depth)));
            for _ in 0..times {
                let mut panel = panel;
                for k in (0..depth).step_by(4) {
                    for k in k..k + 4 {
                        let vectors: [_; VECTORS] =
                            std::array::from_fn(|v| _mm512_loadu_ps(panel.add(v * LANES)));
                        for r in 0..ROWS {
                            let x = _mm512_set1_ps(*rows[r].add(k));
                            for v in 0..VECTORS {
                                sum[r][v] = _mm512_fmadd_ps(x, vectors[v], sum[r][v]);
                            }
                        }
                        panel = panel.add(VECTORS * LANES);
                    }
                }
            }
            for r in 0..ROWS {
                for v in 0..VECTORS {
                    _mm512_storeu_ps(sums.add((r * VECTORS + v) * LANES), sum[r][v]);
                }
            }
        }
    }

    /// GFLOP/s of `run`, which multiplies and adds `vectors` vectors.
    fn rate(vectors: usize, mut run: impl FnMut()) -> f64 {
        let mut rates: Vec<f64> = (0..RUNS)
            .map(|_| {
                let start = Instant::now();
                run();
                (vectors * LANES * 2) as f64 / start.elapsed().as_secs_f64() / 1e9
            })
            .collect();
        rates.sort_by(f64::total_cmp);
        rates[RUNS / 2]
    }

    fn time<const ROWS: usize, const VECTORS: usize>(depth: usize) {
        let values = |len: usize| -> Vec<f32> {
            (0..len + LANES).map(|n| (n * 7919 % 1009) as f32 / 1009.0 - 0.5).collect()
        };
        let (rows, panel) = (values(ROWS * distance(depth)), values(depth * VECTORS * LANES));
        // At cache lines.
        let [rows, panel] = [&rows, &panel].map(|all| &all[all.as_ptr().align_offset(64).min(LANES)..]);
        let mut sums = vec![0.0; ROWS * VECTORS * LANES];
        let times = WORK / (depth * ROWS * VECTORS);
        let rate = rate(times * depth * ROWS * VECTORS, || {
            // SAFETY: `main` found AVX-512; the slices have the tile's lengths.
            unsafe {
                tile::<ROWS, VECTORS>([rows.as_ptr(), panel.as_ptr()], depth, times, sums.as_mut_ptr())
            };
            black_box(&sums);
        });
        let loads = (ROWS + VECTORS) as f64 / (ROWS * VECTORS) as f64;
        println!(
            "{ROWS:2} x {:2}, {depth:3} inputs: {rate:4.0}  ({loads:.2} loads a multiply-add)",
            VECTORS * LANES
        );
    }

    pub(super) fn main() {
        let peak = crate::peak::measure(1, RUNS as u32);
        println!("in registers alone: {peak}");
        // Panels of 16 to 24 KiB, and of 96 to 384.
        for depth in [64, 768] {
            time::<6, 4>(depth);
            time::<8, 3>(depth);
            time::<9, 3>(depth);
            time::<14, 2>(depth);
            time::<5, 5>(depth);
            time::<4, 6>(depth);
        }
    }
}
