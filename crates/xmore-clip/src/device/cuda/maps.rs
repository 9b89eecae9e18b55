//! Convolutions and pooling on a card, over all images of a batch at once.

use xmore_cuda::{Arg, Launch, Source};

use crate::nn::conv::{Size, Window};

use super::layers::{CudaConv, CudaDepthwise};
use super::run::{CudaRun, Rows, Scratch};
use super::{Images, code};
use crate::nn::activation::Activation;

/// Channels-last images `[count, height, width, channels]` in one of three buffers.
pub(crate) struct CudaMap {
    buffer: usize,
    pub(super) count: usize,
    pub(super) size: Size,
    pub(super) channels: usize,
}

impl CudaMap {
    /// A buffer before it is written.
    pub(super) fn empty(buffer: usize) -> Self {
        Self { buffer, count: 0, size: Size { height: 0, width: 0 }, channels: 0 }
    }
}

impl CudaRun<'_> {
    /// Where a map is on the card.
    pub(super) fn map_pointer(&mut self, map: &CudaMap) -> u64 {
        self.scratch(Scratch::Maps as usize + map.buffer, 0)
    }

    /// A map's positions as rows.
    fn map_rows(&mut self, map: &CudaMap) -> Rows {
        Rows {
            pointer: self.map_pointer(map),
            rows: map.count * map.size.area(),
            width: map.channels,
            scales: 0,
        }
    }

    /// Gives a map its shape, and memory for it.
    fn shape(&mut self, map: &mut CudaMap, count: usize, size: Size, channels: usize) -> Rows {
        (map.count, map.size, map.channels) = (count, size, channels);
        let bytes = (count * size.area()).next_multiple_of(super::run::ROWS) * channels * self.bytes();
        let pointer = self.scratch(Scratch::Maps as usize + map.buffer, bytes);
        Rows { pointer, rows: count * size.area(), width: channels, scales: 0 }
    }

    pub(super) fn conv_images(&mut self, conv: &CudaConv, images: Images, size: Size, out: &mut CudaMap) {
        // The windows are gathered by the kernel that lays out patches' neighbors, after one conversion to elements.
        let pixels = self.scratch_rows(Scratch::Embedded, images.count * size.area(), 3);
        let count = images.count * size.area() * 3;
        let [from, table, to] = [images.pointer, images.table, pixels.pointer].map(Arg::Pointer);
        let launch = Launch::threads(count, 256);
        let count = Arg::I64(count as i64);
        if images.are_bytes() {
            self.launch(Source::Rows, "from_bytes", launch, &[from, table, to, count]);
        } else {
            self.launch(Source::Rows, "from_f32_rows", launch, &[from, to, count]);
        }
        self.convolve(conv, pixels.pointer, images.count, size, out);
    }

    pub(super) fn conv_into(&mut self, conv: &CudaConv, x: &CudaMap, out: &mut CudaMap) {
        let pointer = self.map_pointer(x);
        self.convolve(conv, pointer, x.count, x.size, out);
    }

    fn convolve(&mut self, conv: &CudaConv, x: u64, count: usize, size: Size, out: &mut CudaMap) {
        let result = self.shape(out, count, conv.window.output(size), conv.linear.outputs);
        let input = self.windows(conv, x, count, size);
        self.multiply(&conv.linear, input, result, false);
        self.activate(result, conv.activation);
    }

    pub(super) fn conv_add(&mut self, conv: &CudaConv, x: &CudaMap, out: &CudaMap) {
        debug_assert!(is_point(conv.window));
        let pointer = self.map_pointer(x);
        let (input, result) = (self.windows(conv, pointer, x.count, x.size), self.map_rows(out));
        self.multiply(&conv.linear, input, result, true);
        self.activate(result, conv.activation);
    }

    /// What a convolution multiplies: the pixels under each output position side by side, with zeros behind them, or the image itself where that is the same.
    fn windows(&mut self, conv: &CudaConv, x: u64, count: usize, size: Size) -> Rows {
        let to = conv.window.output(size);
        let (rows, columns) = (count * to.area(), conv.linear.padded_inputs());
        if is_point(conv.window) && columns == conv.channels {
            return Rows { pointer: x, rows, width: columns, scales: 0 };
        }
        let gathered = self.scratch_rows(Scratch::Columns, rows, columns);
        let [top, left] = [size.height, size.width].map(|n| conv.window.padding_before(n));
        let args = [
            Arg::Pointer(x),
            Arg::Pointer(gathered.pointer),
            count.into(),
            size.height.into(),
            size.width.into(),
            conv.channels.into(),
            conv.window.kernel.into(),
            conv.window.stride.into(),
            top.into(),
            left.into(),
            to.height.into(),
            to.width.into(),
            columns.into(),
        ];
        self.launch(Source::Convolution, "windows", Launch::threads(rows * columns, 256), &args);
        gathered
    }

    pub(super) fn depthwise_into(&mut self, conv: &CudaDepthwise, x: &CudaMap, out: &mut CudaMap) {
        let to = conv.window.output(x.size);
        let from = self.map_pointer(x);
        let result = self.shape(out, x.count, to, x.channels);
        let [top, left] = [x.size.height, x.size.width].map(|n| conv.window.padding_before(n));
        let args = [
            Arg::Pointer(from),
            Arg::Pointer(conv.weight.pointer()),
            Arg::Pointer(conv.bias.pointer()),
            Arg::Pointer(result.pointer),
            x.count.into(),
            x.size.height.into(),
            x.size.width.into(),
            x.channels.into(),
            conv.window.kernel.into(),
            conv.window.stride.into(),
            top.into(),
            left.into(),
            to.height.into(),
            to.width.into(),
            Arg::I32(code(Some(Activation::Relu6))),
        ];
        let threads = result.rows * result.width;
        self.launch(Source::Convolution, "depthwise", Launch::threads(threads, 256), &args);
    }

    pub(super) fn average_pool(&mut self, x: &CudaMap, side: usize, out: &mut CudaMap) {
        let to = Size { height: x.size.height / side, width: x.size.width / side };
        let from = self.map_pointer(x);
        let result = self.shape(out, x.count, to, x.channels);
        let args = [
            Arg::Pointer(from),
            Arg::Pointer(result.pointer),
            x.count.into(),
            x.size.height.into(),
            x.size.width.into(),
            x.channels.into(),
            side.into(),
        ];
        let threads = result.rows * result.width;
        self.launch(Source::Convolution, "average_pool", Launch::threads(threads, 256), &args);
    }

    pub(super) fn mean_pool(&mut self, x: &CudaMap, out: &mut CudaMap) {
        let from = self.map_rows(x);
        let sequences = self.sequences(&vec![x.size.area(); x.count]);
        let result = self.shape(out, x.count, Size { height: 1, width: 1 }, x.channels);
        self.mean_rows(from, &sequences, result, false);
    }
}

/// Whether each output is of one input position alone.
fn is_point(window: Window) -> bool {
    window.kernel == 1 && window.stride == 1
}
