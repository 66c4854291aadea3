//! The extremes of maps on the CPU.

use super::Range;
use crate::ops::lanes::LANES;
use crate::ops::tasks;

/// Values that one task reads.
const BLOCK: usize = 1 << 15;

/// The range of some values, and whether they are all finite.
#[derive(Debug, Clone, Copy)]
pub struct Extremes {
    pub range: Range,
    /// `sum 0·v`: 0 as long as all values are finite, then NaN.
    probe: f32,
}

impl Extremes {
    /// The extremes of no values: merging them changes nothing.
    pub const NONE: Self =
        Self { range: Range { minimum: f32::INFINITY, maximum: f32::NEG_INFINITY }, probe: 0.0 };

    pub fn of(values: &[f32]) -> Self {
        let mut by_lane = ExtremesByLane::NONE;
        by_lane.include(values);
        by_lane.merge()
    }

    /// The extremes of the values of both. Merge in a fixed order: it decides whether 0 or -0 wins.
    pub fn merge(self, other: Self) -> Self {
        let minimum = lesser(other.range.minimum, self.range.minimum);
        let maximum = greater(other.range.maximum, self.range.maximum);
        Self { range: Range { minimum, maximum }, probe: self.probe + other.probe }
    }

    pub fn all_finite(&self) -> bool {
        self.probe == 0.0
    }
}

/// Running extremes in `LANES` independent accumulators, so that the loop becomes vector code.
pub struct ExtremesByLane {
    minimum: [f32; LANES],
    maximum: [f32; LANES],
    probe: [f32; LANES],
}

impl ExtremesByLane {
    /// Before the first value.
    pub const NONE: Self = Self {
        minimum: [Extremes::NONE.range.minimum; LANES],
        maximum: [Extremes::NONE.range.maximum; LANES],
        probe: [Extremes::NONE.probe; LANES],
    };

    #[inline(always)]
    pub fn include(&mut self, values: &[f32]) {
        let (chunks, rest) = values.as_chunks::<LANES>();
        for chunk in chunks {
            self.include_chunk(chunk);
        }
        self.include_chunk(rest);
    }

    /// At most one value for each lane.
    #[inline(always)]
    fn include_chunk(&mut self, values: &[f32]) {
        for (i, &value) in values.iter().enumerate() {
            self.minimum[i] = lesser(value, self.minimum[i]);
            self.maximum[i] = greater(value, self.maximum[i]);
            self.probe[i] += 0.0 * value;
        }
    }

    pub fn merge(&self) -> Extremes {
        (0..LANES).fold(Extremes::NONE, |all, i| {
            let range = Range { minimum: self.minimum[i], maximum: self.maximum[i] };
            all.merge(Extremes { range, probe: self.probe[i] })
        })
    }
}

/// `f32::min` costs several instructions more to handle NaN, which `probe` has caught already.
#[inline(always)]
pub fn lesser(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

/// `f32::max` without its handling of NaN, as [`lesser`].
#[inline(always)]
pub fn greater(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// The extremes of each map of `voxels` values.
pub fn extremes(map: &[f32], voxels: usize) -> Vec<Extremes> {
    let blocks = map.chunks(voxels).flat_map(|sample| sample.chunks(BLOCK));
    let blocks = tasks::map(map.len(), blocks, Extremes::of);
    let merge = |blocks: &[Extremes]| blocks.iter().fold(Extremes::NONE, |all, &b| all.merge(b));
    blocks.chunks(voxels.div_ceil(BLOCK)).map(merge).collect()
}
