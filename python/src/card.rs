//! Model cards, as the program reads them.

use medcam::volumes::Card;
use pyo3::prelude::*;

use crate::errors::{exception, raise};

/// The TOML of a table given as JSON.
#[pyfunction]
pub fn toml_of(py: Python<'_>, json: &str) -> PyResult<String> {
    let table: Result<toml::Table, _> = serde_json::from_str(json);
    table
        .map_err(|error| error.to_string())
        .and_then(|table| toml::to_string(&table).map_err(|error| error.to_string()))
        .map_err(|error| exception(py, "InputError", error))
}

/// Refuses a text that is no card, or none for an input of so many spatial axes and channels.
#[pyfunction]
pub fn check_card(py: Python<'_>, text: &str, axes: usize, channels: usize) -> PyResult<()> {
    text.parse::<Card>()
        .and_then(|card| card.check_fits(axes, channels))
        .map_err(|error| raise(py, &error))
}
