//! A layer's weight in 32-bit floats.

use super::activation::Activation;
use super::conv::{MapOutput, MapWindows, WindowWeight};
use super::gemm::{Finish, Output, Packed, Rows, Threads, multiply};
use super::packed_weight::PackedWeight;

/// A packed weight and its bias.
pub(crate) struct Float32 {
    weight: Packed,
    bias: Option<Vec<f32>>,
}

impl Float32 {
    /// From the outputs' rows of `inputs` elements, each with a factor, and a bias `[outputs]`.
    pub(super) fn from_rows<'w>(
        outputs: usize,
        inputs: usize,
        bias: Option<Vec<f32>>,
        row: impl Fn(usize) -> (&'w [f32], f32) + Sync,
    ) -> Self {
        Self { weight: Packed::from_rows(outputs, inputs, row), bias }
    }

    /// [`PackedWeight::multiply`] for rows that lie anywhere.
    pub(super) fn multiply_rows(
        &self,
        rows: Rows<'_>,
        count: usize,
        out: &mut [f32],
        add: bool,
        activation: Option<Activation>,
        threads: Threads,
    ) {
        let finish = Finish { bias: self.bias.as_deref(), add, activation };
        let stride = self.weight.columns();
        multiply(rows, count, &self.weight, &mut Output { data: out, stride }, finish, threads);
    }
}

impl PackedWeight for Float32 {
    fn inputs(&self) -> usize {
        self.weight.depth()
    }

    fn outputs(&self) -> usize {
        self.weight.columns()
    }

    fn multiply(
        &self,
        x: &[f32],
        count: usize,
        out: &mut [f32],
        add: bool,
        activation: Option<Activation>,
        threads: Threads,
    ) {
        let rows = Rows::Dense { data: x, stride: self.inputs() };
        self.multiply_rows(rows, count, out, add, activation, threads);
    }
}

impl WindowWeight for Float32 {
    fn multiply_windows(
        &self,
        windows: MapWindows<'_>,
        count: usize,
        out: MapOutput<'_>,
        activation: Option<Activation>,
        threads: Threads,
    ) {
        let (MapWindows::Floats(windows), MapOutput::Floats { data, add }) = (windows, out) else {
            unreachable!("it takes no bf16");
        };
        let rows = if windows.are_pixels() {
            Rows::Dense { data: windows.images, stride: self.inputs() }
        } else {
            Rows::Windows(windows)
        };
        self.multiply_rows(rows, count, data, add, activation, threads);
    }
}
