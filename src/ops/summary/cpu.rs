//! The written truth of a summary.

use super::{MapExtremes, SampleSummary};
use crate::element::Element;
use crate::ops::View;
use crate::ops::channel_weights::{are_noise, noise};

/// What is true of each sample's map.
///
/// `weights` are the `(B, C)` weights, and with Grad-CAM's the mean magnitude of each channel's gradient.
/// `layer` and `finished` are the extremes of the map on the layer's grid and of the finished map, `(B)`.
///
/// # Panics
///
/// If something has fewer samples or channels than `gradient`.
pub fn reference<T: Element>(
    gradient: &View<T>,
    weights: Option<(&[f32], Option<&[f32]>)>,
    layer: &[MapExtremes],
    finished: &[MapExtremes],
) -> Vec<SampleSummary> {
    let shape = gradient.shape();
    let (channels, voxels) = (shape.channels, shape.voxels());
    let of_sample = |b: usize| {
        let (range, map_not_finite) = finished[b];
        let of_weights = weights.map(|(weights, magnitudes)| {
            let weights = &weights[b * channels..][..channels];
            let count = weights.iter().filter(|weight| !weight.is_finite()).count();
            let cancel = magnitudes.is_some_and(|all| {
                let of_channel = |c: usize| f64::from(all[b * channels + c]);
                are_noise(weights, noise(T::EPSILON, voxels), of_channel)
            });
            (u32::try_from(count).unwrap_or(u32::MAX), u32::from(cancel))
        });
        let (weights_not_finite, weights_cancel) = of_weights.unwrap_or_default();
        let is_zero = (range.minimum, range.maximum) == (0.0, 0.0);
        let gradient_is_zero =
            || (0..channels).all(|c| (0..voxels).all(|n| gradient.value(b, c, n) == 0.0));
        SampleSummary {
            minimum: range.minimum,
            maximum: range.maximum,
            weights_not_finite,
            layer_not_finite: layer[b].1,
            map_not_finite,
            weights_cancel,
            zero_gradient: u32::from(is_zero && gradient_is_zero()),
            unused: 0,
        }
    };
    (0..shape.batch).map(of_sample).collect()
}
