//! The model card: what a model expects of its input, as a `MODEL.toml` beside the model.

use std::path::Path;

use serde::Deserialize;

use super::affine::Orientation;
use crate::error::{Error, Result};
use crate::ops::Interpolation;

/// What a model expects of its input; read from a `MODEL.toml`, described in
/// `docs/model-card.md`.
///
/// The default card changes little: voxels as stored, pictures from 0 to 1, no resizing, no
/// intensity steps.
///
/// # Example
///
/// ```
/// use medcam::volumes::Card;
///
/// let card: Card = r#"
///     classes = ["background", "brain"]
///     [input]
///     orientation = "RAS"
///     size = [128, 128, 128]
///     interpolation = "nearest"
///     [[intensity]]
///     clip_percentiles = [0.5, 99.5]
/// "#.parse().unwrap();
/// assert_eq!(card.intensity.len(), 1);
///
/// let error = "clases = []".parse::<Card>().unwrap_err();
/// assert!(error.to_string().contains("expected one of"));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Card {
    /// The model's name.
    pub name: Option<String>,
    /// The licence of its weights.
    pub license: Option<String>,
    /// Where the model comes from.
    pub source: Option<String>,
    /// The names of the classes, by index.
    pub classes: Option<Vec<String>>,
    /// Orientation, size and order of axes.
    pub input: InputCard,
    /// Intensity steps, applied in this order after reorientation and resizing.
    pub intensity: Vec<Step>,
}

/// The `[input]` table of a [`Card`].
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "InputTable")]
pub struct InputCard {
    /// Anatomical directions of a volume's axes x, y and z; `None` keeps the stored orientation.
    pub orientation: Option<Orientation>,
    /// Number of the model's spatial axes, 2 or 3; `None` takes it from the model. For a 2D model,
    /// a volume of one slice loses the axis of extent 1.
    pub spatial_dims: Option<usize>,
    /// Size or spacing to which images are resampled; `None` keeps the stored grid.
    pub sampling: Option<Sampling>,
    /// Interpolation used when an image is resampled.
    pub interpolation: Interpolation,
    /// Which image axes become the tensor's `D, H, W`.
    pub axes: AxisOrder,
    /// Colour channels to which a 2D image is converted; `None` keeps the stored channels.
    pub color: Option<Color>,
    /// Range of a 2D image's values.
    pub values: Values,
    /// How NaN and infinite values are handled.
    pub nan: Nan,
}

/// The grid on which a model wants its input, in the order of the tensor's axes
/// (`D, H, W`; `H, W` for a 2D model).
#[derive(Debug, Clone, PartialEq)]
pub enum Sampling {
    /// Extents in voxels.
    Size(Vec<usize>),
    /// Distances between voxel centres in millimetres; the extent becomes `round(n·old/new)`, at
    /// least 1.
    SpacingMm(Vec<f64>),
}

/// Which image axes become the tensor's `D, H, W`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum AxisOrder {
    /// `D, H, W` = x, y, z, as nibabel and MONAI have it.
    #[default]
    #[serde(rename = "xyz")]
    Xyz,
    /// `D, H, W` = z, y, x, as SimpleITK and nnU-Net have it.
    #[serde(rename = "zyx")]
    Zyx,
}

/// The channels of a 2D image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Color {
    /// Red, green, blue; a gray image three times.
    Rgb,
    /// One channel, `0.299 R + 0.587 G + 0.114 B`.
    Gray,
}

/// Range of the values of a picture (PNG or JPEG). Volumes and arrays always keep their stored
/// values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Values {
    /// From 0 to 1: divided by the greatest value of the file's type.
    #[default]
    Unit,
    /// The integers in the file: up to 255, or up to 65535 where it has 16 bits.
    Stored,
}

/// How NaN and infinite values are handled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Nan {
    /// The input is refused.
    #[default]
    Error,
    /// They become 0.
    Zero,
}

