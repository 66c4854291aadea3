//! The attention methods by name.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::evidence::Evidence;
use crate::bridge::LayerMaps;
use crate::error::{Error, Result};
use crate::ops::{Denominator, Method};

/// The gradients and activations that an attention method needs from a network's run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// The activation of each layer, and the gradient of the score with respect to it.
    pub layer: bool,
    /// The gradient of the score with respect to the input, guided at each activation.
    pub guided: bool,
}

/// An attention method: the tensors that it needs from a network's run, and how it computes maps
/// from them.
///
/// The methods of this crate are in [`Backend::ALL`]. [`Backend::new`] makes one of your own:
///
/// ```
/// use medcam::{Attention, Backend, Evidence, LayerMaps, Needs, Options, Result};
///
/// /// The mean of the activation over its channels, whatever the score.
/// #[derive(Debug)]
/// struct MeanActivation;
///
/// impl Attention for MeanActivation {
///     fn name(&self) -> &'static str {
///         "mean"
///     }
///     fn title(&self) -> &'static str {
///         "Mean activation"
///     }
///     fn needs(&self) -> Needs {
///         Needs { layer: true, guided: false }
///     }
///     fn maps(&self, evidence: &mut Evidence) -> Result<LayerMaps> {
///         let channels: &[i64] = &[1];
///         let mean = evidence.activation()?.mean_dim(channels, true, None);
///         evidence.finish(&mean)
///     }
/// }
///
/// static MEAN: MeanActivation = MeanActivation;
/// let options = Options::default().backend(Backend::new(&MEAN));
/// ```
pub trait Attention: fmt::Debug + Send + Sync {
    /// The name in options, files and records: `gcam`.
    fn name(&self) -> &'static str;

    /// The name for people: Grad-CAM.
    fn title(&self) -> &'static str;

    /// The tensors that it needs. Without `layer`, there is one map per sample, at the input.
    fn needs(&self) -> Needs;

    /// The maps of one layer, one per sample.
    ///
    /// # Errors
    ///
    /// If the evidence is not finite, or the maps do not fit into memory.
    fn maps(&self, evidence: &mut Evidence) -> Result<LayerMaps>;
}

/// An attention method, one of this crate's or [your own](Attention).
///
/// `A[b,c,n]` is the activation of a layer, `G[b,c,n]` the gradient of the score with respect to
/// it.
///
/// | name | | the map, before it is resampled to its size and normalised per sample |
/// |---|---|---|
/// | `gcam` | [`GRAD_CAM`](Self::GRAD_CAM) | `ReLU(sum_c w·A)`, `w[b,c] = mean_n G` (arXiv 1610.02391; for segmentation Seg-Grad-CAM, arXiv 2002.11434) |
/// | `gcampp` | [`GRAD_CAM_PLUS_PLUS`](Self::GRAD_CAM_PLUS_PLUS) | the same, `w[b,c] = sum_n alpha·ReLU(G)`, see [`alpha_weights()`](crate::ops::alpha_weights()) (arXiv 1710.11063) |
/// | `gbp` | [`GUIDED_BACKPROPAGATION`](Self::GUIDED_BACKPROPAGATION) | the mean over the input's channels of the gradient at the input, guided at each activation, see [`Guide`](crate::Guide) (arXiv 1412.6806); signed. No layer is chosen |
/// | `ggcam` | [`GUIDED_GRAD_CAM`](Self::GUIDED_GRAD_CAM) | `gcam`'s, resampled, times `gbp`'s (arXiv 1610.02391, section 3.2), from one forward; signed |
/// | `hirescam` | [`HIRES_CAM`](Self::HIRES_CAM) | `ReLU(sum_c G·A)` (arXiv 2011.08891) |
/// | `layercam` | [`LAYER_CAM`](Self::LAYER_CAM) | `ReLU(sum_c ReLU(G)·A)` (Jiang et al. 2021, IEEE TIP 30) |
///
/// # Example
///
/// ```
/// use medcam::Backend;
///
/// assert_eq!("gcampp".parse::<Backend>()?, Backend::GRAD_CAM_PLUS_PLUS);
/// assert_eq!(Backend::GRAD_CAM_PLUS_PLUS.to_string(), "Grad-CAM++");
/// # Ok::<(), medcam::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Backend(&'static dyn Attention);

