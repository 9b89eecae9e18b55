//! What convolutions read and write: maps in 32-bit floats or in bf16, and weights that multiply their windows.

use std::ops::Range;

use crate::nn::activation::Activation;
use crate::nn::gemm::{Threads, Windows, split_rows};
use crate::nn::packed_weight::PackedWeight;

/// Maps, `[images, height, width, channels]`, in either kind of values.
#[derive(Clone, Copy)]
pub(crate) enum MapValues<'a> {
    Floats(&'a [f32]),
    Bf16(&'a [u16]),
}

impl MapValues<'_> {
    /// Some of the pixels, of so many channels.
    pub(crate) fn part(&self, pixels: Range<usize>, channels: usize) -> Self {
        let place = pixels.start * channels..pixels.end * channels;
        match self {
            Self::Floats(values) => Self::Floats(&values[place]),
            Self::Bf16(values) => Self::Bf16(&values[place]),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Floats(values) => values.len(),
            Self::Bf16(values) => values.len(),
        }
    }
}

/// A weight that multiplies images' windows, too: a convolution's.
pub(crate) trait WindowWeight: PackedWeight {
    /// Whether windows and the output may be in bf16.
    fn takes_bf16(&self) -> bool {
        false
    }

    /// `out = activation(out·add + windows · weight + bias)` for the first `count` windows. The bits are those of [`PackedWeight::multiply`] of rows in which
    /// the windows' pixels stand side by side.
    fn multiply_windows(
        &self,
        windows: MapWindows<'_>,
        count: usize,
        out: MapOutput<'_>,
        activation: Option<Activation>,
        threads: Threads,
    );
}

/// Windows of maps in 32-bit floats or, of a multiple of 32 channels, in bf16.
pub(crate) enum MapWindows<'a> {
    Floats(Windows<'a>),
    Bf16(Windows<'a, u16>),
}

/// Where a convolution writes, `[count, outputs]`.
pub(crate) enum MapOutput<'a> {
    Floats {
        data: &'a mut [f32],
        /// Whether what is there is added.
        add: bool,
    },
    /// Rounded to bf16, of a multiple of 32 outputs.
    Bf16(&'a mut [u16]),
}

impl<'a> MapOutput<'a> {
    /// All `rows` rows in as many parts: the rows of each, and where it is written.
    pub(crate) fn split(self, rows: usize, parts: usize) -> Vec<(Range<usize>, Self)> {
        match self {
            Self::Floats { data, add } => {
                let parts = split_rows(data, rows, parts).into_iter();
                parts.map(|(rows, data)| (rows, Self::Floats { data, add })).collect()
            }
            Self::Bf16(data) => {
                let parts = split_rows(data, rows, parts).into_iter();
                parts.map(|(rows, data)| (rows, Self::Bf16(data))).collect()
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Floats { data, .. } => data.len(),
            Self::Bf16(data) => data.len(),
        }
    }
}
