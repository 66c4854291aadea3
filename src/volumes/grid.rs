//! Brings maps from the model's axes back to the voxel grid of the image that they explain.

use std::path::{Path, PathBuf};

use image::{GrayImage, Luma};
use ndarray::{
    Array3, Array5, ArrayD, ArrayView3, ArrayView4, ArrayView5, ArrayViewD, Axis, Ix3, IxDyn,
};
use nifti::NiftiHeader;

use super::affine::{self, Orientation};
use super::write::{MapType, to_u8};
use super::{Input, Volume, nifti_write, raster, write_npy};
use crate::error::{Error, Result};
use crate::ops::{Interpolation, Resize, resample};

/// The voxel grid of an image, with the axis permutation and flips between it and the model's
/// input.
///
/// # Example
///
/// ```
/// use medcam::volumes::{Card, Input};
///
/// let input = Input::Array(ndarray::ArrayD::zeros(vec![1, 3, 24, 32]));
/// let prepared = Card::default().prepare(&input, Some(2)).unwrap();
/// assert_eq!(prepared.grid.map_size(), [1, 24, 32]);
/// ```
#[derive(Debug, Clone)]
pub struct Grid(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Volume {
        header: Box<NiftiHeader>,
        orientation: Orientation,
        shape: [usize; 3],
        axes: Axes,
    },
    Image {
        height: usize,
        width: usize,
    },
    /// The shape of the array: `(B, C, H, W)` or `(B, C, D, H, W)`.
    Array(Vec<usize>),
}

/// For each model axis, the index of its voxel axis and whether it runs backwards.
pub(crate) type Axes = [(usize, bool); 3];

/// The model's axes are the voxels'.
pub(super) const AS_STORED: Axes = [(0, false), (1, false), (2, false)];

impl Grid {
    /// The grid of arrays of this shape, `(B, C, H, W)` or `(B, C, D, H, W)`.
    ///
    /// # Errors
    ///
    /// If the shape has another number of axes.
    pub fn of_array_shape(shape: &[usize]) -> Result<Self> {
        if !(4..=5).contains(&shape.len()) {
            let what = format!("shape {shape:?}; expected (B, C, H, W) or (B, C, D, H, W)");
            return Err(Error::input("grid", what));
        }
        Ok(Self(Kind::Array(shape.to_vec())))
    }

    /// The grid of a volume of this shape, `(i, j, k)`, whose axes are the model's. `affine` goes
    /// from `(i, j, k, 1)` to the scanner's RAS+ space in mm. Without one, NIfTI files have the
    /// identity, in an unknown unit.
    ///
    /// # Errors
    ///
    /// If the affine has values that are not finite in f32 or another last row than `0, 0, 0, 1`,
    /// or cannot be inverted.
    ///
    /// # Example
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let folder = folder.path();
    /// use medcam::volumes::{Grid, MapType, Volume};
    ///
    /// let affine = [[0., 2., 0., -9.], [-1., 0., 0., 7.], [0., 0., 3., 5.], [0., 0., 0., 1.]];
    /// let grid = Grid::of_volume_shape([2, 3, 4], Some(&affine))?;
    /// let map = ndarray::Array5::from_shape_fn((1, 1, 2, 3, 4), |at| at.4 as f32 / 4.0);
    /// let files = grid.save_map(folder, "scan", map.view(), MapType::F32)?;
    /// let volume = Volume::read(&files[0])?;
    /// assert_eq!(volume.affine, affine);
    /// assert_eq!(volume.data[[0, 1, 2, 3]], 0.75);
    /// # Ok::<(), medcam::Error>(())
    /// ```
    pub fn of_volume_shape(shape: [usize; 3], affine: Option<&[[f64; 4]; 4]>) -> Result<Self> {
        let header = affine::header_of(affine).map_err(|fault| Error::input("affine", fault))?;
        let orientation = Orientation::of(&affine::sform(&header));
        let header = Box::new(header);
        Ok(Self(Kind::Volume { header, orientation, shape, axes: AS_STORED }))
    }

    /// The grid of a picture of this many pixels.
    pub fn of_picture_size(height: usize, width: usize) -> Self {
        Self(Kind::Image { height, width })
    }

    pub(crate) fn of(input: &Input, axes: Axes) -> Self {
        Self(match input {
            Input::Volume(volume) => Kind::Volume {
                header: volume.header.clone(),
                orientation: Orientation::of(&volume.affine),
                shape: volume.shape(),
                axes,
            },
            Input::Image(image) => {
                let (_, height, width) = image.data.dim();
                Kind::Image { height, width }
            }
            Input::Array(array) => Kind::Array(array.shape().to_vec()),
        })
    }

    /// The image's own extents in the model's axes `D, H, W` (2D: `1, H, W`): the size to which a
    /// map is resampled to lie over the image.
    pub fn map_size(&self) -> [usize; 3] {
        match &self.0 {
            Kind::Volume { shape, axes, .. } => axes.map(|(axis, _)| shape[axis]),
            Kind::Image { height, width } => [1, *height, *width],
            Kind::Array(shape) => match shape[..] {
                [.., d, h, w] if shape.len() == 5 => [d, h, w],
                [.., h, w] => [1, h, w],
                _ => [1; 3],
            },
        }
    }

