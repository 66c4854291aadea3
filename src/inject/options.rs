//! What to make maps of, and where they go.

use std::path::PathBuf;

use ndarray::ArrayD;

use crate::evaluation::Evaluator;
use crate::methods::{Backend, Compat, ScoreAt, Target};
use crate::torch::{Guide, LayerChoice};
use crate::volumes::Input;

/// The size of a map, in voxels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MapSize {
    /// That of the network's input.
    #[default]
    Input,
    /// That of the layer; of the input, for the guided methods, whose maps live there.
    Layer,
    /// `D, H, W`; 2D has `D = 1`.
    Exact([usize; 3]),
}

/// How the maps of several layers become one.
///
/// Each layer's map is normalised first, so that all count alike, and the result again. In each
/// sample the maps that are rounding noise (warning `WEIGHTS_CANCEL`) are left out, as long as there is
/// another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fuse {
    /// The mean at each voxel.
    Mean,
    /// The greatest at each voxel.
    Max,
}

impl std::str::FromStr for Fuse {
    type Err = crate::Error;

    /// `mean` or `max`.
    fn from_str(text: &str) -> crate::Result<Self> {
        match text {
            "mean" => Ok(Self::Mean),
            "max" => Ok(Self::Max),
            _ => Err(crate::Error::usage(format!("fuse '{text}': expected mean or max"))),
        }
    }
}

/// Options of [`inject`](crate::inject()).
///
/// # Example
///
/// ```
/// use medcam::{Backend, LayerChoice, Options, Target};
///
/// let options = Options::default()
///     .backend(Backend::GRAD_CAM_PLUS_PLUS)
///     .layers(LayerChoice::Names(vec!["layer4".into()]))
///     .target(Target::Class(1))
///     .save_maps("attention_maps");
/// ```
#[derive(Debug, Clone)]
pub struct Options {
    pub(super) backend: Backend,
    pub(super) layers: LayerChoice,
    pub(super) targets: Vec<Target>,
    pub(super) score: ScoreAt,
    pub(super) compat: Compat,
    pub(super) guide: Guide,
    pub(super) size: MapSize,
    pub(super) fuse: Option<Fuse>,
    pub(super) save_maps: Option<PathBuf>,
    pub(super) save_archive: Option<PathBuf>,
    pub(super) evaluate: Option<Evaluator>,
    pub(super) save_scores: Option<PathBuf>,
    pub(super) replace: bool,
    pub(super) enabled: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            backend: Backend::default(),
            layers: LayerChoice::default(),
            targets: vec![Target::default()],
            score: ScoreAt::default(),
            compat: Compat::default(),
            guide: Guide::default(),
            size: MapSize::default(),
            fuse: None,
            save_maps: None,
            save_archive: None,
            evaluate: None,
            save_scores: None,
            replace: false,
            enabled: true,
        }
    }
}

impl Options {
    /// The attention method; Grad-CAM by default.
    #[must_use]
    pub fn backend(mut self, backend: Backend) -> Self {
        self.backend = backend;
        self
    }

    /// The layers; [`LayerChoice::Auto`] by default. Several share one forward and one backward,
    /// and each is reduced to its map as its gradient arrives. Guided Backpropagation takes none.
    #[must_use]
    pub fn layers(mut self, layers: LayerChoice) -> Self {
        self.layers = layers;
        self
    }

    /// What the maps explain; [`Target::Best`] by default.
    #[must_use]
    pub fn target(self, target: Target) -> Self {
        self.targets([target])
    }

    /// Several targets, each with maps of its own: one forward for all, one backward for each.
    #[must_use]
    pub fn targets(mut self, targets: impl IntoIterator<Item = Target>) -> Self {
        self.targets = targets.into_iter().collect();
        self
    }

    /// Whether the score is taken before a final softmax or sigmoid (the default) or after it.
    #[must_use]
    pub fn score(mut self, score: ScoreAt) -> Self {
        self.score = score;
        self
    }

    /// Whose numbers the maps have: [`Compat::M3dCam`] gives those of M3d-CAM 0.1.22, whatever
    /// [`score`](Self::score) says.
    #[must_use]
    pub fn compat(mut self, compat: Compat) -> Self {
        self.compat = compat;
        self
    }

