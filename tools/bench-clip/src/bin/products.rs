//! The matrix product alone, ours in f32 and bf16 and two crates' in f32, on the shapes of ViT-B/16, ViT-B/32 and RN50, in turn, medians, in GFLOP/s.
//!
//! `cargo run --release -p bench-clip --bin products -- [THREADS]`

use gemm::Parallelism;
use rten_gemm::{GemmExecutor, GemmInputA, GemmInputB, GemmOptions};
use rten_tensor::NdTensorView;
use xmore_clip::{Precision, time_products};

/// Rows, inputs, outputs.
const SHAPES: [[usize; 3]; 12] = [
    [197, 768, 768],
    [197, 768, 2304],
    [197, 768, 3072],
    [197, 3072, 768],
    [1576, 768, 3072],
    [1576, 3072, 768],
    [50, 768, 3072],
    [50, 3072, 768],
    [3136, 64, 256],
    [784, 512, 128],
    [196, 1024, 256],
    [49, 512, 2048],
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let threads = std::env::args().nth(1).map_or(Ok(2), |n| n.parse())?;
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    println!(
        "{threads} threads, GFLOP/s\n{:<20}{:>8}{:>8}{:>12}{:>8}",
        "rows x in x out", "ours", "bf16", "rten-gemm", "gemm"
    );
    for shape @ [m, k, n] in SHAPES {
        let flops = 2.0 * (m * k * n) as f64;
        let runs = ((2e10 / flops) as usize).clamp(9, 301);
        let value = |i: usize| (i * 7919 % 1009) as f32 / 1009.0 - 0.5;
        let a: Vec<f32> = (0..m * k).map(value).collect();
        let b: Vec<f32> = (0..k * n).map(value).collect();
        let (mut c, mut d) = (vec![0f32; m * n], vec![0f32; m * n]);
        let packed = GemmExecutor::<f32>::new().prepack_b(NdTensorView::from_data([k, n], &b[..]));
        let mut rten = || {
            let a = GemmInputA::Unpacked(NdTensorView::from_data([m, k], &a[..]));
            let executor = GemmExecutor::<f32>::new();
            executor
                .gemm(&mut c, a, GemmInputB::Packed(&packed), GemmOptions::default())
                .expect("the shapes agree");
        };
        let mut plain = || {
            let (rows, columns, depth) = (m as isize, n as isize, k as isize);
            assert!(d.len() == m * n && a.len() == m * k && b.len() == k * n && rows > 0);
            // SAFETY: row-major matrices of these very shapes.
            #[allow(unsafe_code)]
            unsafe {
                gemm::gemm(
                    m,
                    n,
                    k,
                    d.as_mut_ptr(),
                    1,
                    columns,
                    false,
                    a.as_ptr(),
                    1,
                    depth,
                    b.as_ptr(),
                    1,
                    columns,
                    0f32,
                    1f32,
                    false,
                    false,
                    false,
                    Parallelism::Rayon(threads),
                );
            }
        };
        let times =
            time_products(shape, &[Precision::F32, Precision::Bf16], runs, &mut [&mut rten, &mut plain]);
        let rates = times.into_iter().map(|mut times| {
            times.sort_by(f64::total_cmp);
            flops / times[times.len() / 2] / 1e9
        });
        let [ours, bf16, rten, plain] = rates.collect::<Vec<_>>()[..] else {
            return Err("four engines".into());
        };
        println!("{:<20}{ours:>8.0}{bf16:>8.0}{rten:>12.0}{plain:>8.0}", format!("{m} x {k} x {n}"));
    }
    Ok(())
}
