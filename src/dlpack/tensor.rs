//! `DLTensor*` as what the ops take. Every field is checked before memory is looked at.

use std::marker::PhantomData;
use std::slice;

use dlpark::ffi::{DLDataTypeCode, DLDevice, DLDeviceType, DLTensor};
use ndarray::ArrayView4;

use crate::device::{Plain, Slice, SliceMut};
use crate::element::Element;
use crate::error::{Error, Result};
use crate::ops::summary::SampleSummary;
use crate::ops::{DeviceView, View};
use crate::shape::{Layout, Shape};

/// Where memory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// What the CPU reads.
    Cpu,
    /// A CUDA device, by its number.
    Cuda(usize),
}

impl Place {
    /// Of a DLPack device.
    ///
    /// # Errors
    ///
    /// If it is neither the CPU nor a CUDA device.
    pub fn of(device: DLDevice) -> Result<Self> {
        match (device.device_type, usize::try_from(device.device_id)) {
            (DLDeviceType::CPU | DLDeviceType::CUDAHOST, _) => Ok(Self::Cpu),
            (DLDeviceType::CUDA | DLDeviceType::CUDAMANAGED, Ok(ordinal)) => {
                Ok(Self::Cuda(ordinal))
            }
            (DLDeviceType(kind), _) => Err(Error::input(
                "device",
                format!(
                    "number {} of type {kind}; there are the CPU (type 1) and CUDA devices (type 2)",
                    device.device_id
                ),
            )),
        }
    }
}

/// The types that the ops know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// 32-bit floats.
    F32,
    /// IEEE half-precision floats.
    F16,
    /// The upper halves of 32-bit floats.
    Bf16,
    /// Bytes: masks, and maps in 255ths.
    U8,
    /// 32-bit integers: the words of summaries.
    I32,
}

impl Kind {
    /// Bytes of a value.
    fn bytes(self) -> usize {
        match self {
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::U8 => 1,
        }
    }
}

/// A tensor to read, whose fields have been checked.
#[derive(Debug)]
pub struct Tensor<'a> {
    name: &'static str,
    place: Place,
    kind: Kind,
    extents: Vec<usize>,
    /// In values; none where the values follow each other.
    strides: Option<Vec<i64>>,
    address: usize,
    memory: PhantomData<&'a [u8]>,
}

impl<'a> Tensor<'a> {
    /// Checks a tensor, which messages call `name`.
    ///
    /// # Errors
    ///
    /// If a pointer is null, an extent is 0 or negative, there are not 1 to 5 axes, the type is not of
    /// [`Kind`], the device not of [`Place`], or the data not aligned to its type.
    ///
    /// # Safety
    ///
    /// `tensor` is null or points at a `DLTensor` whose `shape` and `strides` are each null or point at
    /// `ndim` numbers. `data` points at the values that its fields promise, which stay, and which
    /// nothing writes to, for `'a`; on a device, until the work that was enqueued is done.
    pub unsafe fn of(name: &'static str, tensor: *const DLTensor) -> Result<Self> {
        let refuse = |what: String| Error::input(name, what);
        if tensor.is_null() {
            return Err(refuse("a null pointer".to_owned()));
        }
        if !tensor.is_aligned() {
            return Err(refuse("its pointer is not aligned to 8 bytes".to_owned()));
        }
        // SAFETY: neither null nor misaligned, and a tensor by the caller's word.
        let tensor = unsafe { &*tensor };
        let place = Place::of(tensor.device).map_err(|error| error.within(name))?;
        let (code, bits, lanes) = (tensor.dtype.code, tensor.dtype.bits, tensor.dtype.lanes);
        let kind = match (code, bits, lanes) {
            (DLDataTypeCode::FLOAT, 32, 1) => Kind::F32,
            (DLDataTypeCode::FLOAT, 16, 1) => Kind::F16,
            (DLDataTypeCode::BFLOAT, 16, 1) => Kind::Bf16,
            (DLDataTypeCode::UINT | DLDataTypeCode::BOOL, 8, 1) => Kind::U8,
            (DLDataTypeCode::INT, 32, 1) => Kind::I32,
            (DLDataTypeCode(code), ..) => {
                return Err(refuse(format!(
                    "values of type code {code} with {bits} bits and {lanes} lanes; there are f32, f16, \
                     bf16 and u8"
                )));
            }
        };
        let rank = usize::try_from(tensor.ndim).ok().filter(|rank| (1..=5).contains(rank));
        let Some(rank) = rank else {
            return Err(refuse(format!("{} axes; tensors have 1 to 5", tensor.ndim)));
        };
        if tensor.shape.is_null() {
            return Err(refuse("its shape is a null pointer".to_owned()));
        }
        if !(tensor.shape.is_aligned() && tensor.strides.is_aligned()) {
            return Err(refuse("its shape or strides are not aligned to 8 bytes".to_owned()));
        }
        // SAFETY: neither null nor misaligned, and `ndim` numbers by the caller's word.
        let shape = unsafe { slice::from_raw_parts(tensor.shape, rank) };
        let extents: Result<Vec<usize>, _> = shape.iter().map(|&n| usize::try_from(n)).collect();
        let Ok(extents) = extents else {
            return Err(refuse(format!("shape {shape:?} has a negative extent")));
        };
        let bytes = extents.iter().try_fold(kind.bytes(), |bytes, &n| bytes.checked_mul(n));
        let bytes = match bytes.filter(|&bytes| isize::try_from(bytes).is_ok()) {
            Some(0) => return Err(refuse(format!("shape {shape:?} holds no values"))),
            Some(bytes) => bytes,
            None => {
                return Err(refuse(format!("shape {shape:?} has too many elements to count")));
            }
        };
        // Before version 1.2 of DLPack, none where the values follow each other.
        let strides = (!tensor.strides.is_null()).then(|| {
            // SAFETY: as for the shape.
            unsafe { slice::from_raw_parts(tensor.strides, rank) }.to_vec()
        });
        let offset = usize::try_from(tensor.byte_offset).ok();
        let address = offset.and_then(|offset| tensor.data.addr().checked_add(offset));
        let address = address
            .filter(|address| !tensor.data.is_null() && address.checked_add(bytes).is_some());
        let Some(address) = address else {
            return Err(refuse("its data is a null pointer, or ends beyond all memory".to_owned()));
        };
        if !address.is_multiple_of(kind.bytes()) {
            return Err(refuse(format!("its data is not aligned to {} bytes", kind.bytes())));
        }
        Ok(Self { name, place, kind, extents, strides, address, memory: PhantomData })
    }

