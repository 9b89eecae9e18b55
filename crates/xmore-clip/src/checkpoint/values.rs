//! Stored bytes to f32 values: conversion, views in row-major order, and the search for values that are no numbers.

use std::borrow::Cow;

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::tensor::Dtype;

/// Elements that are converted or searched at a time: stays in the first cache.
const CHUNK: usize = 2048;

/// The elements of `bytes` as f32; borrowed where that needs no conversion. `None` if they are not floats.
pub(super) fn floats(bytes: &[u8], dtype: Dtype) -> Option<Cow<'_, [f32]>> {
    if dtype == Dtype::F32
        && cfg!(target_endian = "little")
        && let Ok(floats) = bytemuck::try_cast_slice(bytes)
    {
        return Some(Cow::Borrowed(floats));
    }
    if matches!(dtype, Dtype::Other(_)) {
        return None;
    }
    let mut out = vec![0.0; bytes.len() / dtype.size()];
    convert(bytes, dtype, &mut out);
    Some(Cow::Owned(out))
}

/// Writes the elements of `bytes`, which are floats of type `dtype`, to `out`, which has as many.
pub(super) fn convert(bytes: &[u8], dtype: Dtype, out: &mut [f32]) {
    match dtype {
        Dtype::F32 => decode(bytes, out, f32::from_le_bytes),
        Dtype::F16 => {
            // By the slice, which uses the processor's instruction; through a buffer where the bytes are not aligned.
            if cfg!(target_endian = "little")
                && let Ok(halves) = bytemuck::try_cast_slice::<u8, f16>(bytes)
            {
                return halves.convert_to_f32_slice(out);
            }
            let mut halves = [f16::ZERO; CHUNK];
            for (bytes, out) in bytes.chunks(2 * CHUNK).zip(out.chunks_mut(CHUNK)) {
                let halves = &mut halves[..out.len()];
                for (half, &b) in halves.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *half = f16::from_le_bytes(b);
                }
                halves.convert_to_f32_slice(out);
            }
        }
        Dtype::Bf16 => decode(bytes, out, |b| f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16)),
        Dtype::F64 => decode(bytes, out, |b| f64::from_le_bytes(b) as f32),
        Dtype::Other(_) => unreachable!("callers check that a tensor holds floats"),
    }
}

fn decode<const N: usize>(bytes: &[u8], out: &mut [f32], f: impl Fn([u8; N]) -> f32) {
    for (o, &b) in out.iter_mut().zip(bytes.as_chunks::<N>().0) {
        *o = f(b);
    }
}

/// A view's elements in row-major order.
pub(super) fn gather(data: &[f32], shape: &[usize], strides: &[usize]) -> Vec<f32> {
    let total: usize = shape.iter().product();
    let mut out = Vec::with_capacity(total);
    let (Some((&inner, outer)), Some((&step, outer_strides))) = (shape.split_last(), strides.split_last())
    else {
        out.extend(data.first());
        return out;
    };
    let mut index = vec![0; outer.len()];
    let mut start = 0;
    while out.len() < total {
        out.extend((0..inner).map(|i| data[start + i * step]));
        // The next row, as an odometer counts.
        for d in (0..outer.len()).rev() {
            index[d] += 1;
            start += outer_strides[d];
            if index[d] < outer[d] {
                break;
            }
            start -= index[d] * outer_strides[d];
            index[d] = 0;
        }
    }
    out
}

/// How many values are NaN or infinite, and which is the first; `None` if all are numbers.
pub(super) fn not_finite(values: &[f32]) -> Option<(usize, usize)> {
    // Whole chunks without a branch, so that the compiler uses vector instructions.
    let bad = |value: &f32| value.to_bits() & 0x7f80_0000 == 0x7f80_0000;
    let clean = values.chunks(CHUNK).all(|chunk| !chunk.iter().fold(false, |any, value| any | bad(value)));
    if clean {
        return None;
    }
    let first = values.iter().position(bad)?;
    Some((values[first..].iter().filter(|v| bad(v)).count(), first))
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn conversions_are_those_of_the_half_crate(bits in proptest::collection::vec(any::<u16>(), 0..5000)) {
            // One byte before, so that both ways to read them are taken, whatever the allocation's alignment.
            let mut bytes: Vec<u8> = vec![0];
            bytes.extend(bits.iter().flat_map(|b| b.to_le_bytes()));
            let unaligned = floats(&bytes[1..], Dtype::F16).unwrap().into_owned();
            bytes.remove(0);
            let same = |found: &[f32], expected: Vec<f32>| {
                found.len() == expected.len()
                    && found.iter().zip(&expected).all(|(a, b)| a == b || (a.is_nan() && b.is_nan()))
            };
            let halves = floats(&bytes, Dtype::F16).unwrap();
            prop_assert!(same(&halves, unaligned));
            prop_assert!(same(&halves, bits.iter().map(|&b| f16::from_bits(b).to_f32()).collect()));
            let brains = floats(&bytes, Dtype::Bf16).unwrap();
            prop_assert!(same(&brains, bits.iter().map(|&b| bf16::from_bits(b).to_f32()).collect()));
        }

        #[test]
        fn every_value_that_is_no_number_is_counted(
            len in 1usize..7000,
            places in proptest::collection::btree_set(0usize..7000, 0..4),
            kind in 0usize..3,
        ) {
            let mut values: Vec<f32> = (0..len).map(|i| if i % 3 == 0 { f32::MAX } else { -1e-40 }).collect();
            let places: Vec<usize> = places.into_iter().filter(|&p| p < len).collect();
            for &p in &places {
                values[p] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][kind];
            }
            prop_assert_eq!(not_finite(&values), places.first().map(|&first| (places.len(), first)));
        }

        #[test]
        fn gathering_a_permuted_view_gives_its_elements(dims in proptest::collection::vec(1usize..5, 0..4), seed: u64) {
            let total: usize = dims.iter().product();
            let data: Vec<f32> = (0..total).map(|i| i as f32).collect();
            // Row-major strides, dimensions then shuffled.
            let mut view: Vec<(usize, usize)> = Vec::new();
            let mut stride = 1;
            for &d in dims.iter().rev() {
                view.push((d, stride));
                stride *= d;
            }
            if !view.is_empty() {
                let by = seed as usize % view.len();
                view.rotate_left(by);
            }
            let (shape, strides): (Vec<usize>, Vec<usize>) = view.iter().copied().unzip();
            let mut expected = vec![0.0];
            for (d, stride) in view {
                expected = expected.iter().flat_map(|&o| (0..d).map(move |i| o + (i * stride) as f32)).collect();
            }
            prop_assert_eq!(gather(&data, &shape, &strides), expected);
        }
    }
}
