//! The native half of the Python package `medcam_rs`: the ops of `medcam`, on arrays and tensors that Python holds.

mod card;
mod errors;
mod evaluate;
mod files;
mod memory;
mod ops;
mod score;
mod tensor;

use medcam::device::probe;
use pyo3::prelude::*;

/// The functions beneath `medcam_rs`; their arguments have been checked there.
#[pymodule(gil_used = false)]
mod _native {
    #[pymodule_export]
    use super::card::{check_card, toml_of};
    #[pymodule_export]
    use super::cuda_devices;
    #[pymodule_export]
    use super::evaluate::{Evaluator, components};
    #[pymodule_export]
    use super::files::{Archive, prepare_folder, save_maps, save_overlays};
    #[pymodule_export]
    use super::ops::{
        Reader, alpha_weights, cam, channel_weights, elementwise, guided_activation, guided_cam,
        guided_product, normalize, resample, sum, summarized_cam,
    };
    #[pymodule_export]
    use super::score::score;

    /// The version of the crate, which is that of the wheel.
    #[pymodule_export]
    const VERSION: &str = env!("CARGO_PKG_VERSION");
}

/// The names of the CUDA devices that kernels can run on.
#[pyfunction]
fn cuda_devices(py: Python<'_>) -> PyResult<Vec<String>> {
    let devices = py.detach(probe).map_err(|why| errors::raise(py, &why.into()))?;
    Ok(devices.into_iter().map(|device| device.name).collect())
}
