//! Values of a range brought to `[0, 1]`, on the CPU; `kernels/lib/rescale.cuh` gives the same bits.

use super::Range;
use super::extremes::cpu::{greater, lesser};
use super::tasks;

/// Values that one task rescales.
const BLOCK: usize = 1 << 15;
/// 2⁻⁶⁴
const SMALL: f32 = f32::from_bits((127 - 64) << 23);

/// The map from a range onto `[0, 1]`: `(scale·value + offset)·factor`.
#[derive(Debug, Clone, Copy)]
pub struct Rescale {
    /// A power of two that keeps the range and its inverse within f32's normal numbers; 0 for a
    /// range of one value, which becomes 0.
    scale: f32,
    /// `-scale·minimum`
    offset: f32,
    /// The inverse of the scaled range, rounded up until the maximum becomes 1 or more.
    factor: f32,
}

impl Rescale {
    pub fn new(Range { minimum, maximum }: Range) -> Self {
        if minimum == maximum {
            return Self { scale: 0.0, offset: 0.0, factor: 0.0 };
        }
        let scale = match maximum - minimum {
            range if range > 1.0 / SMALL => SMALL,
            range if range < SMALL => 1.0 / SMALL,
            _ => 1.0,
        };
        let offset = -scale * minimum;
        let range = scale * maximum + offset;
        let factor = 1.0 / range;
        let factor = if range * factor < 1.0 { factor.next_up() } else { factor };
        Self { scale, offset, factor }
    }

    /// The value on `[0, 1]`. Clamped: rounding may put a resampled value just outside the range.
    #[inline(always)]
    pub fn apply(self, value: f32) -> f32 {
        // The first product is exact, as the scale is a power of two.
        let unit = (value * self.scale + self.offset) * self.factor;
        lesser(greater(unit, 0.0), 1.0)
    }
}

/// Maps the range of each sample onto `[0, 1]`, in place.
pub fn rescale(map: &mut [f32], ranges: &[Range]) {
    let voxels = map.len() / ranges.len();
    let work = map.len();
    let blocks = map.chunks_mut(voxels).zip(ranges).flat_map(|(sample, &range)| {
        let rescale = Rescale::new(range);
        sample.chunks_mut(BLOCK).map(move |block| (block, rescale))
    });
    tasks::map(work, blocks, |(block, rescale)| {
        for value in block {
            *value = rescale.apply(*value);
        }
    });
}
