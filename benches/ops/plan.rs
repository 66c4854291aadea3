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

/// All layers on the CPU.
pub fn on_cpu() -> Vec<Layer> {
    let sizes = sizes();
    let mut layers = on(Place::Cpu, &sizes);
    layers.extend(
        sizes
            .iter()
            .filter(|size| size.all_types)
            .map(|size| layer(size, Place::CpuOneThread, Kind::Float, Layout::Contiguous)),
    );
    layers
}

/// All layers on a CUDA device.
pub fn on_cuda() -> Vec<Layer> {
    on(Place::Cuda, &sizes())
}

fn sizes() -> Vec<Size> {
    serde_json::from_str(SIZES).unwrap()
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
