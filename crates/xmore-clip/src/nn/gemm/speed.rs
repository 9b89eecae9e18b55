//! One product again and again, for the program that compares this crate's with others'.

use std::time::Instant;

use super::{Finish, Output, Packed, Rows, Threads, multiply};

/// Multiplies `[rows, inputs]` with a packed weight `[inputs, outputs]` over and over, in turn with `others`; returns the seconds of each run,
/// this crate's first.
#[doc(hidden)]
pub fn time_products(
    [rows, inputs, outputs]: [usize; 3],
    runs: usize,
    others: &mut [&mut dyn FnMut()],
) -> Vec<Vec<f64>> {
    let value = |i: usize| (i * 7919 % 1009) as f32 / 1009.0 - 0.5;
    let x: Vec<f32> = (0..rows * inputs).map(value).collect();
    let weight: Vec<f32> = (0..outputs * inputs).map(value).collect();
    let packed = Packed::from_rows(outputs, inputs, |o| (&weight[o * inputs..(o + 1) * inputs], 1.0));
    let mut out = vec![0.0; rows * outputs];
    let mut ours = || {
        let mut out = Output { data: &mut out, stride: outputs };
        let rows_of_x = Rows::Dense { data: &x, stride: inputs };
        multiply(rows_of_x, rows, &packed, &mut out, Finish::default(), Threads::Pool);
    };
    let mut times = vec![Vec::new(); others.len() + 1];
    for _ in 0..runs {
        let mut time = |n: usize, run: &mut dyn FnMut()| {
            let start = Instant::now();
            run();
            times[n].push(start.elapsed().as_secs_f64());
        };
        time(0, &mut ours);
        others.iter_mut().enumerate().for_each(|(n, other)| time(n + 1, other));
    }
    times
}
