//! Resampling on the CPU: the reference, and the fast version.

use crate::element::MapElement;
use crate::ops::resampling::Source;
use crate::ops::resampling::cpu::Store;
use crate::ops::{Interpolation, Range, Resize};

/// The written truth of [`resample`](super::resample()): the same, in f64.
///
/// # Panics
///
/// If `map` has fewer values than `resize` says.
pub fn reference(map: &[f64], resize: Resize, interpolation: Interpolation) -> Vec<f64> {
    let Resize { batch, from, to } = resize;
    #[expect(clippy::cast_possible_truncation, reason = "floor of a position on the old grid")]
    #[expect(clippy::cast_sign_loss, reason = "clamped at 0")]
    let at = |axis: usize, d: usize| -> [(usize, f64); 2] {
        let (old, new) = (from[axis] as f64, to[axis] as f64);
        let position = (d as f64 + 0.5) * old / new;
        match interpolation {
            Interpolation::Nearest => [(position.floor() as usize, 1.0), (0, 0.0)],
            Interpolation::Linear => {
                let position = (position - 0.5).clamp(0.0, old - 1.0);
                let (low, t) = (position.floor() as usize, position.fract());
                [(low, 1.0 - t), (low + 1, t)]
            }
        }
    };
    let mut resampled = Vec::with_capacity(resize.new_voxels());
    for b in 0..batch {
        for d in 0..to[0] {
            for h in 0..to[1] {
                for w in 0..to[2] {
                    let mut sum = 0.0;
                    for (z, in_z) in at(0, d) {
                        for (y, in_y) in at(1, h) {
                            for (x, in_x) in at(2, w) {
                                let weight = in_z * in_y * in_x;
                                if weight > 0.0 {
                                    let row = (b * from[0] + z) * from[1] + y;
                                    sum += weight * map[row * from[2] + x];
                                }
                            }
                        }
                    }
                    resampled.push(sum);
                }
            }
        }
    }
    resampled
}

/// Writes the maps on the new grid into `out`, each from its range to `[0, 1]` if there are ranges.
pub fn resample<O: MapElement>(source: &Source, ranges: Option<&[Range]>, out: &mut [O]) {
    source.run(Store::blocks(source, ranges, out));
}