    /// Where its memory is.
    pub fn place(&self) -> Place {
        self.place
    }

    /// The type of its values.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The extents of its axes.
    pub fn extents(&self) -> &[usize] {
        &self.extents
    }

    /// Maps on the CPU, f32 and in order, as `(B, D, H, W)`.
    ///
    /// # Errors
    ///
    /// If the tensor is something else.
    pub fn array(&self) -> Result<ArrayView4<'a, f32>> {
        self.check_kind(Kind::F32)?;
        let (batch, [d, h, w]) = self.maps()?;
        ArrayView4::from_shape((batch, d, h, w), self.values()?)
            .map_err(|error| self.refuse(&error.to_string()))
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn refuse(&self, what: &str) -> Error {
        let Self { name, extents, strides, .. } = self;
        match strides {
            Some(strides) => {
                Error::input(name, format!("{what} (shape {extents:?}, strides {strides:?})"))
            }
            None => Error::input(name, format!("{what} (shape {extents:?})")),
        }
    }

    /// Whether it shares memory with another.
    pub(super) fn overlaps(&self, other: &Tensor) -> bool {
        let bytes = |tensor: &Tensor| tensor.count() * tensor.kind.bytes();
        self.place == other.place
            && self.address < other.address + bytes(other)
            && other.address < self.address + bytes(self)
    }

    pub(super) fn count(&self) -> usize {
        self.extents.iter().product()
    }

    /// As `(B, C, [D,] H, W)` without gaps.
    pub(super) fn form(&self) -> Result<(Shape, Layout)> {
        let shape = match self.extents[..] {
            [b, c, h, w] => Shape::new(b, c, [1, h, w]),
            [b, c, d, h, w] => Shape::new(b, c, [d, h, w]),
            _ => return Err(self.refuse("expected (B, C, H, W) or (B, C, D, H, W)")),
        };
        let shape = shape.map_err(|error| error.within(self.name))?;
        let layout = match &self.strides {
            None => Some(Layout::Contiguous),
            Some(strides) => Layout::of(&self.extents, strides),
        };
        let layout = layout.ok_or_else(|| {
            self.refuse(
                "it lies in memory neither as (B, C, [D,] H, W) nor as (B, [D,] H, W, C) without gaps; \
                 copy it into order",
            )
        })?;
        Ok((shape, layout))
    }

    /// As maps `(B, H, W)`, `(B, D, H, W)` or `(B, 1, D, H, W)` in order: `B`, and the grid `D, H, W`.
    pub(super) fn maps(&self) -> Result<(usize, [usize; 3])> {
        self.check_order()?;
        let (batch, grid) = match self.extents[..] {
            [b, h, w] => (b, [1, h, w]),
            // For 2D that is `(B, 1, H, W)` too.
            [b, d, h, w] | [b, 1, d, h, w] => (b, [d, h, w]),
            _ => return Err(self.refuse("expected maps (B, [D,] H, W) or (B, 1, [D,] H, W)")),
        };
        Shape::new(batch, 1, grid).map_err(|error| error.within(self.name))?;
        Ok((batch, grid))
    }

    /// Refuses values that do not follow each other in order.
    pub(super) fn check_order(&self) -> Result<()> {
        let in_order = self.strides.as_ref().is_none_or(|strides| {
            // With an axis of extent 1 in front, one axis is enough for a layout.
            let extents: Vec<usize> = [1].iter().chain(&self.extents).copied().collect();
            let strides: Vec<i64> = [0].iter().chain(strides).copied().collect();
            Layout::of(&extents, &strides) == Some(Layout::Contiguous)
        });
        if in_order {
            return Ok(());
        }
        Err(self.refuse("its values have to follow each other in order; copy it into order"))
    }

