//! What to make maps of, and where they go.

use std::path::PathBuf;

use crate::methods::{Backend, ScoreAt, Target};
use crate::torch::LayerChoice;

/// The size of a map, in voxels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MapSize {
    /// That of the network's input.
    #[default]
    Input,
    /// That of the layer.
    Layer,
    /// `D, H, W`; 2D has `D = 1`.
    Exact([usize; 3]),
}

/// Options of [`inject`](crate::inject()).
///
/// # Example
///
/// ```
/// use medcam::{LayerChoice, Options, Target};
///
/// let options = Options::default()
///     .layers(LayerChoice::Names(vec!["layer4".into()]))
///     .target(Target::Class(1))
///     .save_maps("attention_maps");
/// ```
#[derive(Debug, Clone, Default)]
pub struct Options {
    pub(super) backend: Backend,
    pub(super) layers: LayerChoice,
    pub(super) target: Target,
    pub(super) score: ScoreAt,
    pub(super) size: MapSize,
    pub(super) save_maps: Option<PathBuf>,
}

impl Options {
    /// The attention method; Grad-CAM by default.
    #[must_use]
    pub fn backend(mut self, backend: Backend) -> Self {
        self.backend = backend;
        self
    }

    /// The layers; [`LayerChoice::Auto`] by default.
    #[must_use]
    pub fn layers(mut self, layers: LayerChoice) -> Self {
        self.layers = layers;
        self
    }

    /// What the maps explain; [`Target::Best`] by default.
    #[must_use]
    pub fn target(mut self, target: Target) -> Self {
        self.target = target;
        self
    }

    /// Whether the score is taken before a final softmax or sigmoid (the default) or after it.
    #[must_use]
    pub fn score(mut self, score: ScoreAt) -> Self {
        self.score = score;
        self
    }

    /// The size of the maps; that of the input by default.
    #[must_use]
    pub fn size(mut self, size: MapSize) -> Self {
        self.size = size;
        self
    }

    /// Writes the maps of each forward to `folder/LAYER/NNNNNN.npy`, `(B, 1, [D,] H, W)` f32,
    /// `NNNNNN` counting forwards from 0.
    #[must_use]
    pub fn save_maps(mut self, folder: impl Into<PathBuf>) -> Self {
        self.save_maps = Some(folder.into());
        self
    }
}
