//! Pictures of a map over the image that it explains, for people to look at.

mod anatomy;
mod canvas;
mod layout;
mod panel;

use image::RgbImage;
use ndarray::{Array3, ArrayView3, Axis, Ix3, Ix4};

use self::panel::{Layer, Panel, Plane, Window};
use super::{Image, Input};
use crate::error::{Error, Result};
use crate::ops::{Interpolation, Resize, resample};

/// The text above a picture.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caption {
    /// The first line is the title, such as `class 1 (brain) · layer up0 · Grad-CAM`; the others
    /// are smaller. Lines that are too long are set smaller, then cut.
    pub lines: Vec<String>,
}

/// How a picture shows a map.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Style {
    /// In colour over the image: for maps that say where and how much, such as Grad-CAM's.
    #[default]
    Heat,
    /// In gray, separate from the image: for signed maps of the image's resolution, such as Guided
    /// Backpropagation's. The median of the map is middle gray: those voxels do not matter. Raising
    /// a voxel's intensity speaks for the explained output where the map is bright, and against it
    /// where it is dark. Of all other values, the 0.5 % farthest from the median are black or
    /// white.
    Gray,
}

/// A picture of `map` with the image that it explains, in gray.
///
/// | input | picture |
/// |---|---|
/// | volume | axial, coronal and sagittal slice through the centre of attention; [`Style::Gray`]: below them the same of the map |
/// | volume of one slice, image | the slice or image, beside it the same with the map, or the map |
/// | array | the same, without anatomical labels; it must hold one sample |
///
/// Volumes are shown in RAS axes, with anterior and superior up, in neurological convention: the
/// left of the picture is the patient's left. Every panel bears the letters of its four sides,
/// which for an oblique image name the nearest anatomical axis. The millimetres over a slice are
/// the scanner's coordinate of the centre of attention, the index beside them is the file's own.
/// All slices have the same scale in millimetres. The centre of attention is the mean position,
/// weighted by the map, of the values above half the map's maximum (of a gray map, of its distances
/// from middle gray); without any, the centre of the image. The gray image is windowed to its 1st
/// and 99th percentile. A heat map's colour (Turbo, up to its bright red) and its opacity grow with
/// its value, which should lie within `0..=1`.
///
/// `map` is in the image's voxel order, as [`Grid::restore`](super::Grid::restore) gives it
/// (`(1, H, W)` for a 2D image); a map of another size is resampled linearly.
///
/// # Errors
///
/// If the input is an array of several samples or of other than 4 or 5 axes, or the map is empty
/// or, for a 2D image, not flat.
///
/// # Example
///
/// ```
/// use medcam::volumes::{Caption, Image, Input, Style, overlay};
///
/// let image = Input::Image(Image::new(ndarray::Array3::from_elem((1, 40, 60), 0.5)));
/// let map = ndarray::Array3::from_shape_fn((1, 40, 60), |(_, _, x)| x as f32 / 59.0);
/// let caption = Caption { lines: vec!["class 1 · layer4".to_owned()] };
/// let picture = overlay(&image, &map, &caption, Style::Heat).unwrap();
/// assert!(picture.width() >= 900);
/// ```
pub fn overlay(
    input: &Input,
    map: &Array3<f32>,
    caption: &Caption,
    style: Style,
) -> Result<RgbImage> {
    let shape = match input {
        Input::Volume(volume) => volume.data.shape(),
        Input::Image(image) => image.data.shape(),
        Input::Array(array) => array.shape(),
    };
    if shape.contains(&0) {
        return Err(Error::input("overlay", format!("the image is empty, with shape {shape:?}")));
    }
    let (rows, footer) = match input {
        Input::Volume(volume) => {
            let map = on_grid(map, volume.shape())?;
            let image = volume.data.index_axis(Axis(0), 0);
            (anatomy::panels(volume, image, map.view(), style), anatomy::CONVENTION)
        }
        Input::Image(image) => (vec![picture_panels(image, map, style)?], ""),
        Input::Array(array) => {
            let refuse = || {
                let shape = array.shape();
                Error::input(
                    "overlay",
                    format!("the array has shape {shape:?}; give one sample, (1, C, [D,] H, W)"),
                )
            };
            let one = array.shape().first() == Some(&1) && !array.is_empty();
            let sample = array.view();
            match (one, array.ndim()) {
                (true, 4) => {
                    let sample = sample.index_axis_move(Axis(0), 0);
                    let sample = sample.into_dimensionality::<Ix3>().map_err(|_| refuse())?;
                    let channels = if sample.dim().0 == 3 { 3 } else { 1 };
                    let mut data = sample.slice_move(ndarray::s![..channels, .., ..]).to_owned();
                    for mut channel in data.axis_iter_mut(Axis(0)) {
                        let window = Window::of(channel.view().insert_axis(Axis(0)));
                        channel.mapv_inplace(|v| window.apply(v));
                    }
                    (vec![picture_panels(&Image::new(data), map, style)?], "")
                }
                (true, 5) => {
                    let sample = sample.index_axis_move(Axis(0), 0);
                    let sample = sample.into_dimensionality::<Ix4>().map_err(|_| refuse())?;
                    let image = sample.index_axis_move(Axis(0), 0);
                    let (d, h, w) = image.dim();
                    let map = on_grid(map, [d, h, w])?;
                    (array_panels(image, map.view(), style), "")
                }
                _ => return Err(refuse()),
            }
        }
    };
    layout::compose(&rows, caption, footer, style)
}

