//! The layers that every op is measured on.

use medcam::tch::Kind;
use medcam::{Layout, Shape};

use super::case::{Layer, Place};

/// The stages of a 2D and of a 3D classifier and of a 3D segmentation network, up to full
/// resolution: channels, grid, and the grid of the network's input.
const SIZES: [(usize, [usize; 3], [usize; 3]); 8] = [
    (2048, [1, 7, 7], [1, 224, 224]),
    (512, [1, 28, 28], [1, 224, 224]),
    (64, [1, 224, 224], [1, 224, 224]),
    (512, [4, 7, 7], [32, 112, 112]),
    (320, [8, 8, 8], [128, 128, 128]),
    (128, [32, 32, 32], [128, 128, 128]),
    (64, [64, 64, 64], [128, 128, 128]),
    (32, [128, 128, 128], [128, 128, 128]),
];

/// The sizes that the other types, the other layout and one thread are measured on.
const OTHERS: [usize; 2] = [0, 6];

/// The elements of a layer that is small enough for a trial run (`cargo bench -- --test`).
const TRIAL_ELEMENTS: usize = 1 << 18;

/// All layers; only small ones for a trial.
pub fn layers(trial: bool) -> Vec<Layer> {
    let mut layers = on(Place::Cpu);
    // Asking also loads libtorch's CUDA part.
    if medcam::Device::Cuda(0).available().is_ok() {
        layers.extend(on(Place::Cuda));
    }
    layers.retain(|layer| !trial || layer.shape.elements() <= TRIAL_ELEMENTS);
    layers
}

fn on(place: Place) -> Vec<Layer> {
    let layer = |size: usize, place, kind, layout| {
        let (channels, spatial, input) = SIZES[size];
        Layer { place, kind, shape: Shape { batch: 1, channels, spatial }, layout, input }
    };
    let usual = |size| layer(size, place, Kind::Float, Layout::Contiguous);
    let mut layers: Vec<Layer> = (0..SIZES.len()).map(usual).collect();
    for kind in [Kind::Half, Kind::BFloat16] {
        layers.extend(OTHERS.map(|size| layer(size, place, kind, Layout::Contiguous)));
    }
    layers.extend(OTHERS.map(|size| layer(size, place, Kind::Float, Layout::ChannelsLast)));
    if place == Place::Cpu {
        let one = Place::CpuOneThread;
        layers.extend(OTHERS.map(|size| layer(size, one, Kind::Float, Layout::Contiguous)));
    }
    layers
}
