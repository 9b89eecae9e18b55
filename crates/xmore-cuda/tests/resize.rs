//! Resampling on a card gives the bytes of the same formula on the processor. Without a card these tests are skipped.

mod common;

use xmore_cuda::{Buffer, Device, Pixels, ResizeImage, Resizer, Stream, Taps};

/// Bits of a coefficient's fraction.
const FRACTION: u32 = 22;

/// An input position and the weights from there on.
type Position = (usize, Vec<i32>);

/// An image, what it is resized to, the region of that which is wanted, and where that is in the square.
#[derive(Clone)]
struct Case {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
    to: (usize, usize),
    region: [usize; 4],
    place: (usize, usize),
}

impl Case {
    fn new(width: usize, height: usize, to: (usize, usize), region: [usize; 4]) -> Self {
        Self { width, height, pixels: noise(width * height * 3), to, region, place: (0, 0) }
    }

    /// Short side to `side`, the middle of the rest.
    fn cropped(width: usize, height: usize, side: usize) -> Self {
        let short = width.min(height);
        let to = (side * width / short, side * height / short);
        Self::new(width, height, to, [(to.0 - side) / 2, (to.1 - side) / 2, side, side])
    }

    fn columns(&self) -> Vec<Position> {
        positions(self.width, self.to.0, self.region[0], self.region[2])
    }

    fn rows(&self) -> Vec<Position> {
        positions(self.height, self.to.1, self.region[1], self.region[3])
    }

    /// The square that it becomes.
    fn expected(&self, side: usize, fill: u8) -> Vec<u8> {
        let (columns, rows) = (self.columns(), self.rows());
        let mut narrow = vec![0u8; self.height * columns.len() * 3];
        for (y, out) in narrow.chunks_exact_mut((columns.len() * 3).max(1)).enumerate() {
            for (x, position) in columns.iter().enumerate() {
                for c in 0..3 {
                    out[x * 3 + c] = sum(position, |at| self.pixels[(y * self.width + at) * 3 + c]);
                }
            }
        }
        let mut square = vec![fill; side * side * 3];
        for (y, position) in rows.iter().enumerate() {
            for x in 0..columns.len() * 3 {
                let at = ((self.place.1 + y) * side + self.place.0) * 3 + x;
                square[at] = sum(position, |row| narrow[row * columns.len() * 3 + x]);
            }
        }
        square
    }
}

fn sum((first, weights): &Position, value: impl Fn(usize) -> u8) -> u8 {
    let sum = weights
        .iter()
        .enumerate()
        .fold(1 << (FRACTION - 1), |sum: i32, (k, &weight)| sum + i32::from(value(first + k)) * weight);
    (sum >> FRACTION).clamp(0, 255) as u8
}

/// Pillow's coefficients of the bicubic filter with a = -0.5, for the output positions `start..start + count`.
fn positions(input: usize, output: usize, start: usize, count: usize) -> Vec<Position> {
    if input == output {
        return (start..start + count).map(|x| (x, vec![1 << FRACTION])).collect();
    }
    let scale = input as f64 / output as f64;
    let filter_scale = scale.max(1.0);
    let support = 2.0 * filter_scale;
    let bicubic = |x: f64| match x.abs() {
        x if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
        x if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5,
        _ => 0.0,
    };
    let position = |x: usize| {
        let center = (x as f64 + 0.5) * scale;
        let first = ((center - support + 0.5) as i64).max(0);
        let last = ((center + support + 0.5) as i64).min(input as i64);
        let weights: Vec<f64> =
            (first..last).map(|i| bicubic((i as f64 - center + 0.5) / filter_scale)).collect();
        let total: f64 = weights.iter().sum();
        let fixed = |weight: &f64| (weight / total * f64::from(1 << FRACTION)).round() as i32;
        (first as usize, weights.iter().map(fixed).collect())
    };
    (start..start + count).map(position).collect()
}

/// Bytes without a pattern, extremes among them.
fn noise(length: usize) -> Vec<u8> {
    let mut state = length as u32 | 1;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length)
        .map(|_| match next() {
            0..64 => 0,
            192.. => 255,
            byte => byte,
        })
        .collect()
}

/// Resizes images of this machine and compares each with what is expected.
fn check(device: &Device, resizer: &mut Resizer, side: usize, fill: u8, cases: &[Case]) {
    let stream = Stream::new(device).expect("a stream");
    let taps: Vec<_> =
        cases.iter().map(|case| (Taps::new(&case.columns()), Taps::new(&case.rows()))).collect();
    let images: Vec<_> = cases
        .iter()
        .zip(&taps)
        .map(|(case, (columns, rows))| ResizeImage {
            pixels: Pixels::Host(&case.pixels),
            width: case.width,
            height: case.height,
            columns,
            rows,
            x: case.place.0,
            y: case.place.1,
        })
        .collect();
    let out = Buffer::new(device, cases.len() * resizer.square_bytes()).expect("memory");
    resizer.resize(&stream, &images, &out).expect("a batch");
    compare(&stream, &out, side, fill, cases);
}

fn compare(stream: &Stream, out: &Buffer, side: usize, fill: u8, cases: &[Case]) {
    let mut bytes = vec![0u8; cases.len() * side * side * 3];
    out.read(stream, 0, &mut bytes).expect("the result");
    for (i, (case, square)) in cases.iter().zip(bytes.chunks_exact(side * side * 3)).enumerate() {
        let expected = case.expected(side, fill);
        let differs = square.iter().zip(&expected).position(|(a, b)| a != b);
        let Case { width, height, to, region, .. } = case;
        let bytes = differs.map(|at| (at, square[at], expected[at]));
        assert_eq!(bytes, None, "image {i}: {width} x {height} to {to:?}, {region:?}: byte, found, expected");
    }
}

