//! Resampling on the CPU: the reference, and the fast version.
//!
//! The fast version goes axis by axis. Along W, where positions must be gathered, it widens the
//! few rows of the source; along D and then H whole rows of the final width are mixed, which is
//! vector code, and only those along H are as many as the result has.

use std::borrow::Cow;
use std::ops::Range;

use super::Interpolation;
use super::taps::{Tap, taps};
use crate::ops::normalize::cpu::Extremes;
use crate::ops::tasks;

/// Voxels that one task writes, at least; whole rows.
const BLOCK: usize = 1 << 13;

/// The written truth of [`resample`](super::resample()): the same, in f64.
///
/// # Panics
///
/// If `map` has fewer values than `batch` and `from` say.
pub fn reference(
    map: &[f64],
    batch: usize,
    from: [usize; 3],
    to: [usize; 3],
    interpolation: Interpolation,
) -> Vec<f64> {
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
    let mut resampled = Vec::with_capacity(batch * to.iter().product::<usize>());
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

/// The new map, and the extremes of each sample if they were asked for.
pub(in crate::ops) struct Resampled {
    pub(in crate::ops) map: Vec<f32>,
    pub(in crate::ops) extremes: Vec<Extremes>,
}

pub(in crate::ops) fn resample(
    map: &[f32],
    from: [usize; 3],
    to: [usize; 3],
    interpolation: Interpolation,
    track: bool,
) -> Resampled {
    let [along_d, along_h, along_w] =
        [0, 1, 2].map(|axis| taps(from[axis], to[axis], interpolation));
    let widened = widen_rows(map, from[2], &along_w);
    let [_, height, width] = to;
    let old_plane = from[1] * width;
    let batch = map.len() / from.iter().product::<usize>();
    let rows_per_block = BLOCK.div_ceil(width).min(height);

    let mut resampled = vec![0.0_f32; batch * to.iter().product::<usize>()];
    let write_block = |(plane, block, out): (usize, usize, &mut [f32])| {
        let mut mixed = Vec::new();
        let (b, d) = (plane / to[0], plane % to[0]);
        let along_h = &along_h[block * rows_per_block..][..out.len() / width];
        let needed = along_h[0].low..along_h[along_h.len() - 1].high + 1;
        let volume = &widened[b * from[0] * old_plane..][..from[0] * old_plane];
        let source = mix_planes(volume, along_d[d], needed.clone(), old_plane, width, &mut mixed);
        let row = |y: usize| &source[(y - needed.start) * width..][..width];
        let mut extremes = Extremes::NONE;
        for (out, tap) in out.chunks_exact_mut(width).zip(along_h) {
            mix(out, row(tap.low), row(tap.high), tap.weight);
            if track {
                extremes = extremes.and(Extremes::of(out));
            }
        }
        extremes
    };
    let work = resampled.len();
    let blocks = resampled.chunks_mut(height * width).enumerate().flat_map(|(plane, out)| {
        out.chunks_mut(rows_per_block * width).enumerate().map(move |(i, out)| (plane, i, out))
    });
    let blocks = tasks::map(work, blocks, write_block);
    let extremes = if track {
        // Merged in order: of 0 and -0, which one wins depends on it.
        let merge =
            |blocks: &[Extremes]| blocks.iter().fold(Extremes::NONE, |all, &block| all.and(block));
        blocks.chunks(blocks.len() / batch).map(merge).collect()
    } else {
        Vec::new()
    };
    Resampled { map: resampled, extremes }
}

/// All rows of `width` values, resampled along their length.
fn widen_rows<'a>(map: &'a [f32], width: usize, taps: &[Tap]) -> Cow<'a, [f32]> {
    if taps.len() == width {
        return Cow::Borrowed(map);
    }
    let mut widened = vec![0.0_f32; map.len() / width * taps.len()];
    let (work, rows) = (widened.len(), BLOCK.div_ceil(taps.len()));
    let blocks = widened.chunks_mut(rows * taps.len()).zip(map.chunks(rows * width));
    tasks::map(work, blocks, |(out, rows)| {
        for (out, row) in out.chunks_exact_mut(taps.len()).zip(rows.chunks_exact(width)) {
            for (out, &Tap { low, high, weight }) in out.iter_mut().zip(taps) {
                let low = row[low];
                let mixed = (1.0 - weight) * low + weight * row[high];
                // Infinity times 0 would be NaN.
                *out = if weight == 0.0 { low } else { mixed };
            }
        }
    });
    Cow::Owned(widened)
}

/// The given rows of the plane that `tap` mixes from those of `volume`.
fn mix_planes<'a>(
    volume: &'a [f32],
    tap: Tap,
    rows: Range<usize>,
    plane: usize,
    width: usize,
    mixed: &'a mut Vec<f32>,
) -> &'a [f32] {
    let part = |z: usize| &volume[z * plane + rows.start * width..][..rows.len() * width];
    if tap.weight == 0.0 {
        return part(tap.low);
    }
    mixed.resize(rows.len() * width, 0.0);
    mix(mixed, part(tap.low), part(tap.high), tap.weight);
    mixed
}

/// `out = (1 - weight)·low + weight·high`; `low` alone where `weight` is 0.
fn mix(out: &mut [f32], low: &[f32], high: &[f32], weight: f32) {
    if weight == 0.0 {
        out.copy_from_slice(low);
        return;
    }
    let rest = 1.0 - weight;
    for ((out, low), high) in out.iter_mut().zip(low).zip(high) {
        *out = rest * low + weight * high;
    }
}
