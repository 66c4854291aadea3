//! Otsu's threshold of a map and what lies above it, inside and outside a mask: both read once.

use std::hint::black_box;

use medcam::ops::evaluation_sums;
use medcam::tch::{Kind, Tensor};

use super::case::{Arm, Case, Layer, Place, Values, values};
use super::cuda;

pub fn cases(layer: Layer) -> Vec<Case> {
    if !layer.stands_for_its_map() || layer.shape.spatial != layer.input {
        return Vec::new();
    }
    vec![Case {
        op: "evaluation_sums",
        layer: layer.as_map(),
        inputs: vec![layer.map(layer.input, Values::Normalized), layer.mask(layer.input)],
        written: 0,
        medcam: if layer.place == Place::Cuda { on_cuda(layer) } else { on_cpu(layer) },
        libtorch: Box::new(|inputs| {
            let [map, mask] = inputs else { unreachable!("two inputs") };
            black_box(composed(map, mask));
        }),
    }]
}

fn on_cpu(layer: Layer) -> Arm {
    let batch = layer.shape.batch;
    Box::new(move |inputs| {
        let (map, mask) = (values(&inputs[0]), values(&inputs[1]));
        let sums = evaluation_sums(map, Some(mask), batch, None).unwrap();
        let above: Vec<_> = sums.iter().map(|sums| sums.above(sums.otsu()).unwrap()).collect();
        black_box(above);
    })
}

fn on_cuda(layer: Layer) -> Arm {
    let batch = layer.shape.batch;
    cuda::arm(
        move |stream| stream.allocate(batch * evaluation_sums::TABLE_LENGTH).unwrap(),
        move |stream, tables, inputs| {
            let (map, mask) = (cuda::slice(&inputs[0]), cuda::slice(&inputs[1]));
            let (mask, tables) = (Some(mask), tables.slice_mut());
            evaluation_sums::cuda::evaluation_sums(stream, map, mask, batch, None, tables).unwrap();
        },
    )
}

/// For one sample the voxels above Otsu's threshold and the sum of their values, all and those in
/// the mask: what M3d-CAM's `wioa` and `iou` are made of, written with libtorch for NumPy.
fn composed(map: &Tensor, mask: &Tensor) -> [f64; 4] {
    let above = map.gt(otsu(map));
    let inside = above.logical_and(mask);
    [&above, &inside, &(map * &above), &(map * &inside)]
        .map(|values| values.sum(Kind::Double).double_value(&[]))
}

/// The centre of the bin of 256 behind which the variance between the two classes is greatest.
fn otsu(map: &Tensor) -> f64 {
    const BINS: i64 = 256;
    let counts = map.histc(BINS).to_kind(Kind::Double);
    let centres = (Tensor::arange(BINS, (Kind::Double, counts.device())) + 0.5) / BINS as f64;
    let low = counts.cumsum(0, Kind::Double);
    let low_sum = (&counts * centres).cumsum(0, Kind::Double);
    let (all, all_sum) = (low.get(BINS - 1), low_sum.get(BINS - 1));
    let high = &all - &low;
    let means = &low_sum / &low - (all_sum - &low_sum) / &high;
    let variance = (low * high * &means * &means).nan_to_num(0.0, None, None);
    (variance.argmax(0, false).int64_value(&[]) as f64 + 0.5) / BINS as f64
}