    /// A map in the model's axes `(D, H, W)`, of any size, turned into the voxel order of the
    /// image's file. Nothing is resampled, and nothing copied.
    pub fn restore<'a>(&self, map: ArrayView3<'a, f32>) -> ArrayView3<'a, f32> {
        let mut map = map;
        if let Kind::Volume { axes, .. } = &self.0 {
            let mut model_axis = [0; 3];
            for (axis, &(voxel_axis, backwards)) in axes.iter().enumerate() {
                model_axis[voxel_axis] = axis;
                if backwards {
                    map.invert_axis(Axis(axis));
                }
            }
            map = map.permuted_axes(model_axis);
        }
        map
    }

    /// Writes the maps `(B, 1, D, H, W)` of one input into `folder`, and returns their paths.
    ///
    /// | input | files |
    /// |---|---|
    /// | volume | `STEM.nii.gz` in the image's voxel order, with its affine, codes and units |
    /// | image | `STEM.png`, 8-bit gray, and `STEM.npy` of shape `(H, W)` |
    /// | array | `STEM.npy` of shape `(B, 1, H, W)` or `(B, 1, D, H, W)` |
    ///
    /// Maps of another size than [`Grid::map_size`] are taken to cover the same field of view; the
    /// affine and spacing of a NIfTI file are adapted to their size.
    ///
    /// # Errors
    ///
    /// If `maps` has another number of samples than the input, or a file cannot be written.
    pub fn save_map(
        &self,
        folder: impl AsRef<Path>,
        stem: &str,
        maps: ArrayView5<'_, f32>,
        dtype: MapType,
    ) -> Result<Vec<PathBuf>> {
        let path = |suffix: &str| folder.as_ref().join(format!("{stem}{suffix}"));
        let first = self.first_of(maps)?;
        match &self.0 {
            Kind::Volume { header, shape, .. } => {
                let path = path(".nii.gz");
                nifti_write::write_map(&path, header, *shape, self.restore(first), dtype)?;
                Ok(vec![path])
            }
            Kind::Image { .. } => {
                let plane = first.index_axis_move(Axis(0), 0);
                let (png, npy) = (path(".png"), path(".npy"));
                write_npy(&npy, &plane.to_owned().into_dyn(), dtype)?;
                write_png(&png, &plane)?;
                Ok(vec![png, npy])
            }
            Kind::Array(_) => {
                let npy = path(".npy");
                write_npy(&npy, &self.of_array(maps).to_owned(), dtype)?;
                Ok(vec![npy])
            }
        }
    }

    /// The input that [`read`](super::read) would return for the last file that
    /// [`save_map`](Self::save_map) writes of these maps, computed without a file.
    ///
    /// # Errors
    ///
    /// If `maps` has another number of samples than the input.
    pub fn as_written(&self, maps: ArrayView5<'_, f32>, dtype: MapType) -> Result<Input> {
        let first = self.first_of(maps)?;
        let array = match &self.0 {
            Kind::Volume { header, shape, .. } => {
                let map = self.restore(first);
                return nifti_write::head(header, *shape, map, dtype)
                    .and_then(|head| Volume::of_map(&head, map, dtype))
                    .map(Input::Volume)
                    .map_err(|message| Error::input("map", message));
            }
            Kind::Image { .. } => first.index_axis_move(Axis(0), 0).into_dyn(),
            Kind::Array(_) => self.of_array(maps),
        };
        Ok(Input::Array(match dtype {
            MapType::F32 => array.to_owned(),
            MapType::U8 => array.map(|&value| f32::from(to_u8(value))),
        }))
    }

    /// The first sample's map, `(D, H, W)`. Fails unless `maps` has the input's number of samples
    /// and spatial axes.
    fn first_of<'a>(&self, maps: ArrayView5<'a, f32>) -> Result<ArrayView3<'a, f32>> {
        let samples = if let Kind::Array(shape) = &self.0 { shape[0] } else { 1 };
        let given = maps.shape();
        let depth_fits = self.has_depth() || given[2] == 1;
        if given[0] != samples || given[1] != 1 || maps.is_empty() || !depth_fits {
            return Err(Error::input(
                "save_map",
                format!("maps of shape {given:?} for {samples} samples; expected (B, 1, D, H, W)"),
            ));
        }
        Ok(maps.index_axis_move(Axis(0), 0).index_axis_move(Axis(0), 0))
    }

    /// `maps` with the array's own spatial axes: `D` is dropped for arrays `(B, C, H, W)`.
    fn of_array<'a>(&self, maps: ArrayView5<'a, f32>) -> ArrayViewD<'a, f32> {
        let maps = maps.into_dyn();
        if self.has_depth() { maps } else { maps.index_axis_move(Axis(2), 0) }
    }

    /// Resamples a target mask from the image's grid to the model's output grid `size` (`D, H, W`),
    /// with nearest-neighbour interpolation. Returns `(B, 1, D, H, W)` with the mask's own values.
    ///
    /// | input | mask |
    /// |---|---|
    /// | volume | a volume of the same shape and orientation with one channel, or an array of its shape |
    /// | image | an image of the same size, or an array of its shape |
    /// | array | an array `(B, 1, …)`, `(B, …)` or, for one sample, `(D, H, W)` or `(H, W)` |
    ///
    /// A mask image of only black and white has the values 0 and 1. Other gray or palette images
    /// have the integers in the file; colour images are converted to gray.
    ///
    /// # Errors
    ///
    /// If the mask has another shape or orientation than the image.
    pub fn prepare_mask(&self, mask: &Input, size: [usize; 3]) -> Result<Array5<f32>> {
        let refuse = |message: String| Error::input("mask", message);
        let from = self.map_size();
        let samples = if let Kind::Array(shape) = &self.0 { shape[0] } else { 1 };
        let values: Vec<f32> = match (&self.0, mask) {
            (Kind::Volume { orientation, shape, axes, .. }, Input::Volume(mask)) => {
                let theirs = Orientation::of(&mask.affine);
                let channels = mask.data.dim().0;
                if mask.shape() != *shape || channels != 1 {
                    let given = mask.shape();
                    return Err(refuse(format!(
                        "shape {given:?} with {channels} channels, the image has {shape:?}"
                    )));
                }
                if theirs != *orientation {
                    return Err(refuse(format!(
                        "its axes run to {theirs}, the image's to {orientation}; save both on the \
                         same grid"
                    )));
                }
                to_model(mask.data.view(), axes).iter().copied().collect()
            }
            (Kind::Volume { shape, axes, .. }, Input::Array(mask)) => {
                let voxels = self.fitting(mask, 1, *shape).map_err(refuse)?;
                to_model(voxels.view().insert_axis(Axis(0)), axes).iter().copied().collect()
            }
            (Kind::Image { height, width }, Input::Image(mask)) => {
                let (_, h, w) = mask.data.dim();
                if (h, w) != (*height, *width) {
                    return Err(refuse(format!("{h}x{w} pixels, the image has {height}x{width}")));
                }
                let values = mask.labels().unwrap_or_else(|| mask.gray());
                values.iter().copied().collect()
            }
            (Kind::Image { .. } | Kind::Array(_), Input::Array(mask)) => {
                self.fitting(mask, samples, from).map_err(refuse)?.iter().copied().collect()
            }
            (_, mask) => {
                let kind = match mask {
                    Input::Volume(_) => "a NIfTI volume",
                    Input::Image(_) => "a picture",
                    Input::Array(_) => "an array",
                };
                return Err(refuse(format!("{kind} cannot be the mask of another kind of input")));
            }
        };
        let resize = Resize { batch: samples, from, to: size };
        let values = resample(&values, resize, Interpolation::Nearest)?;
        let shape = (samples, 1, size[0], size[1], size[2]);
        Array5::from_shape_vec(shape, values).map_err(|e| refuse(e.to_string()))
    }

    fn has_depth(&self) -> bool {
        match &self.0 {
            Kind::Volume { .. } => true,
            Kind::Image { .. } => false,
            Kind::Array(shape) => shape.len() == 5,
        }
    }

    /// `mask` reshaped to `(B·D, H, W)`. Fails unless its shape equals the image's up to axes of
    /// extent 1.
    fn fitting(
        &self,
        mask: &ArrayD<f32>,
        samples: usize,
        size: [usize; 3],
    ) -> Result<Array3<f32>, String> {
        let [d, h, w] = size;
        let long = |shape: &[usize]| shape.iter().copied().filter(|&n| n != 1).collect::<Vec<_>>();
        if long(mask.shape()) != long(&[samples, d, h, w]) {
            let shape = mask.shape();
            return Err(format!("shape {shape:?}, the image has {samples} x {size:?}"));
        }
        let values = mask.as_standard_layout().into_owned();
        let values = values.into_shape_with_order(IxDyn(&[samples * d, h, w]));
        let values = values.map_err(|e| e.to_string())?;
        values.into_dimensionality::<Ix3>().map_err(|e| e.to_string())
    }
}

/// `(C, i, j, k)` in the model's axes: `(C, D, H, W)`. A view; nothing is copied.
pub(crate) fn to_model<'a>(voxels: ArrayView4<'a, f32>, axes: &Axes) -> ArrayView4<'a, f32> {
    let [d, h, w] = axes.map(|(axis, _)| axis + 1);
    let mut view = voxels.permuted_axes([0, d, h, w]);
    for (axis, &(_, backwards)) in axes.iter().enumerate() {
        if backwards {
            view.invert_axis(Axis(axis + 1));
        }
    }
    view
}

fn write_png(path: &Path, plane: &ndarray::ArrayView2<'_, f32>) -> Result<()> {
    let (height, width) = plane.dim();
    let extent = |n: usize| {
        u32::try_from(n).map_err(|_| Error::file(path, format!("{n} pixels are too many")))
    };
    let mut picture = GrayImage::new(extent(width)?, extent(height)?);
    for (pixel, &value) in picture.pixels_mut().zip(plane.iter()) {
        *pixel = Luma([to_u8(value)]);
    }
    raster::write_png(path, &picture.into())
}
