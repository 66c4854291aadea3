//! Options of an injected network, and of one forward.

use std::path::PathBuf;

use ndarray::ArrayD;
use serde::Serialize;

use crate::evaluation::Scoring;
use crate::explain::{Fuse, MapSize, Request, Settings};
use crate::methods::{Backend, Compat, ScoreAt, Target};
use crate::torch::{Guide, LayerChoice};
use crate::volumes::{Input, Prepared};

/// Options of [`inject`](crate::inject()): how maps are computed, scored and saved. Plain values
/// that can be cloned, compared and serialised (`serde`).
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
/// assert_eq!(options.clone(), options);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Options {
    #[serde(flatten)]
    pub(super) settings: Settings,
    pub(super) save_maps: Option<PathBuf>,
    pub(super) save_archive: Option<PathBuf>,
    pub(super) evaluate: Option<Scoring>,
    pub(super) save_scores: Option<PathBuf>,
    pub(super) replace: bool,
    pub(super) enabled: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            settings: Settings::default(),
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
    /// The attention method: [`Settings::backend`].
    #[must_use]
    pub fn backend(mut self, backend: Backend) -> Self {
        self.settings.backend = backend;
        self
    }

    /// The layers: [`Settings::layers`].
    #[must_use]
    pub fn layers(mut self, layers: LayerChoice) -> Self {
        self.settings.layers = layers;
        self
    }

    /// The target to explain; [`Target::Best`] by default.
    #[must_use]
    pub fn target(self, target: Target) -> Self {
        self.targets([target])
    }

    /// Several targets, each with maps of its own: [`Settings::targets`].
    #[must_use]
    pub fn targets(mut self, targets: impl IntoIterator<Item = Target>) -> Self {
        self.settings.targets = targets.into_iter().collect();
        self
    }

    /// Whether the score is taken before or after a final softmax or sigmoid: [`Settings::score`].
    #[must_use]
    pub fn score(mut self, score: ScoreAt) -> Self {
        self.settings.score = score;
        self
    }

    /// Whether maps reproduce the numbers of M3d-CAM: [`Settings::compat`].
    #[must_use]
    pub fn compat(mut self, compat: Compat) -> Self {
        self.settings.compat = compat;
        self
    }

    /// Which activations the guided methods guide: [`Settings::guide`].
    #[must_use]
    pub fn guide(mut self, guide: Guide) -> Self {
        self.settings.guide = guide;
        self
    }

    /// The size of the maps: [`Settings::size`].
    #[must_use]
    pub fn size(mut self, size: MapSize) -> Self {
        self.settings.size = size;
        self
    }

    /// Fuses the maps of all layers to one map, of the layer `fused`.
    #[must_use]
    pub fn fuse(mut self, fuse: Fuse) -> Self {
        self.settings.fuse = Some(fuse);
        self
    }

    /// Writes the maps of each forward into `folder/LAYER`. If [`Call::image`] is given, a volume's
    /// maps become `NAME.nii.gz` with its affine, and a picture's `NAME.png` and `NAME.npy`.
    /// Otherwise they become `NAME.npy`, `(B, 1, [D,] H, W)` f32.
    ///
    /// `NAME` is that of [`Call::name`], or six digits that count the calls of forward from 0,
    /// failed ones included. With several targets, it is `NAME_TARGET`.
    #[must_use]
    pub fn save_maps(mut self, folder: impl Into<PathBuf>) -> Self {
        self.save_maps = Some(folder.into());
        self
    }

    /// Collects the maps of all forwards in one `.npz` file, which
    /// [`Injected::dump`](crate::Injected::dump) completes: `NAME/LAYER/TARGET` is an array
    /// `(B, 1, [D,] H, W)` f32, with `NAME` as in [`save_maps`](Self::save_maps). An existing file
    /// of that name stays until `dump` replaces it.
    #[must_use]
    pub fn save_archive(mut self, file: impl Into<PathBuf>) -> Self {
        self.save_archive = Some(file.into());
        self
    }

    /// Scores each map against the mask of [`Call::mask`]; see
    /// [`Injected::scores`](crate::Injected::scores).
    #[must_use]
    pub fn evaluate(mut self, scoring: Scoring) -> Self {
        self.evaluate = Some(scoring);
        self
    }

    /// [`Injected::dump`](crate::Injected::dump) writes the scores of all forwards into this
    /// folder: see [`Evaluator::dump`](crate::evaluation::Evaluator::dump).
    #[must_use]
    pub fn save_scores(mut self, folder: impl Into<PathBuf>) -> Self {
        self.save_scores = Some(folder.into());
        self
    }

    /// Whether [`forward`](crate::Injected::forward) returns the attention map,
    /// `(B, 1, [D,] H, W)`, in place of the network's output; there must be a single map then. Off
    /// by default.
    #[must_use]
    pub fn replace(mut self, replace: bool) -> Self {
        self.replace = replace;
        self
    }

    /// Whether maps are computed at all; see [`Injected::enable`](crate::Injected::enable). On by
    /// default.
    #[must_use]
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }
}

/// Options of one forward; see [`Injected::forward_with`](crate::Injected::forward_with).
#[derive(Debug, Clone, Default)]
pub struct Call<'a> {
    pub(super) request: Request,
    pub(super) mask: Option<&'a ArrayD<f32>>,
    pub(super) image: Option<&'a Prepared>,
    pub(super) raw_input: &'a [Input],
    pub(super) name: Option<String>,
}

impl<'a> Call<'a> {
    /// The target of this forward.
    #[must_use]
    pub fn target(mut self, target: Target) -> Self {
        self.request.targets = Some(vec![target]);
        self
    }

    /// The image from which the batch was [prepared](crate::volumes::Card::prepare).
    /// [`MapSize::Input`] then means the image's own size, and [`Options::save_maps`] writes the
    /// maps on the image's grid, those of a volume as NIfTI with its affine.
    #[must_use]
    pub fn image(mut self, image: &'a Prepared) -> Self {
        self.image = Some(image);
        self
    }

    /// The ground truth that the maps are scored against ([`Options::evaluate`]):
    /// `(B, 1, [D,] H, W)` in the axes of the batch, on any grid, with 0/1 or a label at each
    /// voxel. The maps are resampled to its grid.
    #[must_use]
    pub fn mask(mut self, mask: &'a ArrayD<f32>) -> Self {
        self.mask = Some(mask);
        self
    }

    /// The images that the batch shows, one per sample: [`Options::save_maps`] then also draws each
    /// map over its image, to `NAME_B_overlay.png` with `B` counting samples from 0.
    #[must_use]
    pub fn raw_input(mut self, images: &'a [Input]) -> Self {
        self.raw_input = images;
        self
    }

    /// The name under which the maps of this call are saved, archived and scored, instead of its
    /// running number: such as the stem of a file. It must be a single path component, and not in
    /// the archive already.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }
}
