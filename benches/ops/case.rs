//! What one benchmark is: an op on one size, and the two arms that are timed against each other.

use medcam::element::Element;
use medcam::ops::View;
use medcam::tch::{self, Kind, Tensor};
use medcam::{Layout, Shape};

use super::cuda;

/// Where an op runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On all threads of the machine.
    Cpu,
    /// On one of them.
    CpuOneThread,
    /// On the first CUDA device.
    Cuda,
}

impl Place {
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::CpuOneThread => "cpu1",
            Self::Cuda => "cuda",
        }
    }

    pub fn description(self) -> &'static str {
        match self {
            Self::Cpu => "CPU, all threads",
            Self::CpuOneThread => "CPU, one thread",
            Self::Cuda => "CUDA",
        }
    }

    pub fn device(self) -> tch::Device {
        match self {
            Self::Cpu | Self::CpuOneThread => tch::Device::Cpu,
            Self::Cuda => cuda::device(),
        }
    }
}

/// A type that libtorch has too.
pub trait Stored: Copy {
    const KIND: Kind;
}

impl Stored for f32 {
    const KIND: Kind = Kind::Float;
}

impl Stored for half::f16 {
    const KIND: Kind = Kind::Half;
}

impl Stored for half::bf16 {
    const KIND: Kind = Kind::BFloat16;
}

impl Stored for u8 {
    const KIND: Kind = Kind::Uint8;
}

/// A type of activations and gradients.
pub trait Scalar: Element + Stored {}

impl<T: Element + Stored> Scalar for T {}

/// Our own arm for the place and the type of a layer: `own_arm!(layer, on_cpu, on_cuda, more)` is
/// `on_cpu::<f32>(layer, more)` and so on.
macro_rules! own_arm {
    ($layer:expr, $on_cpu:ident, $on_cuda:ident $(, $more:expr)?) => {{
        use half::{bf16, f16};
        use medcam::tch::Kind;
        match ($layer.place, $layer.kind) {
            (super::case::Place::Cuda, Kind::Half) => $on_cuda::<f16>($layer $(, $more)?),
            (super::case::Place::Cuda, Kind::BFloat16) => $on_cuda::<bf16>($layer $(, $more)?),
            (super::case::Place::Cuda, _) => $on_cuda::<f32>($layer $(, $more)?),
            (_, Kind::Half) => $on_cpu::<f16>($layer $(, $more)?),
            (_, Kind::BFloat16) => $on_cpu::<bf16>($layer $(, $more)?),
            (_, _) => $on_cpu::<f32>($layer $(, $more)?),
        }
    }};
}
pub(crate) use own_arm;

/// A layer whose activation and gradient an op works on, and where.
#[derive(Clone, Copy)]
pub struct Layer {
    pub place: Place,
    pub kind: Kind,
    pub shape: Shape,
    pub layout: Layout,
    /// The grid of the network's input, to which maps are resampled.
    pub input: [usize; 3],
}

impl Layer {
    /// `device/dtype/BxCxDxHxW`, and the layout where it is not the usual one.
    pub fn id(&self) -> String {
        format!("{}/{}", self.place.name(), self.size())
    }

    /// `dtype/BxCxDxHxW`, and the layout where it is not the usual one.
    pub fn size(&self) -> String {
        let Shape { batch, channels, spatial: [d, h, w] } = self.shape;
        let layout = match self.layout {
            Layout::Contiguous => "",
            Layout::ChannelsLast => "-channels-last",
        };
        format!("{}/{batch}x{channels}x{d}x{h}x{w}{layout}", kind_name(self.kind))
    }

    /// Whether what is done with maps is measured on the map of this layer: maps are f32, whatever
    /// the layer is.
    pub fn stands_for_its_map(&self) -> bool {
        self.kind == Kind::Float && self.layout == Layout::Contiguous
    }

    /// The same with one channel, as a map has it.
    pub fn as_map(&self) -> Self {
        Self { shape: Shape { channels: 1, ..self.shape }, ..*self }
    }

    /// Whether the network is one for 2D images.
    fn planar(&self) -> bool {
        self.shape.spatial[0] == 1
    }

    /// An input of the layer's own shape, type and layout.
    pub fn tensor(&self, values: Values) -> Input {
        let Self { shape, kind, layout, .. } = *self;
        Input { shape, kind, layout, values, planar: self.planar() }
    }

