//! Arrays and capsules of Python as `DLTensor`s, without a copy.

use std::ffi::c_void;
use std::ptr::{self, NonNull};

use medcam::dlpack::ffi::{
    DLDataType, DLDataTypeCode, DLDevice, DLDeviceType, DLManagedTensor, DLTensor,
};
use medcam::dlpack::{Tensor, TensorMut};
use pyo3::ffi::PyCapsule_SetName;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyDict, PyString};

use crate::errors::{exception, raise};

/// A tensor that Python holds, for the length of a call.
pub struct Borrowed<'py> {
    /// Keeps the memory.
    owner: Bound<'py, PyAny>,
    memory: Memory,
}

enum Memory {
    /// What an `__array_interface__` says.
    Array { tensor: DLTensor, shape: Box<[i64]>, strides: Option<Box<[i64]>> },
    /// What a capsule held, which is ours to delete.
    Managed(NonNull<DLManagedTensor>),
}

impl<'py> Borrowed<'py> {
    /// What `medcam_rs` lends: a capsule of DLPack, or an array with `__array_interface__`.
    pub fn new(object: &Bound<'py, PyAny>) -> PyResult<Self> {
        if let Ok(capsule) = object.cast::<PyCapsule>() {
            return Self::of_capsule(capsule);
        }
        let py = object.py();
        match object.getattr_opt(intern!(py, "__array_interface__"))? {
            Some(interface) => Self::of_array(object, interface.cast::<PyDict>()?),
            None => {
                let kind = object.get_type().name()?;
                let what = format!("a {kind} is neither an array nor a tensor");
                Err(exception(py, "DtypeError", what))
            }
        }
    }

    /// An array of the interface's version 3.
    fn of_array(object: &Bound<'py, PyAny>, interface: &Bound<'py, PyDict>) -> PyResult<Self> {
        let py = object.py();
        // NumPy interns the keys of each new interface. Keeping them spares Python from growing its table
        // of such strings, which half a megabyte of is seldom given back.
        let _ = (intern!(py, "descr"), intern!(py, "version"));
        let item = |name: &Bound<'py, PyString>| -> PyResult<Bound<'py, PyAny>> {
            interface.get_item(name)?.ok_or_else(|| {
                exception(py, "InputError", format!("the __array_interface__ has no {name}"))
            })
        };
        let (address, _read_only): (usize, bool) = item(intern!(py, "data"))?.extract()?;
        let mut shape: Box<[i64]> = item(intern!(py, "shape"))?.extract::<Vec<i64>>()?.into();
        let kind: String = item(intern!(py, "typestr"))?.extract()?;
        let (code, bits) = match kind.strip_prefix(['<', '|', '=']) {
            Some("f4") if cfg!(target_endian = "little") => (DLDataTypeCode::FLOAT, 32),
            Some("f2") if cfg!(target_endian = "little") => (DLDataTypeCode::FLOAT, 16),
            Some("u1" | "b1") => (DLDataTypeCode::UINT, 8),
            _ => {
                let what =
                    format!("an array of type {kind}; there are f4, f2 and u1 of this machine");
                return Err(exception(py, "DtypeError", what));
            }
        };
        let bytes = bits / 8;
        let strides = match interface.get_item(intern!(py, "strides"))? {
            Some(strides) if !strides.is_none() => {
                let strides: Vec<i64> = strides.extract()?;
                if strides.len() != shape.len() || strides.iter().any(|n| n % bytes != 0) {
                    let what = format!("strides of {strides:?} bytes for values of {bytes}");
                    return Err(exception(py, "InputError", what));
                }
                Some(strides.into_iter().map(|n| n / bytes).collect::<Box<[i64]>>())
            }
            _ => None,
        };
        let tensor = DLTensor {
            data: ptr::with_exposed_provenance_mut::<c_void>(address),
            device: DLDevice { device_type: DLDeviceType::CPU, device_id: 0 },
            ndim: i32::try_from(shape.len())?,
            dtype: DLDataType { code, bits: u8::try_from(bits)?, lanes: 1 },
            shape: shape.as_mut_ptr(),
            strides: ptr::null_mut(),
            byte_offset: 0,
        };
        let memory = Memory::Array { tensor, shape, strides };
        Ok(Self { owner: object.clone(), memory })
    }

    fn of_capsule(capsule: &Bound<'py, PyCapsule>) -> PyResult<Self> {
        let (name, used) = (c"dltensor", c"used_dltensor");
        if !capsule.is_valid_checked(Some(name)) {
            let what = "the DLPack capsule has been consumed already, or is none: make a new one";
            return Err(exception(capsule.py(), "InputError", what.to_owned()));
        }
        let pointer = capsule.pointer_checked(Some(name))?;
        // SAFETY: a capsule, and a name that stays. Whoever sees this name leaves the tensor alone.
        if unsafe { PyCapsule_SetName(capsule.as_ptr(), used.as_ptr()) } != 0 {
            return Err(PyErr::fetch(capsule.py()));
        }
        let memory = Memory::Managed(pointer.cast());
        Ok(Self { owner: capsule.clone().into_any(), memory })
    }

    fn tensor(&mut self) -> *const DLTensor {
        match &mut self.memory {
            Memory::Array { tensor, shape, strides } => {
                tensor.shape = shape.as_mut_ptr();
                tensor.strides = strides.as_mut().map_or(ptr::null_mut(), |n| n.as_mut_ptr());
                tensor
            }
            // SAFETY: live until this is dropped.
            Memory::Managed(tensor) => unsafe { &raw const (*tensor.as_ptr()).dl_tensor },
        }
    }

    /// To read.
    pub fn input(&mut self, name: &'static str) -> PyResult<Tensor<'_>> {
        // SAFETY: the fields are those of a live tensor, whose owner this holds on to. Whoever writes to
        // it from another thread during the call gets some of both values, as with any NumPy function.
        unsafe { Tensor::of(name, self.tensor()) }.map_err(|error| raise(self.owner.py(), &error))
    }

    /// To write to.
    pub fn output(&mut self, name: &'static str) -> PyResult<TensorMut<'_>> {
        // SAFETY: as in `input`; `medcam_rs` makes a new one for each call.
        unsafe { TensorMut::of(name, self.tensor()) }
            .map_err(|error| raise(self.owner.py(), &error))
    }
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        match &self.memory {
            Memory::Array { .. } => {}
            // SAFETY: live, taken out of its capsule, and deleted once.
            Memory::Managed(tensor) => unsafe {
                if let Some(delete) = (*tensor.as_ptr()).deleter {
                    delete(tensor.as_ptr());
                }
            },
        }
    }
}
