//! Options of an explainer, for all calls and for one call.

use serde::Serialize;

use crate::methods::{Backend, Compat, ScoreAt, Target};
use crate::torch::{Guide, LayerChoice};

/// The size of a map, in voxels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MapSize {
    /// The size of the network's input.
    #[default]
    Input,
    /// The size of the layer; for the guided methods that of the input, on whose grid their maps
    /// are computed.
    Layer,
    /// `D, H, W`; 2D has `D = 1`.
    Exact([usize; 3]),
}

/// How the maps of several layers become one.
///
/// Each layer's map is normalised first, so that all layers count equally, and the fused map again.
/// In each sample, maps that are rounding noise (warning `WEIGHTS_CANCEL`) are left out unless all
/// are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
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

/// Options of an [`Explainer`](crate::Explainer) that hold for all batches: plain values that can
/// be cloned, compared and serialised (`serde`).
///
/// # Example
///
/// ```
/// use medcam::{Backend, Settings, Target};
///
/// let settings = Settings { targets: vec![Target::Class(1)], ..Settings::default() };
/// assert_eq!(settings.backend, Backend::GRAD_CAM);
/// let json = serde_json::to_string(&settings).unwrap();
/// assert!(json.starts_with(r#"{"backend":"gcam","layers":"auto","targets":["1"],"#), "{json}");
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Settings {
    /// The attention method; Grad-CAM by default.
    pub backend: Backend,
    /// The layers; [`LayerChoice::Auto`] by default. Several share one forward and one backward,
    /// and each is reduced to its map as its gradient arrives. Guided Backpropagation takes no
    /// layer.
    pub layers: LayerChoice,
    /// The targets to explain, each with maps of its own: one forward for all, one backward for
    /// each. [`Target::Best`] by default.
    pub targets: Vec<Target>,
    /// Whether the score is taken before a final softmax or sigmoid (the default) or after it.
    pub score: ScoreAt,
    /// Whether maps reproduce the numbers of M3d-CAM 0.1.22; [`Compat::M3dCam`] overrides `score`.
    pub compat: Compat,
    /// Which activations the guided methods guide; [`Guide::Relu`] by default.
    pub guide: Guide,
    /// The size of the maps; that of the input by default.
    pub size: MapSize,
    /// Fuses the maps of all layers to one map, of the layer `fused`.
    pub fuse: Option<Fuse>,
}

impl Default for Settings {
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
        }
    }
}

/// Options that replace the explainer's [`Settings`] for one call; none by default.
///
/// # Example
///
/// ```
/// use medcam::{MapSize, Request, Target};
///
/// let request = Request { targets: Some(vec![Target::Class(2)]), ..Request::default() };
/// assert_eq!(request.size, None);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Request {
    /// Replaces [`Settings::targets`].
    pub targets: Option<Vec<Target>>,
    /// Replaces [`Settings::size`].
    pub size: Option<MapSize>,
}