    /// An f32 input with one channel on the given grid.
    pub fn map(&self, spatial: [usize; 3], values: Values) -> Input {
        self.plain(1, spatial, values)
    }

    /// A u8 input with one channel on the given grid.
    pub fn mask(&self, spatial: [usize; 3]) -> Input {
        Input { kind: Kind::Uint8, ..self.plain(1, spatial, Values::Binary) }
    }

    /// An f32 input with one value per channel.
    pub fn weights(&self) -> Input {
        self.plain(self.shape.channels, [1, 1, 1], Values::Signed)
    }

    fn plain(&self, channels: usize, spatial: [usize; 3], values: Values) -> Input {
        let shape = Shape { batch: self.shape.batch, channels, spatial };
        let (kind, layout, planar) = (Kind::Float, Layout::Contiguous, self.planar());
        Input { shape, kind, layout, values, planar }
    }

    /// The bytes of an f32 map on the given grid.
    pub fn map_bytes(&self, spatial: [usize; 3]) -> usize {
        self.map(spatial, Values::Signed).bytes()
    }
}

pub fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Half => "f16",
        Kind::BFloat16 => "bf16",
        Kind::Uint8 => "u8",
        _ => "f32",
    }
}

/// What an input holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Values {
    /// As a gradient: both signs, about as many of each.
    Signed,
    /// As an activation behind a ReLU.
    Rectified,
    /// As a normalised map: in `[0, 1]`.
    Normalized,
    /// As a mask: 0 or 1.
    Binary,
}

/// A tensor that an op reads.
#[derive(Clone, Copy)]
pub struct Input {
    pub shape: Shape,
    pub kind: Kind,
    pub layout: Layout,
    pub values: Values,
    /// As `(B, C, H, W)`, without the depth.
    pub planar: bool,
}

impl Input {
    pub fn bytes(&self) -> usize {
        self.shape.elements() * self.kind.elt_size_in_bytes()
    }
}

/// One side of a comparison, run on one set of inputs.
pub type Arm = Box<dyn FnMut(&mut [Tensor]) + Send>;

/// An op on one layer.
pub struct Case {
    pub op: &'static str,
    pub layer: Layer,
    /// What the op reads, each once: with `written`, the fewest bytes that it must move.
    pub inputs: Vec<Input>,
    pub written: usize,
    pub medcam: Arm,
    pub libtorch: Arm,
}

impl Case {
    pub fn read(&self) -> usize {
        self.inputs.iter().map(Input::bytes).sum()
    }
}

/// The memory of a tensor on the CPU.
///
/// # Panics
///
/// If it is not of type `T`, not on the CPU, or has gaps.
pub fn view<'a, T: Scalar>(tensor: &'a Tensor, layer: &Layer) -> View<'a, T> {
    View::new(values::<T>(tensor), layer.shape, layer.layout).unwrap()
}

/// The values of a tensor on the CPU in the order of its memory.
///
/// # Panics
///
/// If it is not of type `T`, not on the CPU, or has gaps.
pub fn values<T: Stored>(tensor: &Tensor) -> &[T] {
    check::<T>(tensor);
    // SAFETY: a gapless tensor on the CPU has `numel` values of type T (its kind says so) behind its
    // data pointer, which libtorch aligns. No two inputs share memory, and it is written to only
    // through `values_mut`, which borrows the tensor mutably.
    unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast(), tensor.numel()) }
}

/// As [`values()`], to be overwritten.
///
/// # Panics
///
/// As [`values()`].
pub fn values_mut<T: Stored>(tensor: &mut Tensor) -> &mut [T] {
    check::<T>(tensor);
    // SAFETY: as in `values`, and the tensor is borrowed mutably as long as the slice lives.
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast(), tensor.numel()) }
}

fn check<T: Stored>(tensor: &Tensor) {
    assert_eq!(tensor.device(), tch::Device::Cpu);
    check_memory::<T>(tensor);
}

/// Checks that a tensor has `numel` values of type `T`, in some order and without gaps.
///
/// # Panics
///
/// If it has not.
pub fn check_memory<T: Stored>(tensor: &Tensor) {
    assert_eq!(tensor.kind(), T::KIND);
    let mut steps: Vec<_> = tensor.stride().into_iter().zip(tensor.size()).collect();
    steps.sort_unstable();
    let mut expected = 1;
    for (stride, extent) in steps.into_iter().filter(|&(_, extent)| extent != 1) {
        assert_eq!(stride, expected, "a tensor without gaps");
        expected *= extent;
    }
}
