//! Activation functions, in place.

use rayon::prelude::*;
use rten_simd::ops::{BitOps, FloatOps, NumOps};
use rten_simd::{Isa, SimdOp, SimdUnaryOp};
use rten_vecmath::{ApproxGelu, Exp, Gelu, Silu};

use super::gemm::Threads;

/// An element-wise activation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activation {
    /// max(x, 0).
    Relu,
    /// min(max(x, 0), 6), of MobileNet and EfficientNet-Lite.
    Relu6,
    /// x Φ(x), with the error function rather than the tanh approximation.
    Gelu,
    /// x σ(1.702 x), OpenAI's approximation of GELU.
    QuickGelu,
    /// x / 2 (1 + tanh(√(2/π) (x + 0.044715 x³))), GELU's approximation by tanh.
    GeluTanh,
}

impl Activation {
    /// Its name, for display.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Relu => "ReLU",
            Self::Relu6 => "ReLU6",
            Self::Gelu => "GELU",
            Self::QuickGelu => "QuickGELU",
            Self::GeluTanh => "GELU by tanh",
        }
    }

    /// The largest value of an activation that only clamps, from zero on: sums are clamped before they are stored.
    pub(crate) fn ceiling(self) -> Option<f32> {
        match self {
            Self::Relu => Some(f32::INFINITY),
            Self::Relu6 => Some(6.0),
            Self::Gelu | Self::QuickGelu | Self::GeluTanh => None,
        }
    }

    /// Applies the activation to all values.
    pub(crate) fn apply(self, x: &mut [f32]) {
        // SAFETY: one row, of all elements, which is borrowed.
        #[allow(unsafe_code)]
        unsafe {
            self.apply_rows(x.as_mut_ptr(), x.len(), 1, x.len());
        }
    }

    /// Applies the activation to `rows` rows of `columns` elements, `stride` elements apart.
    ///
    /// # Safety
    /// The rows must be valid for reads and writes, and no other thread may touch them meanwhile.
    #[allow(unsafe_code)]
    pub(crate) unsafe fn apply_rows(self, x: *mut f32, stride: usize, rows: usize, columns: usize) {
        match self {
            Activation::Relu => MapRows { op: Relu, x, stride, rows, columns }.dispatch(),
            Activation::Relu6 => MapRows { op: Relu6, x, stride, rows, columns }.dispatch(),
            Activation::Gelu => MapRows { op: Gelu {}, x, stride, rows, columns }.dispatch(),
            Activation::QuickGelu => MapRows { op: QuickGelu, x, stride, rows, columns }.dispatch(),
            Activation::GeluTanh => MapRows { op: ApproxGelu {}, x, stride, rows, columns }.dispatch(),
        }
    }
}

/// Elements from which on a second thread is worth using.
const MIN_PARALLEL: usize = 1 << 16;

/// out = silu(gate) · value, where silu(x) = x σ(x); `x` is `[rows, 2 * width]`, gate and value side by side, `out` `[rows, width]`.
pub(crate) fn gate(x: &[f32], out: &mut [f32], width: usize, threads: Threads) {
    assert_eq!(x.len(), 2 * out.len());
    let rows = |(x, out): (&[f32], &mut [f32])| {
        for (row, out) in x.chunks_exact(2 * width).zip(out.chunks_exact_mut(width)) {
            let (gate, value) = row.split_at(width);
            out.copy_from_slice(gate);
            Silu {}.map_mut(out);
            out.iter_mut().zip(value).for_each(|(o, v)| *o *= v);
        }
    };
    if threads == Threads::One || out.len() < MIN_PARALLEL {
        return rows((x, out));
    }
    let part = (out.len() / width).div_ceil(2 * rayon::current_num_threads()) * width;
    x.par_chunks(2 * part).zip(out.par_chunks_mut(part)).for_each(rows);
}

struct MapRows<Op> {
    op: Op,
    x: *mut f32,
    stride: usize,
    rows: usize,
    columns: usize,
}

