//! Inputs that no cache holds when they are read.

use std::collections::HashMap;

use medcam::tch::{self, Kind, Tensor};
use medcam::{Layout, Shape};

use super::case::{Case, Input, Values, kind_name};

/// Sets of inputs are used in turn, and together have at least so many bytes: several times the
/// last level of cache of a processor and the second of a GPU.
const COLD_BYTES: usize = 256 << 20;

/// At most so many sets: small maps are not worth more tensors, and may come from a cache.
const MOST_SETS: usize = 1 << 10;

/// The same on a GPU, where sets are cheap; and as many where even these would fit in its cache.
const MOST_SETS_ON_A_GPU: usize = 1 << 11;
const WARM_SETS: usize = 64;

/// Values of an input on a GPU begin at a multiple of this, as those of an allocation do.
const ALIGNMENT: usize = 256;

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

/// What an input holds, made of values that are uniform in `[0, 1)`.
fn valued(values: Values, uniform: &Tensor) -> Tensor {
    match values {
        Values::Signed => uniform * 2.0 - 1.0,
        Values::Rectified => (uniform * 2.0 - 1.0).relu(),
        Values::Normalized => uniform.shallow_clone(),
        Values::Binary => uniform.gt(0.7),
    }
}

/// A tensor `(B, C, D, H, W)`, or `(B, C, H, W)`.
fn tensor(input: &Input, block: &Tensor, device: tch::Device) -> Tensor {
    let block = valued(input.values, block);
    let block = block.to_kind(input.kind).to_device(device);
    let elements = i64::try_from(input.shape.elements()).unwrap();
    let repeats = input.shape.elements().div_ceil(PERIOD);
    let values = block.repeat([i64::try_from(repeats).unwrap()]).narrow(0, 0, elements);
    // Its own memory, in full: the pages of a view would be shared.
    let values = values.copy();

    shaped(input, &values)
}

/// The values, in the order of memory, as a tensor `(B, C, D, H, W)` or `(B, C, H, W)`.
fn shaped(input: &Input, values: &Tensor) -> Tensor {
    let Shape { batch, channels, spatial } = input.shape;
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

/// Random values on a GPU, made there. Inputs are pieces of them, so that making hundreds of sets
/// takes neither an upload nor a kernel for each.
#[derive(Default)]
pub struct Pools(HashMap<(Values, &'static str), Tensor>);

impl Pools {
    /// As many sets of a case's inputs as it takes, one for a trial; and whether these are too much for
    /// a cache.
    pub fn sets(&mut self, case: &Case, trial: bool) -> (Vec<Vec<Tensor>>, bool) {
        let wanted = COLD_BYTES.div_ceil(case.read());
        let count = match (trial, wanted > MOST_SETS_ON_A_GPU) {
            (true, _) => 1,
            (_, true) => WARM_SETS,
            _ => wanted,
        };
        let mut needed = HashMap::new();
        for input in &case.inputs {
            *needed.entry(key(input)).or_insert(0) += count * room(input);
        }
        for (input, key) in case.inputs.iter().map(|input| (input, key(input))) {
            let elements = i64::try_from(needed[&key]).unwrap();
            if self.0.get(&key).is_none_or(|pool| pool.numel() < needed[&key]) {
                // Its memory goes back first.
                self.0.remove(&key);
                let device = case.layer.place.device();
                // In f32 first, and more for the masks of comparisons: some bytes for each value.
                let uniform = Tensor::rand([elements], (Kind::Float, device));
                self.0.insert(key, valued(input.values, &uniform).to_kind(input.kind));
            }
        }
        let mut used = HashMap::new();
        let sets = (0..count)
            .map(|_| case.inputs.iter().map(|input| self.piece(input, &mut used)).collect())
            .collect();
        (sets, wanted <= MOST_SETS_ON_A_GPU)
    }

    fn piece(&self, input: &Input, used: &mut HashMap<(Values, &'static str), usize>) -> Tensor {
        let from = used.entry(key(input)).or_insert(0);
        let [start, length] =
            [*from, input.shape.elements()].map(|number| i64::try_from(number).unwrap());
        *from += room(input);
        shaped(input, &self.0[&key(input)].narrow(0, start, length))
    }
}

fn key(input: &Input) -> (Values, &'static str) {
    (input.values, kind_name(input.kind))
}

/// The values of an input, and those up to where the next may begin.
fn room(input: &Input) -> usize {
    input.shape.elements().next_multiple_of(ALIGNMENT / input.kind.elt_size_in_bytes())
}
