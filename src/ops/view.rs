//! The borrowed tensor that all ops read.

use std::fmt;

use ndarray::{ArrayView, Dimension};

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

    /// A view of an array of axes `(B, C, H, W)` or `(B, C, D, H, W)`, without a copy.
    ///
    /// The layout is found from the strides: [`Layout::Contiguous`] or, where the channels lie
    /// side by side in memory, [`Layout::ChannelsLast`].
    ///
    /// # Errors
    ///
    /// If the array has another number of axes, an extent of 0 or one above
    /// [`Shape::LONGEST_AXIS`], or lies in memory in neither layout: with a negative stride, with
    /// gaps, or its axes in another order.
    ///
    /// # Example
    ///
    /// ```
    /// use medcam::Layout;
    /// use medcam::ops::View;
    ///
    /// let volume = ndarray::Array5::<f32>::zeros((1, 8, 4, 5, 6));
    /// assert_eq!(View::from_array(volume.view())?.layout(), Layout::Contiguous);
    ///
    /// let image = ndarray::Array4::<f32>::zeros((1, 5, 6, 8)).permuted_axes([0, 3, 1, 2]);
    /// let view = View::from_array(image.view())?;
    /// assert_eq!((view.shape().channels, view.layout()), (8, Layout::ChannelsLast));
    /// # Ok::<(), medcam::Error>(())
    /// ```
    pub fn from_array<D: Dimension>(array: ArrayView<'a, T, D>) -> Result<Self> {
        let refuse = |what: String| Err(Error::input("view", format!("array: {what}")));
        let extents = array.shape().to_vec();
        let (batch, channels, spatial) = match extents[..] {
            [b, c, h, w] => (b, c, [1, h, w]),
            [b, c, d, h, w] => (b, c, [d, h, w]),
            _ => {
                let (axes, shape) = (extents.len(), tuple(&extents));
                return refuse(format!(
                    "{axes} axes {shape}, it takes (B, C, H, W) or (B, C, D, H, W); \
                     `.insert_axis(Axis(0))` gives a batch or channel axis of 1"
                ));
            }
        };
        let shape =
            Shape::new(batch, channels, spatial).map_err(|error| error.within("view: array"))?;
        if let Some(data) = array.to_slice() {
            return Ok(Self { data, shape, layout: Layout::Contiguous });
        }
        let strides = array.strides().to_vec();
        // The axes as they lie in memory where the channels of a voxel are side by side.
        let mut channels_last = array.into_dyn();
        for axis in 1..extents.len() - 1 {
            channels_last.swap_axes(axis, axis + 1);
        }
        if let Some(data) = channels_last.to_slice() {
            return Ok(Self { data, shape, layout: Layout::ChannelsLast });
        }
        let negative = (0..extents.len()).find(|&axis| extents[axis] > 1 && strides[axis] < 0);
        let what = match negative {
            Some(axis) => format!("axis {axis} runs backwards (a stride of {})", strides[axis]),
            None => "it lies in memory neither as (B, C, [D,] H, W) nor as (B, [D,] H, W, C) \
                     without gaps"
                .to_owned(),
        };
        let (shape, strides) = (tuple(&extents), tuple(&strides));
        refuse(format!(
            "{what}: shape {shape}, strides {strides}; copy it into order with \
             `.as_standard_layout()`"
        ))
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
    /// If `sample`, `channel` or `voxel` is not below its extent.
    pub fn value(&self, sample: usize, channel: usize, voxel: usize) -> f64 {
        let Shape { batch, channels, .. } = self.shape;
        let voxels = self.shape.voxels();
        assert!(
            sample < batch && channel < channels && voxel < voxels,
            "view: no value at sample {sample}, channel {channel}, voxel {voxel} of {}",
            self.shape
        );
        let index = match self.layout {
            Layout::Contiguous => (sample * channels + channel) * voxels + voxel,
            Layout::ChannelsLast => (sample * voxels + voxel) * channels + channel,
        };
        f64::from(self.data[index].to_f32())
    }
}

/// Numbers as a shape is written: `(1, 2, 3)`.
fn tuple<N: ToString>(numbers: &[N]) -> String {
    format!("({})", numbers.iter().map(N::to_string).collect::<Vec<_>>().join(", "))
}

impl<T: Element> fmt::Debug for View<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "View<{}> {} {:?}", T::NAME, self.shape, self.layout)
    }
}
