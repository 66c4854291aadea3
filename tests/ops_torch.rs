//! The ops on the CPU against libtorch's own, on odd sizes, both layouts and all element types.
//!
//! libtorch gets the same values, widened, in double and in single precision. In double its own
//! error is nothing beside ours, and the tolerance is that of the op. In single precision its error
//! adds to it: `LIBTORCH_*` say how much.
#![cfg(all(feature = "torch", feature = "files"))]
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "ops/common.rs"]
#[allow(dead_code, reason = "shared with the tests of the ops")]
mod common;
#[path = "ops_torch/maps.rs"]
mod maps;
#[path = "ops_torch/sums.rs"]
mod sums;

use common::*;
use half::{bf16, f16};
use medcam::element::Element;
use medcam::ops::{
    Denominator, Elementwise, Interpolation, Resize, View, alpha_weights, channel_mean,
    channel_weights, elementwise, guided_activation, guided_product, normalize, project, resample,
};
use medcam::tch::{Kind, Tensor};
use medcam::{Layout, Shape};
use proptest::prelude::*;

/// A unit in the last place of f32, at 1.
const ROUNDING: f64 = 1.0 / (1_u64 << 24) as f64;

/// A mean of up to 2^20 values, relative to the mean of their magnitudes: libtorch adds in four
/// levels of at most 32 values each, and lanes and the quotient come on top.
const LIBTORCH_MEAN: f64 = 160.0 * ROUNDING;

/// A weighted sum of `channels`, relative to the sum of the magnitudes, in any order of additions.
fn libtorch_sum(channels: usize) -> f64 {
    (channels + 1) as f64 * ROUNDING
}

/// Interpolation along an axis of `from` voxels, relative to the greatest magnitude. libtorch works
/// out the position in f32, three roundings of a number of up to `from`, of which the weight of
/// either neighbour is the fraction; two products and a sum follow.
fn libtorch_linear(from: [usize; 3]) -> f64 {
    from.iter().map(|&from| (2 * 3 * from + 3) as f64 * ROUNDING).sum()
}

/// Two differences and a quotient.
const LIBTORCH_NORMALIZE: f64 = 3.0 * ROUNDING;

/// The precisions that libtorch computes in, and how much of its own error counts.
const PRECISIONS: [(Kind, f64); 2] = [(Kind::Double, 0.0), (Kind::Float, 1.0)];

/// A tensor `(B, C, D, H, W)` as medcam has it, in both layouts, and as libtorch has it.
struct Both<T> {
    shape: Shape,
    data: [Vec<T>; 2],
    tensor: Tensor,
}

impl<T: Element> Both<T> {
    fn new(shape: Shape, magnitude: f32, seed: u64) -> Self {
        let rows = values::<T>(shape.elements(), magnitude, seed);
        let wide: Vec<f32> = rows.iter().map(|value| value.to_f32()).collect();
        let tensor = tensor(&wide, shape.batch, shape.channels, shape.spatial);
        let columns = numbers(&tensor.permute([0, 2, 3, 4, 1]));
        #[expect(clippy::cast_possible_truncation, reason = "widened before")]
        let columns = columns.into_iter().map(|value| T::from_f32(value as f32)).collect();
        Self { shape, data: [rows, columns], tensor }
    }

    fn views(&self) -> [View<'_, T>; 2] {
        let [rows, columns] = &self.data;
        [(rows, Layout::Contiguous), (columns, Layout::ChannelsLast)]
            .map(|(data, layout)| View::new(data, self.shape, layout).unwrap())
    }

    fn in_precision(&self, kind: Kind) -> Tensor {
        self.tensor.to_kind(kind)
    }
}

fn extents(numbers: &[usize]) -> Vec<i64> {
    numbers.iter().map(|&extent| i64::try_from(extent).unwrap()).collect()
}

fn tensor(values: &[f32], batch: usize, channels: usize, [d, h, w]: [usize; 3]) -> Tensor {
    Tensor::from_slice(values).reshape(extents(&[batch, channels, d, h, w]))
}

/// All values in order; f32 is widened exactly.
fn numbers(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.to_kind(Kind::Double).contiguous().view(-1)).unwrap()
}

const CHANNELS: [i64; 1] = [1];
const SPACE: [i64; 3] = [2, 3, 4];