impl Backend {
    /// Grad-CAM.
    pub const GRAD_CAM: Self =
        Self(&Cam { name: "gcam", title: "Grad-CAM", method: Method::GradCam });
    /// Grad-CAM++, with the denominator of the paper.
    pub const GRAD_CAM_PLUS_PLUS: Self = Self(&Cam {
        name: "gcampp",
        title: "Grad-CAM++",
        method: Method::GradCamPlusPlus(Denominator::Paper),
    });
    /// Guided Backpropagation.
    pub const GUIDED_BACKPROPAGATION: Self = Self(&GuidedBackpropagation);
    /// Guided Grad-CAM.
    pub const GUIDED_GRAD_CAM: Self = Self(&GuidedGradCam);
    /// HiResCAM.
    pub const HIRES_CAM: Self =
        Self(&Cam { name: "hirescam", title: "HiResCAM", method: Method::HiResCam });
    /// LayerCAM.
    pub const LAYER_CAM: Self =
        Self(&Cam { name: "layercam", title: "LayerCAM", method: Method::LayerCam });

    /// All methods of this crate.
    pub const ALL: [Self; 6] = [
        Self::GRAD_CAM,
        Self::GRAD_CAM_PLUS_PLUS,
        Self::GUIDED_BACKPROPAGATION,
        Self::GUIDED_GRAD_CAM,
        Self::HIRES_CAM,
        Self::LAYER_CAM,
    ];

    /// A method of your own.
    pub const fn new(method: &'static dyn Attention) -> Self {
        Self(method)
    }

    /// The name in options, files and records.
    pub fn name(self) -> &'static str {
        self.0.name()
    }

    /// The tensors that it needs from a network's run.
    pub fn needs(self) -> Needs {
        self.0.needs()
    }

    pub(crate) fn maps(self, evidence: &mut Evidence) -> Result<LayerMaps> {
        self.0.maps(evidence)
    }
}

impl Default for Backend {
    fn default() -> Self {
        Self::GRAD_CAM
    }
}

/// Backends are equal by name.
impl PartialEq for Backend {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Backend {}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.title())
    }
}

impl Serialize for Backend {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl FromStr for Backend {
    type Err = Error;

    /// One of [`Backend::ALL`], by its name.
    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|backend| backend.name() == text).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|backend| backend.name()).collect();
            Error::usage(format!("backend '{text}': expected one of {}", names.join(", ")))
        })
    }
}

/// A method that weights the activation of a layer.
#[derive(Debug)]
struct Cam {
    name: &'static str,
    title: &'static str,
    method: Method,
}

impl Attention for Cam {
    fn name(&self) -> &'static str {
        self.name
    }

    fn title(&self) -> &'static str {
        self.title
    }

    fn needs(&self) -> Needs {
        Needs { layer: true, guided: false }
    }

    fn maps(&self, evidence: &mut Evidence) -> Result<LayerMaps> {
        evidence.cam(self.method)
    }
}

#[derive(Debug)]
struct GuidedBackpropagation;

impl Attention for GuidedBackpropagation {
    fn name(&self) -> &'static str {
        "gbp"
    }

    fn title(&self) -> &'static str {
        "Guided Backpropagation"
    }

    fn needs(&self) -> Needs {
        Needs { layer: false, guided: true }
    }

    fn maps(&self, evidence: &mut Evidence) -> Result<LayerMaps> {
        evidence.guided()
    }
}

#[derive(Debug)]
struct GuidedGradCam;

impl Attention for GuidedGradCam {
    fn name(&self) -> &'static str {
        "ggcam"
    }

    fn title(&self) -> &'static str {
        "Guided Grad-CAM"
    }

    fn needs(&self) -> Needs {
        Needs { layer: true, guided: true }
    }

    fn maps(&self, evidence: &mut Evidence) -> Result<LayerMaps> {
        evidence.guided_cam(Method::GradCam)
    }
}