/// The layers to draw, one per row of slices or per panel, and the centre of attention.
fn layers<'a>(
    image: ArrayView3<'a, f32>,
    map: ArrayView3<'a, f32>,
    style: Style,
    image_first: bool,
) -> (Vec<Layer<'a>>, [usize; 3]) {
    let layer = |map| Layer { values: image, window: Window::of(image), map };
    match style {
        Style::Heat => {
            let first = image_first.then(|| layer(None));
            let layers = first.into_iter().chain([layer(Some(map))]).collect();
            (layers, panel::centre_of_attention(map))
        }
        Style::Gray => {
            let window = Window::about_zero(map);
            let strength = map.mapv(|value| window.strength(value));
            let centre = panel::centre_of_attention(strength.view());
            (vec![layer(None), Layer { values: map, window, map: None }], centre)
        }
    }
}

/// Two panels: the image, then the image with the heat map over it or the gray map alone.
fn picture_panels(image: &Image, map: &Array3<f32>, style: Style) -> Result<Vec<Panel>> {
    let (channels, height, width) = image.data.dim();
    if map.dim().0 != 1 {
        let shape = map.shape();
        return Err(Error::input("overlay", format!("a map of shape {shape:?} for a 2D image")));
    }
    let map = on_grid(map, [1, height, width])?;
    let shown = match channels {
        3 => panel::from_rgb(&image.data),
        _ => {
            let gray = image.data.index_axis(Axis(0), 0);
            panel::from_gray(gray, &Window::of(image.data.view()))
        }
    };
    let base = Panel::new("image", shown.clone(), [1.0; 2]);
    let plane = map.index_axis(Axis(0), 0);
    let attention = match style {
        Style::Heat => Panel::new("attention", shown, [1.0; 2]).with_map(panel::from_plane(plane)),
        Style::Gray => {
            let gray = panel::from_gray(plane, &Window::about_zero(map.view()));
            Panel::new("attention", gray, [1.0; 2])
        }
    };
    Ok(vec![base, attention])
}

/// The three planes of `(D, H, W)` through the centre of attention; the last axis runs right.
fn array_panels(
    image: ArrayView3<'_, f32>,
    map: ArrayView3<'_, f32>,
    style: Style,
) -> Vec<Vec<Panel>> {
    let (layers, centre) = layers(image, map, style, false);
    let names = ["D", "H", "W"];
    let planes = [(0, 2, 1), (1, 2, 0), (2, 1, 0)];
    let row = |layer: &Layer<'_>| {
        let slices = planes.map(|(through, right, down)| {
            let plane = Plane { through, right, down, up: false };
            let title = format!("{} = {}", names[through], centre[through]);
            plane.panel(&title, layer, centre, [1.0; 3])
        });
        slices.into()
    };
    layers.iter().map(row).collect()
}

fn on_grid(map: &Array3<f32>, size: [usize; 3]) -> Result<Array3<f32>> {
    let (d, h, w) = map.dim();
    let finite = map.mapv(|v| if v.is_finite() { v } else { 0.0 });
    if [d, h, w] == size {
        return Ok(finite);
    }
    let values: Vec<f32> = finite.iter().copied().collect();
    let resize = Resize { batch: 1, from: [d, h, w], to: size };
    let values = resample(&values, resize, Interpolation::Linear)?;
    Array3::from_shape_vec(size, values).map_err(|error| Error::input("overlay", error))
}
