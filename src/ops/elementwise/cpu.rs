//! HiResCAM and LayerCAM on the CPU: the reference, and the fast version.

use super::Elementwise;
use crate::element::Element;
use crate::ops::View;
use crate::ops::lanes;
use crate::ops::relu::relu;
use crate::ops::voxel_sums::cpu::{GROUP, VoxelSums, voxel_sums};
use crate::shape::{Layout, Shape};

/// The written truth of [`elementwise`](super::elementwise()): the same, in f64.
///
/// # Panics
///
/// If `gradient` has fewer samples, channels or voxels than `activation`.
pub fn reference<T: Element>(
    activation: &View<T>,
    gradient: &View<T>,
    method: Elementwise,
) -> Vec<f64> {
    let Shape { batch, channels, .. } = activation.shape();
    let voxels = activation.shape().voxels();
    let product = |b, c, n| {
        let (a, g) = (activation.value(b, c, n), gradient.value(b, c, n));
        match method {
            Elementwise::HiResCam => g * a,
            // `relu`, in f64.
            Elementwise::LayerCam => (if g > 0.0 { g } else { 0.0 * g }) * a,
        }
    };
    let mut map = Vec::with_capacity(batch * voxels);
    for b in 0..batch {
        for n in 0..voxels {
            let sum: f64 = (0..channels).map(|c| product(b, c, n)).sum();
            // Not `max`, which would turn NaN into 0.
            map.push(if sum <= 0.0 { 0.0 } else { sum });
        }
    }
    map
}

pub fn elementwise<T: Element>(
    activation: &View<T>,
    gradient: &View<T>,
    method: Elementwise,
) -> VoxelSums {
    match method {
        Elementwise::HiResCam => sum_products(activation, gradient, |[a, g]| g * a),
        Elementwise::LayerCam => sum_products(activation, gradient, |[a, g]| relu(g) * a),
    }
}

fn sum_products<T: Element>(
    activation: &View<T>,
    gradient: &View<T>,
    product: impl Fn([f32; 2]) -> f32 + Sync,
) -> VoxelSums {
    let shape = activation.shape();
    voxel_sums(shape, true, |b, first, sums| match activation.layout() {
        Layout::Contiguous => add_rows([activation, gradient], b, first, sums, &product),
        Layout::ChannelsLast => sum_voxels([activation, gradient], b, first, sums, &product),
    })
}

/// `sums[i] += sum_c product(values of channel c at voxel first + i)`, of contiguous tensors.
fn add_rows<T: Element>(
    tensors: [&View<T>; 2],
    b: usize,
    first: usize,
    sums: &mut [f32],
    product: impl Fn([f32; 2]) -> f32,
) {
    let Shape { channels, .. } = tensors[0].shape();
    let (voxels, length) = (tensors[0].shape().voxels(), sums.len());
    let row = |c| tensors.map(|t| &t.data()[(b * channels + c) * voxels + first..][..length]);
    let rows: Vec<_> = (0..channels).map(row).collect();
    let (groups, rest) = rows.as_chunks::<GROUP>();
    for rows in groups {
        lanes::add_four(sums, *rows, |_, values| product(values));
    }
    for row in rest {
        lanes::add_rows(sums, *row, &product);
    }
}

/// `sums[i] = sum_c product(values of channel c at voxel first + i)`, of channels-last tensors.
fn sum_voxels<T: Element>(
    tensors: [&View<T>; 2],
    b: usize,
    first: usize,
    sums: &mut [f32],
    product: impl Fn([f32; 2]) -> f32,
) {
    let shape = tensors[0].shape();
    let channels = shape.channels;
    let step = lanes::WIDENED_AT_ONCE.div_ceil(channels);
    let mut buffers = [const { Vec::new() }; 2];
    let mut start = (b * shape.voxels() + first) * channels;
    for sums in sums.chunks_mut(step) {
        let mut values = [&[][..]; 2];
        for ((values, buffer), tensor) in values.iter_mut().zip(&mut buffers).zip(tensors) {
            *values = T::widen(&tensor.data()[start..][..sums.len() * channels], buffer);
        }
        lanes::sum_rows(sums, values, channels, &product);
        start += sums.len() * channels;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_by_hand() {
        // Five channels: a group of four, and one.
        let shape = Shape::new(1, 5, [1, 1, 2]).unwrap();
        let a = [1.0_f32, 5.0, 2.0, 4.0, 6.0, 8.0, 9.0, 9.0, 1.0, -1.0];
        let g = [1.0_f32, 1.0, -2.0, -2.0, 0.5, 0.5, 0.0, 0.0, 3.0, 3.0];
        let columns =
            |rows: [f32; 10]| std::array::from_fn::<_, 10, _>(|i| rows[i % 5 * 2 + i / 5]);
        for (a, g, layout) in
            [(a, g, Layout::Contiguous), (columns(a), columns(g), Layout::ChannelsLast)]
        {
            let [a, g] = [&a, &g].map(|data| View::new(data, shape, layout).unwrap());
            // 1 - 4 + 3 + 0 + 3 = 3; 5 - 8 + 4 + 0 - 3 = -2. Without the negative gradients 7 and 6.
            for (method, expected) in
                [(Elementwise::HiResCam, [3.0, 0.0]), (Elementwise::LayerCam, [7.0, 6.0])]
            {
                assert_eq!(elementwise(&a, &g, method).map, expected);
                assert_eq!(reference(&a, &g, method), expected.map(f64::from));
            }
        }
    }

    #[test]
    fn not_finite_is_counted_also_behind_a_gradient_that_is_left_out() {
        let shape = Shape::new(1, 1, [1, 1, 4]).unwrap();
        let a = View::new(&[1.0_f32, 1.0, f32::INFINITY, 1.0], shape, Layout::Contiguous).unwrap();
        let g = [f32::NEG_INFINITY, f32::NAN, -1.0, 2.0];
        let g = View::new(&g, shape, Layout::Contiguous).unwrap();
        for method in [Elementwise::HiResCam, Elementwise::LayerCam] {
            let sums = elementwise(&a, &g, method);
            assert_eq!(sums.not_finite, [3]);
            assert_eq!(sums.map[3], 2.0);
        }
    }
}