#[test]
fn each_shape_gives_the_bytes_of_the_formula() {
    let Some(device) = common::device() else { return };
    for side in [224, 30, 33] {
        let mut resizer = Resizer::new(&device, side, 0).expect("kernels");
        let s = side;
        let cases = [
            Case::cropped(640, 480, s),
            Case::cropped(333, 500, s),
            Case::cropped(17, 23, s),
            Case::cropped(1, 1, s),
            Case::cropped(s, s, s),
            Case::cropped(s + 1, s, s),
            Case::cropped(s, 3 * s, s),
            // Rows too long for shared memory.
            Case::cropped(2600, 300, s),
            Case::cropped(5001, 40, s),
            // Squashed: 60 times as wide as high.
            Case::new(3000, 50, (s, s), [0, 0, s, s]),
            // More than one round of the blocks for an image.
            Case::new(3, 4000, (s, s), [0, 0, s, s]),
            Case::new(1, 9000, (s, 9000 * s), [0, 4500 * s, s, s]),
            Case::new(9000, 1, (9000 * s, s), [8999 * s, 0, s, s]),
        ];
        for case in &cases {
            check(&device, &mut resizer, side, 0, std::slice::from_ref(case));
        }
        check(&device, &mut resizer, side, 0, &cases);
    }
}

#[test]
fn a_result_smaller_than_the_square_stands_in_its_fill_color() {
    let Some(device) = common::device() else { return };
    for (side, fill) in [(64, 114), (35, 255)] {
        let mut resizer = Resizer::new(&device, side, fill).expect("kernels");
        let cases: Vec<_> = [(side, 20, 0, 7), (20, side, 5, 0), (13, 9, 11, 3), (1, 1, side - 1, side - 1)]
            .into_iter()
            .map(|(width, height, x, y)| {
                let case = Case::new(90, 70, (width, height), [0, 0, width, height]);
                Case { place: (x, y), ..case }
            })
            .collect();
        check(&device, &mut resizer, side, fill, &cases);
    }
}

#[test]
fn batches_after_one_another_on_several_streams_do_not_mix() {
    let Some(device) = common::device() else { return };
    let side = 96;
    let mut resizer = Resizer::new(&device, side, 0).expect("kernels");
    let batches: Vec<Vec<Case>> = (1..6)
        .map(|n| (0..5 * n).map(|i| Case::cropped(100 + 37 * i, 90 + 11 * n, side)).collect())
        .collect();
    let streams: Vec<_> = batches.iter().map(|_| Stream::new(&device).expect("a stream")).collect();
    let mut outs = Vec::new();
    for (stream, cases) in streams.iter().zip(&batches) {
        let taps: Vec<_> =
            cases.iter().map(|case| (Taps::new(&case.columns()), Taps::new(&case.rows()))).collect();
        let images: Vec<_> = cases
            .iter()
            .zip(&taps)
            .map(|(case, (columns, rows))| ResizeImage {
                pixels: Pixels::Host(&case.pixels),
                width: case.width,
                height: case.height,
                columns,
                rows,
                x: 0,
                y: 0,
            })
            .collect();
        let out = Buffer::new(&device, cases.len() * resizer.square_bytes()).expect("memory");
        resizer.resize(stream, &images, &out).expect("a batch");
        outs.push(out);
    }
    for ((stream, out), cases) in streams.iter().zip(&outs).zip(&batches) {
        compare(stream, out, side, 0, cases);
    }
}

#[test]
fn pixels_on_the_card_are_read_from_any_corner_in_both_directions() {
    let Some(device) = common::device() else { return };
    let (width, height, side, offset) = (150usize, 101usize, 48, 19);
    let stored = noise(width * height * 3);
    let buffer = Buffer::of(&device, &[vec![0; offset], stored.clone()].concat()).expect("memory");
    let stream = Stream::new(&device).expect("a stream");
    let mut resizer = Resizer::new(&device, side, 0).expect("kernels");
    let (w, h) = (width as isize, height as isize);
    // The first pixel, and the steps to the right and down, in pixels.
    let turns = [
        (0, 1, w),
        (w - 1, -1, w),
        (w * h - 1, -1, -w),
        (w * (h - 1), 1, -w),
        (0, w, 1),
        (w * (h - 1), -w, 1),
        (w * h - 1, -w, -1),
        (w - 1, w, -1),
    ];
    let cases: Vec<Case> = turns
        .iter()
        .map(|&(first, right, down)| {
            let (wide, high) = if right.abs() == 1 { (width, height) } else { (height, width) };
            let pixel = |x: usize, y: usize| (first + x as isize * right + y as isize * down) as usize;
            let pixels = (0..wide * high).flat_map(|i| {
                let at = pixel(i % wide, i / wide) * 3;
                [stored[at], stored[at + 1], stored[at + 2]]
            });
            Case { pixels: pixels.collect(), ..Case::cropped(wide, high, side) }
        })
        .collect();
    let taps: Vec<_> =
        cases.iter().map(|case| (Taps::new(&case.columns()), Taps::new(&case.rows()))).collect();
    let images: Vec<_> = cases
        .iter()
        .zip(&turns)
        .zip(&taps)
        .map(|((case, &(first, right, down)), (columns, rows))| ResizeImage {
            pixels: Pixels::Device {
                buffer: &buffer,
                offset: offset + first as usize * 3,
                x_step: right * 3,
                y_step: down * 3,
            },
            width: case.width,
            height: case.height,
            columns,
            rows,
            x: 0,
            y: 0,
        })
        .collect();
    let out = Buffer::new(&device, cases.len() * resizer.square_bytes()).expect("memory");
    resizer.resize(&stream, &images, &out).expect("a batch");
    compare(&stream, &out, side, 0, &cases);
}
