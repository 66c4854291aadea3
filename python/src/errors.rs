//! Errors of the crate as exceptions of `medcam_rs`.

use std::error::Error as _;
use std::io;

use medcam::Error;
use pyo3::prelude::*;
use pyo3::types::PyType;

/// The exception for an error; its class says which kind it is. One of a file has the `errno` of
/// the system's error beneath, if there is one.
pub fn raise(py: Python<'_>, error: &Error) -> PyErr {
    let class = if error.is_unavailable() {
        "UnavailableError"
    } else if error.is_device() {
        "DeviceError"
    } else if error.is_file() {
        "FileError"
    } else {
        "InputError"
    };
    let raised = exception(py, class, error.to_string());
    if let Some(number) = number_of(error) {
        // Ignore failure: the exception is the same without it.
        let _ = raised.value(py).setattr("errno", number);
    }
    raised
}

/// The system's number of the first of its causes that has one.
fn number_of(error: &Error) -> Option<i32> {
    let mut cause = error.source();
    while let Some(error) = cause {
        let number = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
        if number.is_some() {
            return number;
        }
        cause = error.source();
    }
    None
}

/// An exception of a class of `medcam_rs.errors`.
pub fn exception(py: Python<'_>, class: &str, message: String) -> PyErr {
    let class = py.import("medcam_rs.errors").and_then(|errors| errors.getattr(class));
    match class.and_then(|class| Ok(class.cast_into::<PyType>()?)) {
        Ok(class) => PyErr::from_type(class, message),
        Err(error) => error,
    }
}
