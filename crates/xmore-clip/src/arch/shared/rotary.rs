//! Rotary positions of an image's patches: the angles by which pairs of a query's and a key's elements are rotated.
//!
//! Reference: timm's `RotaryEmbeddingCat` and `build_rotary_pos_embed` (`pos_embed_sincos.py`), in 32-bit floats as there.

use crate::nn::rotary::RotaryTable;

/// What the frequencies are powers of.
const TEMPERATURE: f64 = 10000.0;

/// How an image's patches are placed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct RotaryPositions {
    /// Patches along a side of the image.
    pub(crate) side: usize,
    /// Patches along a side of the images of the first training, to which places are scaled.
    pub(crate) reference: usize,
    /// Added to a place before it is scaled.
    pub(crate) offset: f32,
    pub(crate) order: AxisOrder,
}

/// Whose angles stand first in a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AxisOrder {
    /// The row's, then the column's (timm's "ij").
    RowFirst,
    /// The column's, then the row's (timm's "xy").
    ColumnFirst,
}

impl RotaryPositions {
    /// A head's width must be a multiple of this: two axes with pairs each.
    pub(crate) const WIDTH_UNIT: usize = 4;

    /// Cosines and sines of all patches, row by row; `head_width` is a multiple of [`Self::WIDTH_UNIT`].
    pub(crate) fn table(&self, head_width: usize) -> RotaryTable {
        let bands = head_width / Self::WIDTH_UNIT;
        let frequency = |band: usize| 1.0 / TEMPERATURE.powf(f64::from(band as f32 / bands as f32)) as f32;
        let frequencies: Vec<f32> = (0..bands).map(frequency).collect();
        let place = |n: usize| (n as f32 + self.offset) / self.side as f32 * self.reference as f32;
        let patches = (0..self.side).flat_map(|row| (0..self.side).map(move |column| (row, column)));
        let angles = patches.flat_map(|(row, column)| {
            let axes = match self.order {
                AxisOrder::RowFirst => [row, column],
                AxisOrder::ColumnFirst => [column, row],
            };
            axes.map(place)
        });
        let rotations = angles
            .flat_map(|place| frequencies.iter().map(move |frequency| f64::from(place * frequency).sin_cos()))
            .map(|(sin, cos)| [cos as f32, sin as f32])
            .collect();
        RotaryTable { head_width, rotations }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn angles_of_a_small_grid() {
        let positions = RotaryPositions { side: 2, reference: 4, offset: 1.0, order: AxisOrder::ColumnFirst };
        let table = positions.table(8);
        // Places are 2 and 4, frequencies 1 and 1/100.
        let rotation = |angle: f32| [angle.cos(), angle.sin()];
        let patch = |column: f32, row: f32| [column, column / 100.0, row, row / 100.0].map(rotation);
        let expected = [patch(2.0, 2.0), patch(4.0, 2.0), patch(2.0, 4.0), patch(4.0, 4.0)].concat();
        assert_eq!((table.head_width, table.rotations.len()), (8, 16));
        for (found, expected) in table.rotations.iter().flatten().zip(expected.iter().flatten()) {
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
        let rows_first = RotaryPositions { order: AxisOrder::RowFirst, ..positions }.table(8);
        assert_eq!(rows_first.rotations[4..8], table.rotations[8..12]);
    }
}