    /// Refuses an activation whose sums over channels or voxels memory does not hold: an allocation that
    /// fails ends the process.
    pub(super) fn check_memory(&self) -> Result<()> {
        let (shape, _) = self.form()?;
        // A value for each voxel; for each channel the sums of its parts, in f64, and the weight.
        let maps = shape.batch.saturating_mul(shape.voxels()).saturating_mul(4);
        let weights = shape.batch.saturating_mul(shape.channels).saturating_mul(16);
        match Vec::<u8>::new().try_reserve_exact(maps.saturating_add(weights)) {
            Ok(()) => Ok(()),
            Err(_) => Err(self.refuse("no memory for its sums; part the batch")),
        }
    }

    /// Refuses values of another type.
    pub(super) fn check_kind(&self, kind: Kind) -> Result<()> {
        if self.kind == kind {
            return Ok(());
        }
        Err(self.refuse(&format!("values of {:?}, and here they are {kind:?}", self.kind)))
    }

    /// An activation or gradient on the CPU; `T` is that of [`for_element`](super::for_element).
    pub(super) fn view<T: Element>(&self) -> Result<View<'a, T>> {
        let (shape, layout) = self.form()?;
        View::new(self.values()?, shape, layout)
    }

    /// An activation or gradient on a device.
    pub(super) fn device_view<T: Element>(&self) -> Result<DeviceView<'a, T>> {
        let (shape, layout) = self.form()?;
        DeviceView::new(self.slice()?, shape, layout)
    }

    /// Its values on the CPU, as they lie in memory; for tensors without gaps.
    pub(super) fn values<T: Plain>(&self) -> Result<&'a [T]> {
        self.check_access::<T>(self.place == Place::Cpu)?;
        // SAFETY: aligned, not null, within `isize`, on the CPU, and there for `'a` by the word of
        // `of`'s caller. All bits are values of a `Plain` type.
        Ok(unsafe { slice::from_raw_parts(self.address as *const T, self.count()) })
    }

    /// Its values on a device, as they lie in memory; for tensors without gaps.
    pub(super) fn slice<T: Plain>(&self) -> Result<Slice<'a, T>> {
        let Place::Cuda(ordinal) = self.place else {
            return Err(self.refuse("memory of the CPU"));
        };
        self.check_access::<T>(true)?;
        // SAFETY: aligned, and on this device for `'a` by the word of `of`'s caller.
        Ok(unsafe { Slice::from_raw(ordinal, self.address as u64, self.count()) })
    }

    /// Refuses an access in another place or size of values: a bug of a caller in this room.
    fn check_access<T>(&self, in_place: bool) -> Result<()> {
        if in_place && size_of::<T>() == self.kind.bytes() {
            return Ok(());
        }
        Err(self.refuse("memory of another place or type"))
    }
}

/// A tensor to write to, whose fields have been checked.
#[derive(Debug)]
pub struct TensorMut<'a>(Tensor<'a>);

impl<'a> TensorMut<'a> {
    /// Checks a tensor, which messages call `name`.
    ///
    /// # Errors
    ///
    /// As [`Tensor::of`].
    ///
    /// # Safety
    ///
    /// As [`Tensor::of`], and nothing else reads or writes the values for `'a`; on a device, until the
    /// work that was enqueued is done. They need not be initialised.
    pub unsafe fn of(name: &'static str, tensor: *const DLTensor) -> Result<Self> {
        // SAFETY: by the caller's word.
        Ok(Self(unsafe { Tensor::of(name, tensor) }?))
    }

    /// The same, to read.
    pub fn tensor(&self) -> &Tensor<'a> {
        &self.0
    }

    /// Its values on the CPU, as they lie in memory; for tensors without gaps.
    pub(super) fn values<T: Plain>(&mut self) -> Result<&mut [T]> {
        self.0.check_access::<T>(self.0.place == Place::Cpu)?;
        // SAFETY: as in `Tensor::values`, and this is the only access by the word of `of`'s caller.
        // What is in foreign memory before are some bits, and all of them are values.
        Ok(unsafe { slice::from_raw_parts_mut(self.0.address as *mut T, self.0.count()) })
    }

    /// Its values on a device, as they lie in memory; for tensors without gaps.
    pub(super) fn slice<T: Plain>(&mut self) -> Result<SliceMut<'_, T>> {
        let slice = self.0.slice::<T>()?;
        // SAFETY: as in `values`.
        Ok(unsafe { SliceMut::from_raw(slice.ordinal(), slice.pointer(), slice.len()) })
    }
    /// Its values on a device as summaries; for words `(B, 8)` in order.
    pub(super) fn summaries(&mut self) -> Result<SliceMut<'_, SampleSummary>> {
        let words = self.slice::<i32>()?;
        let (ordinal, count) = (words.ordinal(), words.len() / SampleSummary::WORDS);
        // SAFETY: as in `values`. A summary is eight words, and aligned as one.
        Ok(unsafe { SliceMut::from_raw(ordinal, words.pointer(), count) })
    }
}
