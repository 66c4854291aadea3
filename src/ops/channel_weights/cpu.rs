//! Channel weights on the CPU: the reference, and the fast version.

use crate::element::Element;
use crate::ops::View;
use crate::ops::channel_sums::cpu::{Factor, channel_sums};
use crate::shape::Shape;

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
    let shape = gradient.shape();
    let sums = channel_sums(shape, gradient.layout(), [Factor::Tensor(*gradient)], |[g]| g);
    #[expect(clippy::cast_possible_truncation, reason = "the result is f32 by contract")]
    sums.into_iter().map(|sum| (sum / shape.voxels() as f64) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::Layout;

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