    /// Which activations the guided methods guide; [`Guide::Relu`] by default.
    #[must_use]
    pub fn guide(mut self, guide: Guide) -> Self {
        self.guide = guide;
        self
    }

    /// The size of the maps; that of the input by default.
    #[must_use]
    pub fn size(mut self, size: MapSize) -> Self {
        self.size = size;
        self
    }

    /// Makes one map, of the layer `fused`, of those of all layers.
    #[must_use]
    pub fn fuse(mut self, fuse: Fuse) -> Self {
        self.fuse = Some(fuse);
        self
    }

    /// Writes the maps of each forward to `folder/LAYER/NAME.npy`, `(B, 1, [D,] H, W)` f32; to
    /// `NAME_TARGET.npy` where a forward has several targets. `NAME` is that of [`Call::name`], or
    /// six digits that count the calls of forward from 0, those too that failed.
    #[must_use]
    pub fn save_maps(mut self, folder: impl Into<PathBuf>) -> Self {
        self.save_maps = Some(folder.into());
        self
    }

    /// Collects the maps of all forwards in one `.npz` file, which
    /// [`Injected::dump`](crate::Injected::dump) completes: `NAME/LAYER/TARGET` is an array
    /// `(B, 1, [D,] H, W)` f32, with `NAME` as in [`save_maps`](Self::save_maps). Until then an older
    /// file of that name stays as it is, and without `dump` for good.
    #[must_use]
    pub fn save_archive(mut self, file: impl Into<PathBuf>) -> Self {
        self.save_archive = Some(file.into());
        self
    }

    /// Evaluates each map with the mask that [`Call::mask`] brings; see
    /// [`Injected::scores`](crate::Injected::scores).
    #[must_use]
    pub fn evaluate(mut self, evaluator: Evaluator) -> Self {
        self.evaluate = Some(evaluator);
        self
    }

    /// [`Injected::dump`](crate::Injected::dump) writes the scores of all forwards into this folder:
    /// see [`Evaluator::dump`].
    #[must_use]
    pub fn save_scores(mut self, folder: impl Into<PathBuf>) -> Self {
        self.save_scores = Some(folder.into());
        self
    }

    /// Whether [`forward`](crate::Injected::forward) returns the attention map, `(B, 1, [D,] H, W)`,
    /// in place of the network's output; it must be a single one then. Off by default.
    #[must_use]
    pub fn replace(mut self, replace: bool) -> Self {
        self.replace = replace;
        self
    }

    /// Whether maps are made at all; see [`Injected::enable`](crate::Injected::enable). On by
    /// default.
    #[must_use]
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }
}

/// What one forward has of its own; see [`Injected::forward_with`](crate::Injected::forward_with).
#[derive(Debug, Clone, Default)]
pub struct Call<'a> {
    pub(super) targets: Option<Vec<Target>>,
    pub(super) mask: Option<&'a ArrayD<f32>>,
    pub(super) raw_input: &'a [Input],
    pub(super) name: Option<String>,
}

impl<'a> Call<'a> {
    /// What the maps of this forward explain.
    #[must_use]
    pub fn target(mut self, target: Target) -> Self {
        self.targets = Some(vec![target]);
        self
    }

    /// The ground truth, `(B, 1, [D,] H, W)`, that the maps are evaluated with
    /// ([`Options::evaluate`]): 0/1, or a label at each voxel. The maps are resampled to its grid.
    #[must_use]
    pub fn mask(mut self, mask: &'a ArrayD<f32>) -> Self {
        self.mask = Some(mask);
        self
    }

    /// The images behind the batch, one per sample: [`Options::save_maps`] then also writes each
    /// map over its image, to `NAME_B_overlay.png` with `B` counting samples from 0.
    #[must_use]
    pub fn raw_input(mut self, images: &'a [Input]) -> Self {
        self.raw_input = images;
        self
    }
    /// The name under which the maps of this call are saved, archived and scored, in place of its
    /// running number: such as the stem of a file. It must be one part of a path, and archived maps
    /// cannot be replaced.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }
}
