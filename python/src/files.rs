//! Maps as files: NIfTI volumes, pictures, and an archive of all.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use medcam::outputs::{self, MapView, Names};
use medcam::volumes::{Grid, Input, MapType, Volume};
use ndarray::{ArrayView4, ArrayViewD, Axis};
use pyo3::prelude::*;

use crate::errors::{exception, raise};
use crate::tensor::Borrowed;

type Affine = [[f64; 4]; 4];

/// Makes the folder for maps, without what interrupted runs left in it.
#[pyfunction]
pub fn prepare_folder(py: Python<'_>, folder: PathBuf) -> PyResult<()> {
    py.detach(|| outputs::prepare_folder(folder)).map_err(|error| raise(py, &error))
}

/// Writes each sample of maps `(B, [D,] H, W)` f32 to files of its own, and returns them.
#[pyfunction]
pub fn save_maps(
    py: Python<'_>,
    folder: PathBuf,
    layer: &str,
    target: Option<&str>,
    values: &Bound<'_, PyAny>,
    name: &str,
    affine: Option<Affine>,
) -> PyResult<Vec<PathBuf>> {
    let mut values = Borrowed::new(values)?;
    let values = values.input("values")?;
    let save = || {
        let mut files = Vec::new();
        let maps = values.array()?;
        let (samples, d, h, w) = maps.dim();
        let grid = match values.extents().len() {
            3 => Grid::of_picture_size(h, w),
            _ => Grid::of_volume_shape([d, h, w], affine.as_ref())?,
        };
        for sample in 0..samples {
            let stem = stem(name, target, (sample, samples));
            let names = Names { folder: &folder, stem: &stem, one_target: true };
            let map = MapView {
                layer,
                target: target.unwrap_or_default(),
                values: one(maps, sample),
                classes: &[],
                signed: false,
            };
            outputs::save_maps(&[map], &names, &grid, MapType::F32, &mut |file| files.push(file))?;
        }
        Ok(files)
    };
    py.detach(save).map_err(|error| raise(py, &error))
}

/// Draws each sample of maps `(B, [D,] H, W)` over its image, and returns the files. Images are
/// `(B, C, H, W)` of as many samples and 1 or 3 channels, or `(B, D, H, W)` in 3D.
#[expect(clippy::too_many_arguments, reason = "Python gives them by name")]
#[pyfunction]
pub fn save_overlays(
    py: Python<'_>,
    folder: PathBuf,
    layer: &str,
    target: Option<&str>,
    values: &Bound<'_, PyAny>,
    name: &str,
    images: &Bound<'_, PyAny>,
    classes: Vec<Option<usize>>,
    signed: bool,
    method: &str,
    affine: Option<Affine>,
) -> PyResult<Vec<PathBuf>> {
    let (mut values, mut images) = (Borrowed::new(values)?, Borrowed::new(images)?);
    let (values, images) = (values.input("values")?, images.input("images")?);
    let save = || {
        let mut files = Vec::new();
        let (maps, images) = (values.array()?, images.array()?);
        let samples = maps.len_of(Axis(0));
        for (sample, class) in classes.iter().enumerate() {
            let image = images.slice(ndarray::s![sample..=sample, .., .., ..]);
            // A volume of one channel has the axes of `Volume`; (1, C, H, W) those of an array.
            let (image, grid) = match (values.extents().len(), &affine) {
                (3, _) => {
                    let (_, _, h, w) = image.dim();
                    (Input::Array(image.to_owned().into_dyn()), Grid::of_picture_size(h, w))
                }
                (_, affine) => {
                    let (_, d, h, w) = image.dim();
                    let grid = Grid::of_volume_shape([d, h, w], affine.as_ref())?;
                    let image = match affine {
                        Some(affine) => Input::Volume(Volume::new(image.to_owned(), affine)?),
                        None => Input::Array(image.insert_axis(Axis(1)).to_owned().into_dyn()),
                    };
                    (image, grid)
                }
            };
            let stem = stem(name, target, (sample, samples));
            let names = Names { folder: &folder, stem: &stem, one_target: true };
            let map = MapView {
                layer,
                target: target.unwrap_or_default(),
                values: one(maps, sample),
                classes: &[*class],
                signed,
            };
            let caption = |map: &MapView<'_>| outputs::caption(map, &stem, method, &|_| None);
            let wrote = &mut |file| files.push(file);
            outputs::save_pictures(&[map], &names, (&[image], false), &grid, &caption, wrote)?;
        }
        Ok(files)
    };
    py.detach(save).map_err(|error| raise(py, &error))
}

/// The name of a sample's files without suffix: `NAME[_TARGET][_SAMPLE]`.
fn stem(name: &str, target: Option<&str>, (sample, samples): (usize, usize)) -> String {
    let names = Names { folder: "".as_ref(), stem: name, one_target: target.is_none() };
    let stem = names.stem_of(target.unwrap_or_default());
    if samples == 1 { stem } else { format!("{stem}_{sample}") }
}

/// One sample of maps `(B, D, H, W)` as `(1, 1, D, H, W)`.
fn one(maps: ArrayView4<'_, f32>, sample: usize) -> ArrayViewD<'_, f32> {
    let one = maps.slice_move(ndarray::s![sample..=sample, .., .., ..]);
    one.insert_axis(Axis(1)).into_dyn()
}

/// The maps of a run in one `.npz` file, until it is finished.
#[pyclass(frozen)]
#[derive(Debug)]
pub struct Archive(Mutex<Option<outputs::Archive>>);

#[pymethods]
impl Archive {
    #[new]
    fn new(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let archive = py.detach(|| outputs::Archive::new(&path));
        Ok(Self(Mutex::new(Some(archive.map_err(|error| raise(py, &error))?))))
    }

    /// Adds maps `(B, [D,] H, W)` f32 as `NAME/LAYER/TARGET`, `(B, 1, [D,] H, W)`.
    fn add(
        &self,
        py: Python<'_>,
        name: &str,
        layer: &str,
        target: &str,
        values: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let mut values = Borrowed::new(values)?;
        let values = values.input("values")?;
        let add = || {
            let maps = values.array()?.insert_axis(Axis(1)).into_dyn();
            let flat = values.extents().len() == 3;
            let maps = if flat { maps.index_axis_move(Axis(2), 0) } else { maps };
            let map = MapView { layer, target, values: maps, classes: &[], signed: false };
            let maps = [map];
            let mut archive = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(archive) = archive.as_mut() else { return Ok(None) };
            archive.check(name, &maps)?;
            archive.add(name, &maps).map(Some)
        };
        let added = py.detach(add).map_err(|error| raise(py, &error))?;
        added.ok_or_else(|| finished(py))
    }

    /// Completes the file; `None` if nothing was added.
    fn finish(&self, py: Python<'_>) -> PyResult<Option<PathBuf>> {
        let finish = || {
            let archive = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
            archive.map(outputs::Archive::finish).transpose()
        };
        let file = py.detach(finish).map_err(|error| raise(py, &error))?;
        file.ok_or_else(|| finished(py))
    }
}

fn finished(py: Python<'_>) -> PyErr {
    exception(py, "InputError", "archive: it is finished already; make a new one".to_owned())
}
