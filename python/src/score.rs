//! Maps against masks.

use medcam::evaluation::{Evaluator, Metric, Scoring, Threshold};
use ndarray::Axis;
use pyo3::prelude::*;

use crate::errors::{exception, raise};
use crate::tensor::Borrowed;

/// The scores of each map, one per metric; map and mask are f32 on the CPU.
#[pyfunction]
pub fn score(
    py: Python<'_>,
    map: &Bound<'_, PyAny>,
    mask: &Bound<'_, PyAny>,
    metrics: Vec<String>,
    threshold: &str,
) -> PyResult<Vec<Vec<f64>>> {
    let (mut map, mut mask) = (Borrowed::new(map)?, Borrowed::new(mask)?);
    let (map, mask) = (map.input("map")?, mask.input("mask")?);
    let score = || {
        let metrics: Result<Vec<Metric>, _> = metrics.iter().map(|name| name.parse()).collect();
        let evaluator = Evaluator::new(Scoring::new(metrics?, threshold.parse::<Threshold>()?));
        let (maps, masks) = (map.array()?, mask.array()?);
        if maps.len_of(Axis(0)) != masks.len_of(Axis(0)) {
            return Ok(None);
        }
        let pairs = maps.axis_iter(Axis(0)).zip(masks.axis_iter(Axis(0)));
        pairs
            .map(|(map, mask)| evaluator.compute(map, mask))
            .collect::<medcam::Result<_>>()
            .map(Some)
    };
    let scores = py.detach(score).map_err(|error| raise(py, &error))?;
    let (maps, masks) = (map.extents()[0], mask.extents()[0]);
    scores
        .ok_or_else(|| exception(py, "InputError", format!("mask: {masks} masks for {maps} maps")))
}
