//! The projection on the CPU: the reference, and the fast version.

use crate::element::Element;
use crate::ops::lanes::{self, LANES};
use crate::ops::normalize::cpu::Extremes;
use crate::ops::{View, tasks};
use crate::shape::{Layout, Shape};

/// Voxels whose sums one task holds in the first-level cache while A streams past. Larger is
/// faster, as each channel is then read in longer stretches: 16 instead of 20 ms on one core for
/// 32 channels of 128³ f32, 8192 against 1024.
const BLOCK: usize = 1 << 13;
/// Tasks that a sample is parted into, at least, where they have `WORK` to do.
const TASKS: usize = 64;
/// Values that are worth the call of a conversion.
pub(in crate::ops) const CONVERSION: usize = 1024;
/// Products that are worth a task of their own.
const WORK: usize = 1 << 17;
/// Channels that are summed in registers before they go to the voxel's sum.
pub(in crate::ops) const GROUP: usize = 4;

/// The written truth of [`project`](super::project()): the same, in f64.
///
/// `weights` holds `(B, C)` values, `activation` the tensor `(B, C, D, H, W)`.
///
/// # Panics
///
/// If there are fewer than `B·C` weights.
pub fn reference<T: Element>(weights: &[f64], activation: &View<T>) -> Vec<f64> {
    let Shape { batch, channels, .. } = activation.shape();
    let voxels = activation.shape().voxels();
    let mut map = Vec::with_capacity(batch * voxels);
    for b in 0..batch {
        for n in 0..voxels {
            let sum: f64 =
                (0..channels).map(|c| weights[b * channels + c] * activation.value(b, c, n)).sum();
            // Not `max`, which would turn NaN into 0.
            map.push(if sum <= 0.0 { 0.0 } else { sum });
        }
    }
    map
}

/// The written truth of [`channel_mean`](super::channel_mean()): the same, in f64.
pub fn channel_mean_reference<T: Element>(tensor: &View<T>) -> Vec<f64> {
    let Shape { batch, channels, .. } = tensor.shape();
    let mut map = Vec::with_capacity(batch * tensor.shape().voxels());
    for b in 0..batch {
        for n in 0..tensor.shape().voxels() {
            let sum: f64 = (0..channels).map(|c| tensor.value(b, c, n)).sum();
            map.push(sum / channels as f64);
        }
    }
    map
}

/// A map per sample, and for each sample the voxels whose sum was not finite before ReLU, and the
/// extremes of what was written.
pub(in crate::ops) struct Projection {
    pub(in crate::ops) map: Vec<f32>,
    pub(in crate::ops) not_finite: Vec<usize>,
    pub(in crate::ops) extremes: Vec<Extremes>,
}

pub(in crate::ops) fn project<T: Element>(weights: &[f32], activation: &View<T>) -> Projection {
    weighted_sum(weights, activation, true)
}

pub(in crate::ops) fn channel_mean<T: Element>(tensor: &View<T>) -> Projection {
    let Shape { batch, channels, .. } = tensor.shape();
    #[expect(clippy::cast_possible_truncation, reason = "rounded to f32 on purpose")]
    let weight = (1.0 / channels as f64) as f32;
    weighted_sum(&vec![weight; batch * channels], tensor, false)
}

fn weighted_sum<T: Element>(weights: &[f32], tensor: &View<T>, rectified: bool) -> Projection {
    let shape = tensor.shape();
    let Shape { channels, .. } = shape;
    let voxels = shape.voxels();
    over_channels(shape, rectified, |b, first, sums| {
        let sample = &tensor.data()[b * channels * voxels..][..channels * voxels];
        let weights = &weights[b * channels..][..channels];
        match tensor.layout() {
            Layout::Contiguous => add_rows(weights, sample, voxels, first, sums),
            Layout::ChannelsLast => {
                dot_voxels(weights, &sample[first * channels..][..sums.len() * channels], sums);
            }
        }
    })
}

