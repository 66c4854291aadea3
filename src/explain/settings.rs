//! What is asked of an explainer: once for all calls, and in one call.

use serde::Serialize;

use crate::methods::{Backend, Compat, ScoreAt, Target};
use crate::torch::{Guide, LayerChoice};

/// The size of a map, in voxels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
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

/// How an [`Explainer`](crate::Explainer) makes maps, whatever the batch: plain values, which can be
/// cloned, compared and written down (`serde`).
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
    /// The layers; [`LayerChoice::Auto`] by default. Several share one forward and one backward, and
    /// each is reduced to its map as its gradient arrives. Guided Backpropagation takes none.
    pub layers: LayerChoice,
    /// What the maps explain, each target with maps of its own: one forward for all, one backward for
    /// each. [`Target::Best`] by default.
    pub targets: Vec<Target>,
    /// Whether the score is taken before a final softmax or sigmoid (the default) or after it.
    pub score: ScoreAt,
    /// Whose numbers the maps have: [`Compat::M3dCam`] gives those of M3d-CAM 0.1.22, whatever `score`
    /// says.
    pub compat: Compat,
    /// Which activations the guided methods guide; [`Guide::Relu`] by default.
    pub guide: Guide,
    /// The size of the maps; that of the input by default.
    pub size: MapSize,
    /// Makes one map, of the layer `fused`, of those of all layers.
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

/// What one call asks for in place of the explainer's [`Settings`]; nothing by default.
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
    /// What the maps explain.
    pub targets: Option<Vec<Target>>,
    /// The size of the maps.
    pub size: Option<MapSize>,
}
