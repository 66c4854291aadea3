//! Where calls on a GPU take scratch memory from: PyTorch's pool.

use std::collections::HashMap;
use std::error::Error;
use std::ffi::c_void;
use std::sync::{Arc, Mutex, PoisonError};

use medcam::device::Allocator;
use medcam::dlpack::{Place, Work, Workspace};
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// What calls keep, by device and stream; one that is in use is not among them.
static WORKSPACES: Mutex<Vec<(usize, Workspace)>> = Mutex::new(Vec::new());

/// Runs `call` on the CPU, or on a stream of a device, without the interpreter's lock.
pub fn run<R: Send>(
    py: Python<'_>,
    place: Place,
    stream: usize,
    call: impl FnOnce(&mut Work<'_>) -> medcam::Result<R> + Send,
) -> PyResult<R> {
    let run = || {
        let mut workspace = match place {
            Place::Cpu => Workspace::new(place)?,
            Place::Cuda(ordinal) => take(ordinal, stream)?,
        };
        // SAFETY: `medcam_rs` passes PyTorch's current stream of the device, on which the tensors are
        // ready. It is of the primary context, and PyTorch destroys none.
        let mut work = unsafe { workspace.on(std::ptr::with_exposed_provenance_mut(stream)) }?;
        let result = call(&mut work);
        if place != Place::Cpu {
            WORKSPACES.lock().unwrap_or_else(PoisonError::into_inner).push((stream, workspace));
        }
        result
    };
    py.detach(run).map_err(|error| crate::errors::raise(py, &error))
}

/// A workspace that was last on this stream, or a new one.
fn take(ordinal: usize, stream: usize) -> medcam::Result<Workspace> {
    let place = Place::Cuda(ordinal);
    let mut kept = WORKSPACES.lock().unwrap_or_else(PoisonError::into_inner);
    let same = |(of, workspace): &(usize, Workspace)| *of == stream && workspace.place() == place;
    if let Some(index) = kept.iter().position(same) {
        return Ok(kept.swap_remove(index).1);
    }
    drop(kept);
    let mut workspace = Workspace::new(place)?;
    let tensors = Mutex::default();
    workspace.set_allocator(Arc::new(TorchMemory { ordinal, tensors }));
    Ok(workspace)
}

/// Bytes of PyTorch's pool, as tensors that are kept until they are freed.
struct TorchMemory {
    ordinal: usize,
    tensors: Mutex<HashMap<u64, Py<PyAny>>>,
}

// SAFETY: `torch.empty` gives memory of this device that nothing else uses as long as the tensor is
// there, aligned to 512 bytes. It is of the thread's current stream, which is the call's: what is freed
// goes to later work of that stream.
unsafe impl Allocator for TorchMemory {
    fn allocate(
        &self,
        bytes: usize,
        _stream: *mut c_void,
    ) -> Result<u64, Box<dyn Error + Send + Sync>> {
        Python::attach(|py| {
            let torch = py.import("torch")?;
            let options = PyDict::new(py);
            options.set_item("dtype", torch.getattr("uint8")?)?;
            options.set_item("device", format!("cuda:{}", self.ordinal))?;
            let tensor = torch.call_method("empty", (bytes,), Some(&options))?;
            let pointer: u64 = tensor.call_method0("data_ptr")?.extract()?;
            let mut tensors = self.tensors.lock().unwrap_or_else(PoisonError::into_inner);
            tensors.insert(pointer, tensor.unbind());
            Ok(pointer)
        })
        .map_err(|error: PyErr| error.to_string().into())
    }

    unsafe fn free(&self, pointer: u64, _bytes: usize) {
        let mut tensors = self.tensors.lock().unwrap_or_else(PoisonError::into_inner);
        // Without the interpreter's lock, the tensor goes when that is next held.
        drop(tensors.remove(&pointer));
    }
}
