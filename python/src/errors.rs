//! Errors of the crate as exceptions of `medcam_rs`.

use medcam::Error;
use pyo3::prelude::*;
use pyo3::types::PyType;

/// The exception for an error; its class says which kind it is.
pub fn raise(py: Python<'_>, error: &Error) -> PyErr {
    let class = if error.is_unavailable() {
        "UnavailableError"
    } else if error.is_device() {
        "DeviceError"
    } else {
        "InputError"
    };
    exception(py, class, error.to_string())
}

/// An exception of a class of `medcam_rs.errors`.
pub fn exception(py: Python<'_>, class: &str, message: String) -> PyErr {
    let class = py.import("medcam_rs.errors").and_then(|errors| errors.getattr(class));
    match class.and_then(|class| Ok(class.cast_into::<PyType>()?)) {
        Ok(class) => PyErr::from_type(class, message),
        Err(error) => error,
    }
}