impl<Op: SimdUnaryOp<f32>> SimdOp for MapRows<Op> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let ops = isa.f32();
        for r in 0..self.rows {
            // SAFETY: the caller of `apply_rows` promises that the rows are valid; the mask keeps the last vector inside its row.
            #[allow(unsafe_code)]
            unsafe {
                let row = self.x.add(r * self.stride);
                let mut c = 0;
                while c + ops.len() <= self.columns {
                    ops.store_ptr(self.op.eval(isa, ops.load_ptr(row.add(c))), row.add(c));
                    c += ops.len();
                }
                if c < self.columns {
                    let mask = ops.first_n_mask(self.columns - c);
                    let y = self.op.eval(isa, ops.load_ptr_mask(row.add(c), mask));
                    ops.store_ptr_mask(y, row.add(c), mask);
                }
            }
        }
    }
}

struct Relu;

impl SimdUnaryOp<f32> for Relu {
    #[inline(always)]
    fn eval<I: Isa>(&self, isa: I, x: I::F32) -> I::F32 {
        let ops = isa.f32();
        ops.max(x, ops.zero())
    }
}

struct QuickGelu;

impl SimdUnaryOp<f32> for QuickGelu {
    #[inline(always)]
    fn eval<I: Isa>(&self, isa: I, x: I::F32) -> I::F32 {
        let ops = isa.f32();
        let exp = Exp::apply(isa, ops.mul(x, ops.splat(-1.702)));
        ops.div(x, ops.add(exp, ops.one()))
    }
}

struct Relu6;

impl SimdUnaryOp<f32> for Relu6 {
    #[inline(always)]
    fn eval<I: Isa>(&self, isa: I, x: I::F32) -> I::F32 {
        let ops = isa.f32();
        ops.min(ops.max(x, ops.zero()), ops.splat(6.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(activation: Activation, x: &[f32]) -> Vec<f32> {
        let mut y = x.to_vec();
        activation.apply(&mut y);
        y
    }

    #[test]
    fn quick_gelu_matches_f64_far_out_too() {
        let x: Vec<f32> = (-600..600).map(|i| i as f32 * 0.2).collect();
        for (x, y) in x.iter().zip(applied(Activation::QuickGelu, &x)) {
            let x = f64::from(*x);
            let want = x / (1.0 + (-1.702 * x).exp());
            assert!((f64::from(y) - want).abs() <= 2e-6 * want.abs().max(1e-3), "{x}: {y} {want}");
        }
    }

    #[test]
    fn gelu_by_tanh_matches_f64_far_out_too() {
        let x: Vec<f32> = (-600..600).map(|i| i as f32 * 0.05).collect();
        for (x, y) in x.iter().zip(applied(Activation::GeluTanh, &x)) {
            let x = f64::from(*x);
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
            let want = 0.5 * x * (1.0 + inner.tanh());
            assert!((f64::from(y) - want).abs() <= 2e-6 * want.abs().max(0.25), "{x}: {y} {want}");
        }
    }

    #[test]
    fn gates_match_f64_far_out_too() {
        let (width, rows) = (37, 2000);
        let x: Vec<f32> = (0..2 * width * rows).map(|i| ((i * 7919 % 4001) as f32 - 2000.0) * 0.06).collect();
        let mut y = vec![0.0; width * rows];
        gate(&x, &mut y, width, Threads::One);
        let mut parallel = vec![0.0; width * rows];
        gate(&x, &mut parallel, width, Threads::Pool);
        assert!(y == parallel);
        for (x, y) in x.chunks(2 * width).zip(y.chunks(width)) {
            for c in 0..width {
                let (gate, value) = (f64::from(x[c]), f64::from(x[width + c]));
                let want = gate / (1.0 + (-gate).exp()) * value;
                assert!((f64::from(y[c]) - want).abs() <= 1e-6 * want.abs().max(1e-3), "{} {want}", y[c]);
            }
        }
    }

    #[test]
    fn relu6_clamps_every_lane() {
        let x: Vec<f32> = (-20..20).map(|i| i as f32 * 0.5).collect();
        let expected: Vec<f32> = x.iter().map(|v| v.clamp(0.0, 6.0)).collect();
        assert_eq!(applied(Activation::Relu6, &x), expected);
    }

    #[test]
    fn gelu_matches_known_values() {
        // x Φ(x) from tables of the normal distribution: Φ(1) = .8413447461, Φ(2) = .9772498681.
        let x = applied(Activation::Gelu, &[0.0, 1.0, -1.0, 2.0, 10.0, -10.0]);
        for (found, expected) in x.iter().zip([0.0, 0.841_344_8, -0.158_655_25, 1.954_499_7, 10.0, 0.0]) {
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
    }
}
