//! The layers that every op is measured on.

use medcam::tch::Kind;
use medcam::{Layout, Shape};
use serde::Deserialize;

use super::case::{Layer, Place};

/// The stages of a 2D and of a 3D classifier and of a 3D segmentation network, up to full
/// resolution. A file, since Python's torch is measured on the same.
const SIZES: &str = include_str!("sizes.json");

#[derive(Deserialize)]
struct Size {
    channels: usize,
    grid: [usize; 3],
    /// The grid of the network's input.
    input: [usize; 3],
    /// Whether the other types, the other layout and one thread are measured, too.
    #[serde(default)]
    all_types: bool,
}

/// The elements of a layer that is small enough for a trial run (`cargo bench -- --test`).
const TRIAL_ELEMENTS: usize = 1 << 18;

/// All layers; only small ones for a trial.
pub fn layers(trial: bool) -> Vec<Layer> {
    let sizes: Vec<Size> = serde_json::from_str(SIZES).unwrap();
    let mut layers = on(Place::Cpu, &sizes);
    layers.extend(
        sizes
            .iter()
            .filter(|size| size.all_types)
            .map(|size| layer(size, Place::CpuOneThread, Kind::Float, Layout::Contiguous)),
    );
    // Asking also loads libtorch's CUDA part.
    if medcam::Device::Cuda(0).available().is_ok() {
        layers.extend(on(Place::Cuda, &sizes));
    }
    layers.retain(|layer| !trial || layer.shape.elements() <= TRIAL_ELEMENTS);
    layers
}

fn on(place: Place, sizes: &[Size]) -> Vec<Layer> {
    let mut layers = Vec::new();
    for size in sizes {
        layers.push(layer(size, place, Kind::Float, Layout::Contiguous));
        if size.all_types {
            layers.push(layer(size, place, Kind::Half, Layout::Contiguous));
            layers.push(layer(size, place, Kind::BFloat16, Layout::Contiguous));
            layers.push(layer(size, place, Kind::Float, Layout::ChannelsLast));
        }
    }
    layers
}

fn layer(size: &Size, place: Place, kind: Kind, layout: Layout) -> Layer {
    let shape = Shape { batch: 1, channels: size.channels, spatial: size.grid };
    Layer { place, kind, shape, layout, input: size.input }
}
