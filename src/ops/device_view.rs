//! The borrowed tensor in device memory that all launchers read.

use std::fmt;

use crate::device::Slice;
use crate::element::Element;
use crate::error::{Error, Result};
use crate::shape::{Layout, Shape};

/// A borrowed tensor `(B, C, D, H, W)` on a device: what a [`View`](super::View) is on the host.
///
/// # Example
///
/// ```no_run
/// use medcam::device::{Gpu, Stream};
/// use medcam::ops::DeviceView;
/// use medcam::{Layout, Shape};
///
/// let stream = Stream::new(Gpu::get(0)?)?;
/// let data = stream.upload(&[1.0_f32, 2.0, 3.0, 4.0])?;
/// let shape = Shape::new(1, 2, [1, 1, 2])?;
/// let view = DeviceView::new(data.slice(), shape, Layout::ChannelsLast)?;
/// # Ok::<(), medcam::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct DeviceView<'a, T: Element> {
    slice: Slice<'a, T>,
    shape: Shape,
    layout: Layout,
}

impl<'a, T: Element> DeviceView<'a, T> {
    /// A view of `slice` as a tensor of `shape` that lies in memory as `layout` says.
    ///
    /// # Errors
    ///
    /// If an extent of `shape` is 0, or `slice` is not as long as `shape` says.
    pub fn new(slice: Slice<'a, T>, shape: Shape, layout: Layout) -> Result<Self> {
        // The fields of a shape are public, so it need not have come from `Shape::new`.
        let shape = Shape::new(shape.batch, shape.channels, shape.spatial)
            .map_err(|error| error.within("device view"))?;
        if slice.len() != shape.elements() {
            let (expected, given) = (shape.elements(), slice.len());
            return Err(Error::input(
                "device view",
                format!("slice: shape {shape} takes {expected} values, it has {given}"),
            ));
        }
        Ok(Self { slice, shape, layout })
    }

    /// The shape `(B, C, D, H, W)`.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// How the values lie in memory.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// All values, in the order of the [`layout`](Self::layout).
    pub fn slice(&self) -> Slice<'a, T> {
        self.slice
    }
}

impl<T: Element> fmt::Debug for DeviceView<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let device = self.slice.ordinal();
        write!(f, "DeviceView<{}> {} {:?} on device {device}", T::NAME, self.shape, self.layout)
    }
}
