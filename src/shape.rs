//! Shapes and memory layouts of five-dimensional tensors.

use std::fmt;

use crate::error::{Error, Result};

/// The shape `(B, C, D, H, W)` of a batch of activations; 2D data has `D = 1`.
///
/// # Example
///
/// ```
/// use medcam::Shape;
///
/// let shape = Shape::new(2, 16, [1, 7, 7]).unwrap();
/// assert_eq!((shape.batch, shape.channels, shape.voxels()), (2, 16, 49));
/// assert_eq!(shape.to_string(), "(2, 16, 1, 7, 7)");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    /// `B`, the number of samples.
    pub batch: usize,
    /// `C`, the number of channels.
    pub channels: usize,
    /// `D, H, W`, the spatial extents in voxels.
    pub spatial: [usize; 3],
}

impl Shape {
    /// The longest axis, `2³¹ - 1`: what the indices of a kernel's grid and of other libraries hold.
    pub const LONGEST_AXIS: usize = i32::MAX as usize;

    /// A shape of at least one element.
    ///
    /// # Errors
    ///
    /// If an extent is 0 or above [`LONGEST_AXIS`](Self::LONGEST_AXIS), or the number of elements
    /// does not fit into `isize`.
    pub fn new(batch: usize, channels: usize, spatial: [usize; 3]) -> Result<Self> {
        let shape = Self { batch, channels, spatial };
        let extents = [batch, channels, spatial[0], spatial[1], spatial[2]];
        if let Some((axis, extent)) =
            "BCDHW".chars().zip(extents).find(|&(_, extent)| extent > Self::LONGEST_AXIS)
        {
            return Err(Error::input(
                "shape",
                format!(
                    "{axis} is {extent} in {shape}, the limit is {}; part the tensor along it",
                    Self::LONGEST_AXIS
                ),
            ));
        }
        let elements = extents
            .into_iter()
            .try_fold(1_usize, usize::checked_mul)
            .filter(|&n| isize::try_from(n).is_ok());
        match elements {
            Some(n) if n > 0 => Ok(shape),
            Some(_) => Err(Error::input(
                "shape",
                format!("{shape} has an extent of 0; each takes at least 1"),
            )),
            None => Err(Error::input(
                "shape",
                format!("{shape} has too many elements to count; part the tensor"),
            )),
        }
    }

    /// `N = D·H·W`, the voxels of one channel of one sample; of a shape that [`new`](Self::new)
    /// would refuse, `usize::MAX` where that is exceeded.
    pub fn voxels(&self) -> usize {
        self.spatial.iter().copied().fold(1, usize::saturating_mul)
    }

    /// `B·C·N`, all elements; `usize::MAX` as for [`voxels`](Self::voxels).
    pub fn elements(&self) -> usize {
        self.batch.saturating_mul(self.channels).saturating_mul(self.voxels())
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [d, h, w] = self.spatial;
        write!(f, "({}, {}, {d}, {h}, {w})", self.batch, self.channels)
    }
}

/// How the elements of a [`Shape`] lie in memory, without gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layout {
    /// NCDHW: channel by channel; what libtorch calls contiguous.
    Contiguous,
    /// NDHWC: the channels of one voxel lie next to each other.
    ChannelsLast,
}

impl Layout {
    /// The layout of a tensor `(B, C, ...)` with these strides, in elements; `None` if it has gaps, or its axes lie in
    /// another order. The stride of an axis of extent 1 is never used, and may be any.
    ///
    /// # Example
    ///
    /// ```
    /// use medcam::Layout;
    ///
    /// assert_eq!(Layout::of(&[1, 3, 4, 5], &[0, 20, 5, 1]), Some(Layout::Contiguous));
    /// assert_eq!(Layout::of(&[2, 3, 4, 5], &[60, 1, 15, 3]), Some(Layout::ChannelsLast));
    /// assert_eq!(Layout::of(&[1, 3, 4, 5], &[0, 40, 10, 2]), None);
    /// ```
    pub fn of(extents: &[usize], strides: &[i64]) -> Option<Self> {
        let matches = |order: &mut dyn Iterator<Item = usize>| {
            let mut expected = Some(1_usize);
            for axis in order {
                let extent = extents[axis];
                let given = usize::try_from(strides[axis]).ok();
                if extent != 1 && (given.is_none() || given != expected) {
                    return false;
                }
                expected = expected.and_then(|expected| expected.checked_mul(extent));
            }
            true
        };
        let rank = extents.len();
        if strides.len() != rank || rank < 2 {
            None
        } else if matches(&mut (0..rank).rev()) {
            Some(Self::Contiguous)
        } else if matches(&mut std::iter::once(1).chain((2..rank).rev()).chain([0])) {
            Some(Self::ChannelsLast)
        } else {
            None
        }
    }
}
