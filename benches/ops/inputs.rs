//! Inputs that no cache holds when they are read.

use medcam::tch::{self, Kind, Tensor};
use medcam::{Layout, Shape};

use super::case::{Case, Input, Values};

/// Sets of inputs are used in turn, and together have at least so many bytes: several times the
/// last level of cache of a processor and the second of a GPU.
const COLD_BYTES: usize = 256 << 20;

/// At most so many sets: small maps are not worth more tensors, and may come from a cache.
const MOST_SETS: usize = 1 << 10;

/// Random values are repeated after so many.
const PERIOD: usize = 1 << 20;

/// As many sets of a case's inputs as it takes; one for a trial.
pub fn sets(case: &Case, trial: bool) -> Vec<Vec<Tensor>> {
    let count = COLD_BYTES.div_ceil(case.read()).min(if trial { 1 } else { MOST_SETS });
    tch::manual_seed(0);
    let block = Tensor::rand([i64::try_from(PERIOD).unwrap()], (Kind::Float, tch::Device::Cpu));
    let device = case.layer.place.device();
    let set = |_| case.inputs.iter().map(|input| tensor(input, &block, device)).collect();
    (0..count).map(set).collect()
}

/// A tensor `(B, C, D, H, W)`, or `(B, C, H, W)`.
fn tensor(input: &Input, block: &Tensor, device: tch::Device) -> Tensor {
    let block = match input.values {
        Values::Signed => block * 2.0 - 1.0,
        Values::Rectified => (block * 2.0 - 1.0).relu(),
        Values::Normalized => block.shallow_clone(),
        Values::Binary => block.gt(0.7),
    };
    let block = block.to_kind(input.kind).to_device(device);
    let Shape { batch, channels, spatial } = input.shape;
    let elements = i64::try_from(input.shape.elements()).unwrap();
    let repeats = input.shape.elements().div_ceil(PERIOD);
    let values = block.repeat([i64::try_from(repeats).unwrap()]).narrow(0, 0, elements);
    // Its own memory, in full: the pages of a view would be shared.
    let values = values.copy();

    let spatial = if input.planar { &spatial[1..] } else { &spatial[..] };
    let extents = |order: &[usize]| -> Vec<i64> {
        order.iter().map(|&extent| i64::try_from(extent).unwrap()).collect()
    };
    match input.layout {
        Layout::Contiguous => values.view(&extents(&[&[batch, channels], spatial].concat())[..]),
        Layout::ChannelsLast => {
            let values = values.view(&extents(&[&[batch], spatial, &[channels]].concat())[..]);
            let rank = i64::try_from(spatial.len()).unwrap();
            let order: Vec<i64> = [0, rank + 1].into_iter().chain(1..=rank).collect();
            values.permute(&order[..])
        }
    }
}
