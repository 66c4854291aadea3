//! `DLTensor`s by hand.

use std::ffi::c_void;

use half::{bf16, f16};
use medcam::dlpack::ffi::{DLDataType, DLDataTypeCode, DLDevice, DLTensor};
use medcam::{Layout, Shape};

pub trait Typed {
    const TYPE: DLDataType;
}

const fn scalars(code: DLDataTypeCode, bits: u8) -> DLDataType {
    DLDataType { code, bits, lanes: 1 }
}

impl Typed for f32 {
    const TYPE: DLDataType = scalars(DLDataTypeCode::FLOAT, 32);
}

impl Typed for f16 {
    const TYPE: DLDataType = scalars(DLDataTypeCode::FLOAT, 16);
}

impl Typed for bf16 {
    const TYPE: DLDataType = scalars(DLDataTypeCode::BFLOAT, 16);
}

impl Typed for u8 {
    const TYPE: DLDataType = scalars(DLDataTypeCode::UINT, 8);
}

impl Typed for i32 {
    const TYPE: DLDataType = scalars(DLDataTypeCode::INT, 32);
}

/// A `DLTensor`, and the numbers that it points at.
pub struct Described {
    pub shape: Vec<i64>,
    pub strides: Option<Vec<i64>>,
    pub tensor: DLTensor,
}

impl Described {
    /// Values that follow each other in order.
    pub fn in_order<T: Typed>(data: *mut c_void, device: DLDevice, shape: &[usize]) -> Self {
        let shape = shape.iter().map(|&n| i64::try_from(n).unwrap()).collect();
        let tensor = DLTensor {
            data,
            device,
            ndim: 0,
            dtype: T::TYPE,
            shape: std::ptr::null_mut(),
            strides: std::ptr::null_mut(),
            byte_offset: 0,
        };
        Self { shape, strides: None, tensor }
    }

    /// `(B, C, [D,] H, W)`; 2D if there is one plane.
    pub fn layer<T: Typed>(
        data: *mut c_void,
        device: DLDevice,
        shape: Shape,
        layout: Layout,
    ) -> Self {
        let Shape { batch, channels, spatial } = shape;
        let spatial = if spatial[0] == 1 { &spatial[1..] } else { &spatial[..] };
        let mut tensor = Self::in_order::<T>(data, device, &[&[batch, channels], spatial].concat());
        let mut strides = vec![0; tensor.shape.len()];
        let mut order: Vec<usize> = (0..strides.len()).collect();
        if layout == Layout::ChannelsLast {
            order.remove(1);
            order.push(1);
        }
        let mut stride = 1;
        for axis in order.into_iter().rev() {
            strides[axis] = stride;
            stride *= tensor.shape[axis];
        }
        tensor.strides = Some(strides);
        tensor
    }

    /// Maps on a grid; `(B, H, W)` if there is one plane.
    pub fn maps<T: Typed>(
        data: *mut c_void,
        device: DLDevice,
        batch: usize,
        grid: [usize; 3],
    ) -> Self {
        let grid = if grid[0] == 1 { &grid[1..] } else { &grid[..] };
        Self::in_order::<T>(data, device, &[&[batch], grid].concat())
    }

    /// The tensor, as C passes it.
    pub fn pointer(&mut self) -> *const DLTensor {
        self.tensor.ndim = i32::try_from(self.shape.len()).unwrap();
        self.tensor.shape = self.shape.as_mut_ptr();
        self.tensor.strides =
            self.strides.as_mut().map_or(std::ptr::null_mut(), |strides| strides.as_mut_ptr());
        &raw const self.tensor
    }
}
