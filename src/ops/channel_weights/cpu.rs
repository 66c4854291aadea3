//! Channel weights on the CPU: the reference, and the fast version.

use crate::element::Element;
use crate::ops::lanes::{self, LANES};
use crate::ops::{View, tasks};
use crate::shape::{Layout, Shape};

/// Values of one lane that are summed in f32 before f64 takes over; bounds the rounding error.
const STEPS: usize = 64;
/// Values that one task sums; fixed, so that the result does not depend on the threads.
const SEGMENT: usize = 1 << 16;

/// The written truth of [`channel_weights`](super::channel_weights()): the same, in f64.
pub fn reference<T: Element>(gradient: &View<T>) -> Vec<f64> {
    let Shape { batch, channels, .. } = gradient.shape();
    let voxels = gradient.shape().voxels();
    let mut weights = Vec::with_capacity(batch * channels);
    for b in 0..batch {
        for c in 0..channels {
            let sum: f64 = (0..voxels).map(|n| gradient.value(b, c, n)).sum();
            weights.push(sum / voxels as f64);
        }
    }
    weights
}

pub(super) fn channel_weights<T: Element>(gradient: &View<T>) -> Vec<f32> {
    let Shape { channels, .. } = gradient.shape();
    let voxels = gradient.shape().voxels();
    let work = gradient.data().len();
    let sums: Vec<f64> = match gradient.layout() {
        Layout::Contiguous => {
            let rows = (SEGMENT / 4).div_ceil(voxels);
            let sums = tasks::map(work, gradient.data().chunks(voxels * rows), |rows| {
                let mut buffer = Vec::new();
                rows.chunks(voxels).map(|row| sum_row(row, &mut buffer)).collect::<Vec<_>>()
            });
            sums.into_iter().flatten().collect()
        }
        Layout::ChannelsLast => {
            let samples = gradient.data().chunks(voxels * channels);
            let sums = tasks::map(work, samples, |sample| sum_columns(sample, channels));
            sums.into_iter().flatten().collect()
        }
    };
    #[expect(clippy::cast_possible_truncation, reason = "the result is f32 by contract")]
    sums.into_iter().map(|sum| (sum / voxels as f64) as f32).collect()
}

/// The sum of one channel that lies without gaps.
fn sum_row<T: Element>(row: &[T], buffer: &mut Vec<f32>) -> f64 {
    if row.len() <= SEGMENT {
        row.chunks(STEPS * LANES).map(|block| f64::from(lanes::sum(T::widen(block, buffer)))).sum()
    } else {
        let sums = tasks::map(row.len(), row.chunks(SEGMENT), |row| sum_row(row, &mut Vec::new()));
        sums.into_iter().sum()
    }
}

/// The sums of all channels of one sample whose channels alternate.
fn sum_columns<T: Element>(sample: &[T], channels: usize) -> Vec<f64> {
    // A few voxels at a time make vectors of any number of channels.
    let period = channels * (4 * LANES).div_ceil(channels);
    let segment = period * SEGMENT.div_ceil(period).max(4 * STEPS);
    let segments = tasks::map(sample.len(), sample.chunks(segment), |segment| {
        let (mut buffer, mut partial) = (Vec::new(), vec![0.0_f32; period]);
        let mut sums = vec![0.0; channels];
        for block in segment.chunks(period * STEPS) {
            partial.fill(0.0);
            for step in block.chunks(period) {
                for (sum, value) in partial.iter_mut().zip(T::widen(step, &mut buffer)) {
                    *sum += value;
                }
            }
            for voxel in partial.chunks(channels) {
                for (sum, &value) in sums.iter_mut().zip(voxel) {
                    *sum += f64::from(value);
                }
            }
        }
        sums
    });
    let mut sums = vec![0.0; channels];
    for segment in segments {
        for (sum, value) in sums.iter_mut().zip(segment) {
            *sum += value;
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_by_hand() {
        let shape = Shape::new(2, 2, [1, 1, 3]).unwrap();
        let rows = [1.0_f32, 2.0, 6.0, -1.0, -2.0, 0.0, 0.5, 0.5, 0.5, 8.0, -8.0, 3.0];
        let columns = [1.0_f32, -1.0, 2.0, -2.0, 6.0, 0.0, 0.5, 8.0, 0.5, -8.0, 0.5, 3.0];
        for (data, layout) in [(rows, Layout::Contiguous), (columns, Layout::ChannelsLast)] {
            let view = View::new(&data, shape, layout).unwrap();
            assert_eq!(reference(&view), [3.0, -1.0, 0.5, 1.0]);
            assert_eq!(channel_weights(&view), [3.0, -1.0, 0.5, 1.0]);
        }
    }
}
