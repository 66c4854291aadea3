//! One slice of a picture: gray values, a map over them, and where the slice lies.

use image::{ImageBuffer, Luma, Rgb};
use ndarray::{Array3, ArrayView2, ArrayView3, Axis};

use crate::volumes::intensity::percentile;

/// Values within `0..=1`.
pub(super) type Gray = ImageBuffer<Luma<f32>, Vec<f32>>;
pub(super) type Colour = ImageBuffer<Rgb<f32>, Vec<f32>>;

/// Gray values with an optional map over them, drawn slice by slice.
pub(super) struct Layer<'a> {
    pub(super) values: ArrayView3<'a, f32>,
    pub(super) window: Window,
    pub(super) map: Option<ArrayView3<'a, f32>>,
}

/// A slice with its title, side letters and cross.
pub(super) struct Panel {
    pub(super) title: String,
    pub(super) base: Colour,
    pub(super) map: Option<Gray>,
    /// Width and height of one pixel of `base`, in millimetres.
    pub(super) pixel_mm: [f64; 2],
    /// The letters of the left, right, upper and lower side.
    pub(super) sides: Option<[char; 4]>,
    /// The centre of attention in pixels of `base`, from its upper left corner.
    pub(super) cross: Option<[f64; 2]>,
}

impl Panel {
    pub(super) fn new(title: &str, base: Colour, pixel_mm: [f64; 2]) -> Self {
        Self { title: title.to_owned(), base, map: None, pixel_mm, sides: None, cross: None }
    }

    pub(super) fn with_map(mut self, map: Gray) -> Self {
        self.map = Some(map);
        self
    }
}

/// How the axes of a volume lie in a panel.
#[derive(Clone, Copy)]
pub(super) struct Plane {
    /// The axis that the slice cuts.
    pub(super) through: usize,
    /// The axis that runs to the right.
    pub(super) right: usize,
    /// The axis that runs down, or up if `up`.
    pub(super) down: usize,
    pub(super) up: bool,
}

impl Plane {
    /// The slice at `centre`.
    pub(super) fn panel(
        self,
        title: &str,
        layer: &Layer<'_>,
        centre: [usize; 3],
        spacing_mm: [f64; 3],
    ) -> Panel {
        let slice = self.slice(layer.values, centre);
        let row = if self.up { slice.dim().0 - 1 - centre[self.down] } else { centre[self.down] };
        let pixel_mm = [spacing_mm[self.right], spacing_mm[self.down]];
        let mut panel = Panel::new(title, from_gray(slice, &layer.window), pixel_mm);
        panel.map = layer.map.map(|map| from_plane(self.slice(map, centre)));
        panel.cross = Some([centre[self.right] as f64 + 0.5, row as f64 + 0.5]);
        panel
    }

    /// Rows from top to bottom, columns from left to right.
    fn slice<'a>(self, volume: ArrayView3<'a, f32>, centre: [usize; 3]) -> ArrayView2<'a, f32> {
        let volume = volume.permuted_axes([self.through, self.down, self.right]);
        let mut slice = volume.index_axis_move(Axis(0), centre[self.through]);
        if self.up {
            slice.invert_axis(Axis(0));
        }
        slice
    }
}

/// The range of values between black and white.
pub(super) struct Window {
    low: f32,
    range: f32,
}

impl Window {
    /// From the 1st to the 99th percentile.
    pub(super) fn of(values: ArrayView3<'_, f32>) -> Self {
        let mut finite = spread(values);
        let [mut low, mut high] = [1.0, 99.0].map(|p| percentile(&mut finite, p));
        if high <= low {
            // Nearly all values are equal, so the percentiles coincide: use the full range.
            (low, high) = finite.iter().fold((low, high), |(l, h), &v| (l.min(v), h.max(v)));
        }
        Self { low, range: high - low }
    }

    /// The window of a signed map that was rescaled. Its original zero is the median, since most
    /// voxels hardly matter, and becomes middle gray. Of the other values, one in 200 is black or
    /// white.
    pub(super) fn about_zero(map: ArrayView3<'_, f32>) -> Self {
        let mut values = spread(map);
        let zero = percentile(&mut values, 50.0);
        let mut others: Vec<f32> =
            values.iter().map(|v| (v - zero).abs()).filter(|&v| v > 0.0).collect();
        let reach = percentile(&mut others, 99.5);
        Self { low: zero - reach, range: 2.0 * reach }
    }

    /// Distance of `value` from the window's middle: 0 in the middle, 1 at or beyond its ends.
    pub(super) fn strength(&self, value: f32) -> f32 {
        (2.0 * self.apply(value) - 1.0).abs()
    }

    /// A constant image is middle gray.
    pub(super) fn apply(&self, value: f32) -> f32 {
        match value.is_finite() {
            true if self.range > 0.0 => ((value - self.low) / self.range).clamp(0.0, 1.0),
            true => 0.5,
            false => 0.0,
        }
    }
}

/// The finite values among at most a million, sampled at an even stride.
fn spread(values: ArrayView3<'_, f32>) -> Vec<f32> {
    let step = values.len().div_ceil(1_000_000).max(1);
    values.iter().copied().step_by(step).filter(|v| v.is_finite()).collect()
}

/// The mean position of the values above half the maximum, weighted by value; without any, the
/// centre of the grid.
pub(super) fn centre_of_attention(map: ArrayView3<'_, f32>) -> [usize; 3] {
    let (d, h, w) = map.dim();
    let most = map.iter().copied().fold(0.0, f32::max);
    let mut sum = [0.0; 3];
    let mut weight = 0.0;
    for ((i, j, k), &value) in map.indexed_iter() {
        if value > most / 2.0 {
            let value = f64::from(value);
            weight += value;
            for (sum, index) in sum.iter_mut().zip([i, j, k]) {
                *sum += value * index as f64;
            }
        }
    }
    if weight <= 0.0 {
        return [d / 2, h / 2, w / 2];
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a mean of indices lies between them"
    )]
    sum.map(|sum| (sum / weight).round() as usize)
}

/// `(H, W)` as gray pixels.
pub(super) fn from_gray(plane: ArrayView2<'_, f32>, window: &Window) -> Colour {
    let (height, width) = plane.dim();
    ImageBuffer::from_fn(extent(width), extent(height), |x, y| {
        Rgb([window.apply(plane[[y as usize, x as usize]]); 3])
    })
}

/// `(3, H, W)` within `0..=1` as pixels.
pub(super) fn from_rgb(channels: &Array3<f32>) -> Colour {
    let (_, height, width) = channels.dim();
    ImageBuffer::from_fn(extent(width), extent(height), |x, y| {
        Rgb([0, 1, 2].map(|c| channels[[c, y as usize, x as usize]]))
    })
}

/// `(H, W)` as pixels, clamped to `0..=1`.
pub(super) fn from_plane(plane: ArrayView2<'_, f32>) -> Gray {
    let (height, width) = plane.dim();
    ImageBuffer::from_fn(extent(width), extent(height), |x, y| {
        Luma([plane[[y as usize, x as usize]].clamp(0.0, 1.0)])
    })
}

/// No image file has a side of more than `u32::MAX` pixels.
fn extent(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