/// The maps that `add(b, first, sums)` makes block by block: it adds to `sums`, zeros before, those
/// of the voxels of sample `b` from `first` on.
pub(in crate::ops) fn over_channels(
    shape: Shape,
    rectified: bool,
    add: impl Fn(usize, usize, &mut [f32]) + Sync,
) -> Projection {
    let Shape { batch, channels, .. } = shape;
    let voxels = shape.voxels();
    let block = voxels.div_ceil(TASKS).max(WORK.div_ceil(channels));
    let block = block.next_multiple_of(LANES).min(BLOCK);
    let mut map = vec![0.0_f32; batch * voxels];
    let blocks = map.chunks_mut(voxels).enumerate().flat_map(|(b, map)| {
        map.chunks_mut(block).enumerate().map(move |(i, sums)| (b, i * block, sums))
    });
    let blocks = tasks::map(shape.elements(), blocks, |(b, first, sums)| {
        add(b, first, sums);
        (lanes::finish(sums, rectified) as usize, Extremes::of(sums))
    });
    // Merged in order: of 0 and -0, which one is the least depends on it.
    let merged = blocks.chunks(voxels.div_ceil(block)).map(|blocks| {
        blocks.iter().fold((0, Extremes::NONE), |all, block| (all.0 + block.0, all.1.and(block.1)))
    });
    let (not_finite, extremes) = merged.unzip();
    Projection { map, not_finite, extremes }
}

/// `sums[i] += sum_c weights[c]·sample[c, first + i]`, the channels lying one after the other.
fn add_rows<T: Element>(
    weights: &[f32],
    sample: &[T],
    voxels: usize,
    first: usize,
    sums: &mut [f32],
) {
    let row = |c: usize| [&sample[c * voxels + first..][..sums.len()]];
    let rows: Vec<_> = (0..weights.len()).map(row).collect();
    let (groups, rest) = weights.as_chunks::<GROUP>();
    let (row_groups, row_rest) = rows.as_chunks::<GROUP>();
    for (weights, rows) in groups.iter().zip(row_groups) {
        lanes::add_four(sums, *rows, |j, [a]| weights[j] * a);
    }
    for (weight, row) in rest.iter().zip(row_rest) {
        lanes::add_rows(sums, *row, |[a]| weight * a);
    }
}

/// `sums[i] = sum_c weights[c]·voxels[i, c]`, the channels of a voxel lying side by side.
fn dot_voxels<T: Element>(weights: &[f32], voxels: &[T], sums: &mut [f32]) {
    let channels = weights.len();
    let step = CONVERSION.div_ceil(channels);
    let (weights, mut buffer) = (weights.repeat(step.min(sums.len())), Vec::new());
    for (sums, voxels) in sums.chunks_mut(step).zip(voxels.chunks(step * channels)) {
        let voxels = T::widen(voxels, &mut buffer);
        let weights = &weights[..voxels.len()];
        lanes::sum_rows(sums, [weights, voxels], channels, |[w, a]| w * a);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_by_hand() {
        let shape = Shape::new(1, 5, [1, 1, 2]).unwrap();
        let weights = [1.0_f32, -2.0, 0.5, 0.0, 3.0];
        let rows = [1.0_f32, 5.0, 2.0, 4.0, 6.0, 8.0, 9.0, 9.0, 1.0, -1.0];
        let columns = [1.0_f32, 2.0, 6.0, 9.0, 1.0, 5.0, 4.0, 8.0, 9.0, -1.0];
        for (data, layout) in [(rows, Layout::Contiguous), (columns, Layout::ChannelsLast)] {
            let view = View::new(&data, shape, layout).unwrap();
            // 1 - 4 + 3 + 0 + 3 = 3; 5 - 8 + 4 + 0 - 3 = -2.
            assert_eq!(project(&weights, &view).map, [3.0, 0.0]);
            assert_eq!(reference(&weights.map(f64::from), &view), [3.0, 0.0]);
        }
    }

    #[test]
    fn a_sum_that_is_not_finite_is_counted_and_nan_stays() {
        let shape = Shape::new(1, 1, [1, 1, 3]).unwrap();
        let data = [f32::NAN, f32::NEG_INFINITY, 1.0];
        let view = View::new(&data, shape, Layout::Contiguous).unwrap();
        let projection = project(&[2.0], &view);
        assert!(projection.map[0].is_nan());
        assert_eq!(projection.map[1..], [0.0, 2.0]);
        assert_eq!(projection.not_finite, [2]);
    }
}
