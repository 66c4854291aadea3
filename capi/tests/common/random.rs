//! Random tensors, from a seed.

use std::ptr;

use half::{bf16, f16};
use medcam_ops::dlpack::ffi::{DLDataType, DLDataTypeCode, DLDevice, DLDeviceType, DLTensor};
use medcam_ops::{Layout, Shape};

/// A type of DLPack tensors.
pub trait Value: Copy {
    const CODE: DLDataTypeCode;
    fn nearest(value: f32) -> Self;
    fn bits(self) -> u32;
}

impl Value for f32 {
    const CODE: DLDataTypeCode = DLDataTypeCode::FLOAT;
    fn nearest(value: f32) -> Self {
        value
    }
    fn bits(self) -> u32 {
        self.to_bits()
    }
}

impl Value for f16 {
    const CODE: DLDataTypeCode = DLDataTypeCode::FLOAT;
    fn nearest(value: f32) -> Self {
        Self::from_f32(value)
    }
    fn bits(self) -> u32 {
        self.to_bits().into()
    }
}

impl Value for bf16 {
    const CODE: DLDataTypeCode = DLDataTypeCode::BFLOAT;
    fn nearest(value: f32) -> Self {
        Self::from_f32(value)
    }
    fn bits(self) -> u32 {
        self.to_bits().into()
    }
}

impl Value for u8 {
    const CODE: DLDataTypeCode = DLDataTypeCode::UINT;
    fn nearest(_: f32) -> Self {
        0
    }
    fn bits(self) -> u32 {
        self.into()
    }
}

/// Values with a shape and, unless they follow each other, strides.
#[derive(Debug, Clone)]
pub struct Tensor<T> {
    pub values: Vec<T>,
    shape: Vec<i64>,
    strides: Option<Vec<i64>>,
}

impl<T: Value> Tensor<T> {
    fn new(shape: Vec<usize>) -> Self {
        let values = vec![T::nearest(0.0); shape.iter().product()];
        let shape = shape.into_iter().map(|n| i64::try_from(n).unwrap()).collect();
        Self { values, shape, strides: None }
    }

    /// Maps `(B, D, H, W)`; in 2D `(B, H, W)`.
    pub fn zeros(batch: usize, [d, h, w]: [usize; 3]) -> Self {
        Self::new(if d == 1 { vec![batch, h, w] } else { vec![batch, d, h, w] })
    }

    /// Weights `(B, C)`.
    pub fn pairs(batch: usize, channels: usize) -> Self {
        Self::new(vec![batch, channels])
    }

    /// What a C function takes. It points into this.
    pub fn dl(&mut self) -> DLTensor {
        DLTensor {
            data: self.values.as_mut_ptr().cast(),
            device: DLDevice { device_type: DLDeviceType::CPU, device_id: 0 },
            ndim: i32::try_from(self.shape.len()).unwrap(),
            dtype: DLDataType {
                code: T::CODE,
                bits: u8::try_from(8 * size_of::<T>()).unwrap(),
                lanes: 1,
            },
            shape: self.shape.as_mut_ptr(),
            strides: self.strides.as_mut().map_or(ptr::null_mut(), |strides| strides.as_mut_ptr()),
            byte_offset: 0,
        }
    }
}

/// splitmix64.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).unwrap()
    }

    /// From -1 to 1.
    pub fn value(&mut self) -> f32 {
        (self.below(1 << 20) as f32 / (1 << 19) as f32) - 1.0
    }

    /// Where both are the same in memory, a tensor counts as contiguous.
    pub fn layout(&mut self, shape: Shape) -> Layout {
        let layout = [Layout::Contiguous, Layout::ChannelsLast][self.below(2)];
        if shape.channels == 1 || shape.voxels() == 1 { Layout::Contiguous } else { layout }
    }

    /// One in three is 2D.
    pub fn grid(&mut self) -> [usize; 3] {
        let mut extent = || 1 + self.below(11);
        let grid = [extent(), extent(), extent()];
        if self.below(3) == 0 { [1, grid[1], grid[2]] } else { grid }
    }

    pub fn shape(&mut self) -> Shape {
        Shape::new(1 + self.below(3), 1 + self.below(20), self.grid()).unwrap()
    }

    /// `(B, C, D, H, W)`, or `(B, C, H, W)` in 2D.
    pub fn tensor<T: Value>(&mut self, shape: Shape, layout: Layout) -> Tensor<T> {
        let Shape { batch, channels, spatial: [d, h, w] } = shape;
        let spatial = if d == 1 { vec![h, w] } else { vec![d, h, w] };
        let extents: Vec<usize> = [batch, channels].into_iter().chain(spatial).collect();
        let mut tensor = Tensor::new(extents.clone());
        tensor.values.iter_mut().for_each(|value| *value = T::nearest(self.value()));
        let rank = extents.len();
        let order: Vec<usize> = match layout {
            Layout::Contiguous => (0..rank).rev().collect(),
            Layout::ChannelsLast => [1].into_iter().chain((2..rank).rev()).chain([0]).collect(),
        };
        let mut strides = vec![0; rank];
        let mut next = 1;
        for axis in order {
            strides[axis] = next;
            next *= i64::try_from(extents[axis]).unwrap();
        }
        tensor.strides = (layout == Layout::ChannelsLast || self.below(2) == 0).then_some(strides);
        tensor
    }

    pub fn map(&mut self, batch: usize, grid: [usize; 3]) -> Tensor<f32> {
        let mut map = Tensor::zeros(batch, grid);
        map.values.iter_mut().for_each(|value| *value = self.value());
        map
    }
}
