//! The borrowed tensor that all ops read.

use std::fmt;

use crate::element::Element;
use crate::error::{Error, Result};
use crate::shape::{Layout, Shape};

/// A borrowed tensor `(B, C, D, H, W)`: a slice, its shape and its memory layout.
///
/// # Example
///
/// ```
/// use medcam::ops::View;
/// use medcam::{Layout, Shape};
///
/// let data = [1.0_f32, 2.0, 3.0, 4.0];
/// let shape = Shape::new(1, 2, [1, 1, 2])?;
/// // Channel 1 at voxel 0 is the third value channel by channel, the second voxel by voxel.
/// assert_eq!(View::new(&data, shape, Layout::Contiguous)?.value(0, 1, 0), 3.0);
/// assert_eq!(View::new(&data, shape, Layout::ChannelsLast)?.value(0, 1, 0), 2.0);
/// # Ok::<(), medcam::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct View<'a, T: Element> {
    data: &'a [T],
    shape: Shape,
    layout: Layout,
}

impl<'a, T: Element> View<'a, T> {
    /// A view of `data` as a tensor of `shape` that lies in memory as `layout` says.
    ///
    /// # Errors
    ///
    /// If an extent of `shape` is 0, or `data` is not as long as `shape` says.
    pub fn new(data: &'a [T], shape: Shape, layout: Layout) -> Result<Self> {
        // The fields of a shape are public, so it need not have come from `Shape::new`.
        let shape = Shape::new(shape.batch, shape.channels, shape.spatial)
            .map_err(|error| error.within("view"))?;
        if data.len() != shape.elements() {
            let (expected, given) = (shape.elements(), data.len());
            return Err(Error::input(
                "view",
                format!("data: shape {shape} takes {expected} values, the slice has {given}"),
            ));
        }
        Ok(Self { data, shape, layout })
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
    pub fn data(&self) -> &'a [T] {
        self.data
    }

    /// The value of channel `channel` of sample `sample` at voxel `voxel = (d·H + h)·W + w`.
    ///
    /// # Panics
    ///
    /// If the voxel lies behind the end of the data.
    pub fn value(&self, sample: usize, channel: usize, voxel: usize) -> f64 {
        let (channels, voxels) = (self.shape.channels, self.shape.voxels());
        let index = match self.layout {
            Layout::Contiguous => (sample * channels + channel) * voxels + voxel,
            Layout::ChannelsLast => (sample * voxels + voxel) * channels + channel,
        };
        f64::from(self.data[index].to_f32())
    }
}

impl<T: Element> fmt::Debug for View<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "View<{}> {} {:?}", T::NAME, self.shape, self.layout)
    }
}
