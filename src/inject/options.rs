//! What an injected network is to do with each forward.

use std::path::PathBuf;

use ndarray::ArrayD;
use serde::Serialize;

use crate::evaluation::Scoring;
use crate::explain::{Fuse, MapSize, Request, Settings};
use crate::methods::{Backend, Compat, ScoreAt, Target};
use crate::torch::{Guide, LayerChoice};
use crate::volumes::{Input, Prepared};

/// Options of [`inject`](crate::inject()): how maps are made, and what becomes of them. Plain values, which can be
/// cloned, compared and written down (`serde`).
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

    /// What the maps explain; [`Target::Best`] by default.
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

    /// Before or after a final softmax or sigmoid: [`Settings::score`].
    #[must_use]
    pub fn score(mut self, score: ScoreAt) -> Self {
        self.settings.score = score;
        self
    }

    /// Whose numbers the maps have: [`Settings::compat`].
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

    /// Makes one map, of the layer `fused`, of those of all layers.
    #[must_use]
    pub fn fuse(mut self, fuse: Fuse) -> Self {
        self.settings.fuse = Some(fuse);
        self
    }

    /// Writes the maps of each forward into `folder/LAYER`: a NIfTI file with the affine of the image, `NAME.nii.gz`, where
    /// [`Call::image`] says which that is (`NAME.png` and `NAME.npy` for a picture), else `NAME.npy`,
    /// `(B, 1, [D,] H, W)` f32. `NAME` is that of [`Call::name`], or six digits that count the calls
    /// of forward from 0, those too that failed; `NAME_TARGET` where a forward has several targets.
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
    pub fn evaluate(mut self, scoring: Scoring) -> Self {
        self.evaluate = Some(scoring);
        self
    }

    /// [`Injected::dump`](crate::Injected::dump) writes the scores of all forwards into this folder:
    /// see [`Evaluator::dump`](crate::evaluation::Evaluator::dump).
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
    pub(super) request: Request,
    pub(super) mask: Option<&'a ArrayD<f32>>,
    pub(super) image: Option<&'a Prepared>,
    pub(super) raw_input: &'a [Input],
    pub(super) name: Option<String>,
}

impl<'a> Call<'a> {
    /// What the maps of this forward explain.
    #[must_use]
    pub fn target(mut self, target: Target) -> Self {
        self.request.targets = Some(vec![target]);
        self
    }

    /// The image that the batch was [prepared](crate::volumes::Card::prepare) from: maps are then of its own size
    /// ([`MapSize::Input`] being that of the image), and [`Options::save_maps`] writes them on its grid, a volume's
    /// as NIfTI with its affine.
    #[must_use]
    pub fn image(mut self, image: &'a Prepared) -> Self {
        self.image = Some(image);
        self
    }

    /// The ground truth, `(B, 1, [D,] H, W)` along the axes of the batch, that the maps are evaluated with
    /// ([`Options::evaluate`]): 0/1, or a label at each voxel. The maps are resampled to its grid.
    #[must_use]
    pub fn mask(mut self, mask: &'a ArrayD<f32>) -> Self {
        self.mask = Some(mask);
        self
    }

    /// The images behind the batch, one per sample: [`Options::save_maps`] then also draws each
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
