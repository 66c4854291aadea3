//! The projection on the CPU: the reference, and the fast version.

use crate::element::Element;
use crate::ops::View;
use crate::ops::lanes;
use crate::ops::voxel_sums::cpu::{GROUP, VoxelSums, voxel_sums};
use crate::shape::{Layout, Shape};

/// The written truth of [`project`](super::project()): the same, in f64.
///
/// `weights` holds `(B, C)` values, `activation` the tensor `(B, C, D, H, W)`.
///
/// # Panics
///
/// If there are fewer than `B·C` weights.
pub fn reference<T: Element>(weights: &[f64], activation: &View<T>) -> Vec<f64> {
    let sums = weighted_sum_reference(weights, activation);
    // Not `max`, which would turn NaN into 0.
    sums.into_iter().map(|sum| if sum <= 0.0 { 0.0 } else { sum }).collect()
}

/// The written truth of [`weighted_sum`](super::weighted_sum()): the same, in f64.
///
/// # Panics
///
/// If there are fewer than `B·C` weights.
pub fn weighted_sum_reference<T: Element>(weights: &[f64], activation: &View<T>) -> Vec<f64> {
    let Shape { batch, channels, .. } = activation.shape();
    let voxels = activation.shape().voxels();
    let mut map = Vec::with_capacity(batch * voxels);
    for b in 0..batch {
        for n in 0..voxels {
            let sum: f64 =
                (0..channels).map(|c| weights[b * channels + c] * activation.value(b, c, n)).sum();
            map.push(sum);
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

pub fn project<T: Element>(weights: &[f32], activation: &View<T>) -> VoxelSums {
    sum(weights, activation, true)
}

pub fn weighted_sum<T: Element>(weights: &[f32], activation: &View<T>) -> VoxelSums {
    sum(weights, activation, false)
}

pub fn channel_mean<T: Element>(tensor: &View<T>) -> VoxelSums {
    let Shape { batch, channels, .. } = tensor.shape();
    #[expect(clippy::cast_possible_truncation, reason = "rounded to f32 on purpose")]
    let weight = (1.0 / channels as f64) as f32;
    sum(&vec![weight; batch * channels], tensor, false)
}

fn sum<T: Element>(weights: &[f32], tensor: &View<T>, rectified: bool) -> VoxelSums {
    let shape = tensor.shape();
    let Shape { channels, .. } = shape;
    let voxels = shape.voxels();
    voxel_sums(shape, rectified, |b, first, sums| {
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

/// `sums[i] += sum_c weights[c]·sample[c, first + i]`, for channels that lie one after the other.
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

/// `sums[i] = sum_c weights[c]·voxels[i, c]`, for the channels of a voxel side by side.
fn dot_voxels<T: Element>(weights: &[f32], voxels: &[T], sums: &mut [f32]) {
    let channels = weights.len();
    let step = lanes::WIDENED_AT_ONCE.div_ceil(channels);
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
            assert_eq!(weighted_sum(&weights, &view).map, [3.0, -2.0]);
            assert_eq!(reference(&weights.map(f64::from), &view), [3.0, 0.0]);
        }
    }

    #[test]
    fn a_sum_that_is_not_finite_is_counted_and_nan_stays() {
        let shape = Shape::new(1, 1, [1, 1, 3]).unwrap();
        let data = [f32::NAN, f32::NEG_INFINITY, 1.0];
        let view = View::new(&data, shape, Layout::Contiguous).unwrap();
        let sums = project(&[2.0], &view);
        assert!(sums.map[0].is_nan());
        assert_eq!(sums.map[1..], [0.0, 2.0]);
        assert_eq!(sums.not_finite, [2]);
    }
}