/// One `[[intensity]]` step. Statistics are computed for each channel separately.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Step {
    /// Clips to two percentiles, interpolated linearly between values as NumPy and torch do.
    ClipPercentiles(#[serde(deserialize_with = "percentiles")] [f64; 2]),
    /// Clips to `[low, high]`.
    Clip(#[serde(deserialize_with = "ascending")] [f64; 2]),
    /// Maps the least and the greatest value to `[low, high]`; a constant channel becomes 0.
    Scale(#[serde(deserialize_with = "ascending")] [f64; 2]),
    /// `(x - mean)/std` with the population's standard deviation; a constant channel becomes 0.
    ZScore(Voxels),
    /// `x·multiply + add`.
    Affine {
        /// The factor; 1 where absent.
        #[serde(default = "one")]
        multiply: PerChannel,
        /// The summand; 0 where absent.
        #[serde(default = "zero")]
        add: PerChannel,
    },
}

/// The voxels whose mean and standard deviation a [`Step::ZScore`] uses, and which it changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Voxels {
    /// Every voxel.
    All,
    /// Only voxels that are not 0; the others stay 0.
    Nonzero,
}

/// One number for all channels, or one for each.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged, expecting = "expected a number, or an array of numbers with one per channel")]
pub enum PerChannel {
    /// The same for every channel.
    One(f64),
    /// As many as the input has channels.
    Each(Vec<f64>),
}

/// The `[input]` table as written, before the check for keys that exclude each other.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct InputTable {
    #[serde(deserialize_with = "orientation")]
    orientation: Option<Orientation>,
    spatial_dims: Option<usize>,
    size: Option<Vec<usize>>,
    spacing_mm: Option<Vec<f64>>,
    interpolation: InterpolationName,
    axes: AxisOrder,
    color: Option<Color>,
    values: Values,
    nan: Nan,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum InterpolationName {
    #[default]
    Linear,
    Nearest,
}

impl Default for InputCard {
    fn default() -> Self {
        Self {
            orientation: None,
            spatial_dims: None,
            sampling: None,
            interpolation: Interpolation::Linear,
            axes: AxisOrder::default(),
            color: None,
            values: Values::default(),
            nan: Nan::default(),
        }
    }
}

impl TryFrom<InputTable> for InputCard {
    type Error = String;

    fn try_from(table: InputTable) -> Result<Self, String> {
        let axes = |n: usize| match n {
            2 | 3 => Ok(()),
            n => Err(format!("expected 3 numbers (2 for a 2D model), got {n}")),
        };
        if let Some(dims) = table.spatial_dims.filter(|dims| !(2..=3).contains(dims)) {
            return Err(format!("`spatial_dims`: {dims} is neither 2 nor 3"));
        }
        let sampling = match (table.size, table.spacing_mm) {
            (Some(_), Some(_)) => {
                return Err("`size` and `spacing_mm` exclude each other; keep one".into());
            }
            (Some(size), None) => {
                axes(size.len()).map_err(|e| format!("`size`: {e}"))?;
                if size.iter().any(|n| !(1..=32767).contains(n)) {
                    return Err(format!("`size`: {size:?} has an extent outside 1..=32767"));
                }
                Some(Sampling::Size(size))
            }
            (None, Some(spacing_mm)) => {
                axes(spacing_mm.len()).map_err(|e| format!("`spacing_mm`: {e}"))?;
                if !spacing_mm.iter().all(|&s| s > 0.0 && s.is_finite()) {
                    return Err(format!("`spacing_mm`: {spacing_mm:?} must be above 0"));
                }
                Some(Sampling::SpacingMm(spacing_mm))
            }
            (None, None) => None,
        };
        Ok(Self {
            orientation: table.orientation,
            spatial_dims: table.spatial_dims,
            sampling,
            interpolation: match table.interpolation {
                InterpolationName::Linear => Interpolation::Linear,
                InterpolationName::Nearest => Interpolation::Nearest,
            },
            axes: table.axes,
            color: table.color,
            values: table.values,
            nan: table.nan,
        })
    }
}

impl Card {
    /// Reads a card from a TOML file.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or is no card: the message shows the line and what was
    /// expected there.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path)
            .map_err(|error| Error::file(path, format!("cannot read: {error}")).because(error))?;
        toml::from_str(&text).map_err(|error| Error::file(path, format!("not a card: {error}")))
    }

    /// The name of a class, if the card has one.
    pub fn class_name(&self, index: usize) -> Option<&str> {
        self.classes.as_ref()?.get(index).map(String::as_str)
    }
}

impl std::str::FromStr for Card {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        toml::from_str(text).map_err(|error| Error::input("model card", error))
    }
}

fn orientation<'de, D: serde::Deserializer<'de>>(
    source: D,
) -> Result<Option<Orientation>, D::Error> {
    let text = String::deserialize(source)?;
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

fn ascending<'de, D: serde::Deserializer<'de>>(source: D) -> Result<[f64; 2], D::Error> {
    let [low, high] = <[f64; 2]>::deserialize(source)?;
    if low.is_finite() && high.is_finite() && low < high {
        return Ok([low, high]);
    }
    Err(serde::de::Error::custom(format!("[{low}, {high}] must be [low, high] with low < high")))
}

fn percentiles<'de, D: serde::Deserializer<'de>>(source: D) -> Result<[f64; 2], D::Error> {
    let [low, high] = ascending(source)?;
    if low >= 0.0 && high <= 100.0 {
        return Ok([low, high]);
    }
    Err(serde::de::Error::custom(format!("[{low}, {high}]: percentiles lie within 0 and 100")))
}

fn one() -> PerChannel {
    PerChannel::One(1.0)
}

fn zero() -> PerChannel {
    PerChannel::One(0.0)
}
