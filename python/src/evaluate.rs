//! The scores of a study, and the connected components of masks.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use medcam::evaluation::{Evaluator as Scores, Metric, Scoring};
use medcam::outputs::{self, MapView};
use medcam::volumes::{Grid, Input, MapType};
use ndarray::{ArrayView3, Axis};
use pyo3::prelude::*;
use pyo3::types::PyByteArray;

use crate::errors::raise;
use crate::tensor::Borrowed;

/// The scores of all maps so far.
#[pyclass(frozen)]
#[derive(Debug)]
pub struct Evaluator {
    scores: Mutex<Scores>,
    failure: Failure,
}

/// What the last metric of the caller's own raised.
type Failure = Arc<Mutex<Option<PyErr>>>;

/// The scores of one sample, with its number and its name in the tables.
type Scored = (usize, String, Vec<f64>);

/// Code, message and sample of a warning.
type Warned = (String, String, Option<usize>);

#[pymethods]
impl Evaluator {
    /// Metrics are known by name, or come with a function of the bytes of map (f32) and mask (u8),
    /// and their shape.
    #[new]
    fn new(
        py: Python<'_>,
        metrics: Vec<(String, Option<Py<PyAny>>)>,
        threshold: &str,
        masks: &str,
    ) -> PyResult<Self> {
        let failure = Failure::default();
        let metric = |(name, function): (String, Option<Py<PyAny>>)| match function {
            Some(function) => Ok(own_metric(name, function, failure.clone())),
            None => name.parse(),
        };
        let scoring = || -> medcam::Result<Scoring> {
            let metrics = metrics.into_iter().map(metric).collect::<medcam::Result<_>>()?;
            Ok(Scoring::new(metrics, threshold.parse()?).masks(masks.parse()?))
        };
        let scores = Scores::new(scoring().map_err(|error| raise(py, &error))?);
        Ok(Self { scores: Mutex::new(scores), failure })
    }

    /// Scores maps `(B, [D,] H, W)` f32 against masks of as many samples. If that fails, no score is
    /// kept.
    #[expect(clippy::too_many_arguments, reason = "Python gives them by name")]
    fn add(
        &self,
        py: Python<'_>,
        name: &str,
        layer: &str,
        target: &str,
        values: &Bound<'_, PyAny>,
        mask: &Bound<'_, PyAny>,
        classes: Vec<Option<usize>>,
    ) -> PyResult<(Vec<Scored>, Vec<Warned>)> {
        let (mut values, mut mask) = (Borrowed::new(values)?, Borrowed::new(mask)?);
        let (values, mask) = (values.input("values")?, mask.input("mask")?);
        let add = || -> PyResult<_> {
            let raised = |error| Python::attach(|py| raise(py, &error));
            let maps = values.array().map_err(raised)?.insert_axis(Axis(1)).into_dyn();
            let mask = Input::Array(mask.array().map_err(raised)?.to_owned().into_dyn());
            let grid = Grid::of_array_shape(maps.shape()).map_err(raised)?;
            let map = MapView { layer, target, values: maps, classes: &classes, signed: false };
            let mut scores = self.scores.lock().unwrap_or_else(PoisonError::into_inner);
            let before = scores.scores().len();
            let mut warnings = Vec::new();
            let (place, mask) = ((&grid, MapType::F32), (&mask, "mask"));
            let added = outputs::score(&mut scores, &map, place, mask, name, &mut warnings);
            let failed = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
            let added = match (failed, added) {
                (None, Ok(added)) => added,
                (Some(failed), _) => {
                    scores.truncate(before);
                    return Err(failed);
                }
                (None, Err(error)) => {
                    scores.truncate(before);
                    return Err(raised(error));
                }
            };
            let metrics = scores.scoring().metrics.len();
            let values = scores.scores()[before..].chunks(metrics.max(1));
            let values = values.map(|scores| scores.iter().map(|score| score.score).collect());
            let added = added.into_iter().map(|map| (map.sample, map.name));
            let added = added.zip(values).map(|((sample, name), values)| (sample, name, values));
            let warnings = warnings.into_iter();
            let warnings = warnings.map(|one| (one.code.into_owned(), one.message, one.sample));
            Ok((added.collect(), warnings.collect()))
        };
        py.detach(add)
    }

    /// The number of scores.
    fn __len__(&self, py: Python<'_>) -> usize {
        py.detach(|| self.scores.lock().unwrap_or_else(PoisonError::into_inner).scores().len())
    }

    /// Keeps the first `count` scores only.
    fn truncate(&self, py: Python<'_>, count: usize) {
        py.detach(|| self.scores.lock().unwrap_or_else(PoisonError::into_inner).truncate(count));
    }

    /// Writes all scores and their means, and returns the files.
    fn dump(
        &self,
        py: Python<'_>,
        folder: PathBuf,
        layer_order: Vec<String>,
    ) -> PyResult<Vec<PathBuf>> {
        let dump = || {
            let scores = self.scores.lock().unwrap_or_else(PoisonError::into_inner).clone();
            scores.layer_order(layer_order).dump(folder)
        };
        py.detach(dump).map_err(|error| raise(py, &error))
    }
}

/// A metric of the caller's own. What it raises goes to `failure`, and gives no score.
fn own_metric(name: String, function: Py<PyAny>, failure: Failure) -> Metric {
    Metric::function(name, move |map: ArrayView3<'_, f32>, mask: ArrayView3<'_, u8>| {
        let called = Python::attach(|py| {
            let values: Vec<u8> = map.iter().flat_map(|value| value.to_ne_bytes()).collect();
            let inside: Vec<u8> = mask.iter().copied().collect();
            let arguments =
                (PyByteArray::new(py, &values), PyByteArray::new(py, &inside), map.dim());
            function.call1(py, arguments)?.extract::<f64>(py)
        });
        called.unwrap_or_else(|error| {
            failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            f64::NAN
        })
    })
}

/// The number of each voxel's component in masks `(B, [D,] H, W)` f32, as i32 of this machine.
#[pyfunction]
pub fn components<'py>(
    py: Python<'py>,
    mask: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyByteArray>> {
    let mut mask = Borrowed::new(mask)?;
    let mask = mask.input("mask")?;
    let label = || -> medcam::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        for of_sample in mask.array()?.outer_iter() {
            let (_, labels) = medcam::components(&of_sample.into_dyn());
            // `check` of `medcam_rs` refuses masks of more voxels than an i32 counts.
            let number = |label: &usize| i32::try_from(*label).unwrap_or(i32::MAX);
            bytes.extend(labels.iter().flat_map(|label| number(label).to_ne_bytes()));
        }
        Ok(bytes)
    };
    let bytes = py.detach(label).map_err(|error| raise(py, &error))?;
    Ok(PyByteArray::new(py, &bytes))
}
