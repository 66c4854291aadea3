//! Sums over the voxels of each channel on the CPU.

use std::ops::AddAssign;

use crate::element::Element;
use crate::ops::lanes::{self, LANES};
use crate::ops::{View, tasks};
use crate::shape::{Layout, Shape};

/// Terms that a lane adds up in f32 before its sum goes to f64: the bound on the rounding error.
const STEPS: usize = 64;
/// Values that one task sums. Fixed, so that the result does not depend on the number of threads.
const SEGMENT: usize = 1 << 16;

/// An operand of a term.
#[derive(Clone, Copy)]
pub enum Factor<'a, T: Element> {
    /// `(B, C, D, H, W)`
    Tensor(View<'a, T>),
    /// `(B, C)`: one value for all voxels of a channel.
    PerChannel(&'a [f32]),
}

/// A buffer for each factor, which holds its values as f32.
type Buffers<const N: usize> = [Vec<f32>; N];

/// `sum_n term(factors at (b, c, n))`, `(B, C)`. Blocks of `STEPS·LANES` terms are summed in the type
/// of the terms, and the sums of the blocks in f64.
///
/// All tensors among the factors have this `shape` and `layout`.
pub fn channel_sums<const N: usize, T: Element, S>(
    shape: Shape,
    layout: Layout,
    factors: [Factor<T>; N],
    term: impl Fn([f32; N]) -> S + Sync,
) -> Vec<f64>
where
    S: Copy + Default + AddAssign + Into<f64> + Send,
{
    let Shape { batch, channels, .. } = shape;
    let sums = match layout {
        Layout::Contiguous => {
            let rows = (SEGMENT / 4).div_ceil(shape.voxels());
            let all = batch * channels;
            tasks::map(shape.elements(), (0..all).step_by(rows), |first| {
                let mut buffers = [const { Vec::new() }; N];
                (first..all.min(first + rows))
                    .map(|row| sum_row(shape, &factors, row, &term, &mut buffers))
                    .collect::<Vec<_>>()
            })
        }
        Layout::ChannelsLast => {
            tasks::map(shape.elements(), 0..batch, |b| sum_columns(shape, &factors, b, &term))
        }
    };
    sums.into_iter().flatten().collect()
}

/// The sum of row `row = b·C + c` of contiguous tensors.
fn sum_row<const N: usize, T: Element, S>(
    shape: Shape,
    factors: &[Factor<T>; N],
    row: usize,
    term: &(impl Fn([f32; N]) -> S + Sync),
    buffers: &mut Buffers<N>,
) -> f64
where
    S: Copy + Default + AddAssign + Into<f64>,
{
    let voxels = shape.voxels();
    let sum_segment = |first: usize, buffers: &mut Buffers<N>| -> f64 {
        let end = voxels.min(first + SEGMENT);
        let blocks = (first..end).step_by(STEPS * LANES).map(|first| {
            let length = (STEPS * LANES).min(end - first);
            let mut values = [&[][..]; N];
            for ((values, factor), buffer) in values.iter_mut().zip(factors).zip(&mut *buffers) {
                *values = factor.of_row(shape, row, first, length, buffer);
            }
            lanes::sum(values, term).into()
        });
        blocks.sum()
    };
    if voxels <= SEGMENT {
        return sum_segment(0, buffers);
    }
    let segments = (0..voxels).step_by(SEGMENT);
    let sums =
        tasks::map(voxels, segments, |first| sum_segment(first, &mut [const { Vec::new() }; N]));
    sums.into_iter().sum()
}

/// The sums of all channels of one sample of channels-last tensors.
fn sum_columns<const N: usize, T: Element, S>(
    shape: Shape,
    factors: &[Factor<T>; N],
    b: usize,
    term: &(impl Fn([f32; N]) -> S + Sync),
) -> Vec<f64>
where
    S: Copy + Default + AddAssign + Into<f64>,
{
    let Shape { channels, .. } = shape;
    let voxels = shape.voxels();
    // With few channels, several voxels side by side fill a vector.
    let period = (16 * LANES).div_ceil(channels);
    let segment = period * SEGMENT.div_ceil(period * channels).max(4 * STEPS);
    let segments = tasks::map(voxels * channels, (0..voxels).step_by(segment), |first| {
        let mut buffers = [const { Vec::new() }; N];
        let mut partial = vec![S::default(); period * channels];
        let mut sums = vec![0.0; channels];
        let end = voxels.min(first + segment);
        for block in (first..end).step_by(period * STEPS) {
            partial.fill(S::default());
            let end = end.min(block + period * STEPS);
            let step = period * lanes::WIDENED_AT_ONCE.div_ceil(period * channels);
            for first in (block..end).step_by(step) {
                let mut values = [&[][..]; N];
                for ((values, factor), buffer) in values.iter_mut().zip(factors).zip(&mut buffers) {
                    *values = factor.of_voxels(shape, b, first, step.min(end - first), buffer);
                }
                lanes::add_rows(&mut partial, values, term);
            }
            for voxel in partial.chunks(channels) {
                for (sum, &value) in sums.iter_mut().zip(voxel) {
                    *sum += value.into();
                }
            }
        }
        sums
    });
    let mut sums = vec![0.0; channels];
    for segment in segments {
        for (sum, value) in sums.iter_mut().zip(segment) {
            *sum += value;
        }
    }
    sums
}

impl<T: Element> Factor<'_, T> {
    /// The values of voxels `first..first + length` of row `row = b·C + c`.
    fn of_row<'b>(
        &'b self,
        shape: Shape,
        row: usize,
        first: usize,
        length: usize,
        buffer: &'b mut Vec<f32>,
    ) -> &'b [f32] {
        let voxels = shape.voxels();
        match self {
            Self::Tensor(view) => T::widen(&view.data()[row * voxels + first..][..length], buffer),
            Self::PerChannel(values) => {
                let value = values[row];
                // All blocks of a row need the same buffer: fill it once.
                if buffer.len() < length || buffer[0].to_bits() != value.to_bits() {
                    buffer.clear();
                    buffer.resize(length, value);
                }
                &buffer[..length]
            }
        }
    }

    /// The values of all channels at voxels `first..first + length` of sample `b`.
    ///
    /// The buffer must have been used for this factor and this sample alone: a `PerChannel` factor
    /// leaves its repeated values in it.
    fn of_voxels<'b>(
        &'b self,
        shape: Shape,
        b: usize,
        first: usize,
        length: usize,
        buffer: &'b mut Vec<f32>,
    ) -> &'b [f32] {
        let Shape { channels, .. } = shape;
        let start = b * shape.voxels() + first;
        match self {
            Self::Tensor(view) => {
                T::widen(&view.data()[start * channels..][..length * channels], buffer)
            }
            Self::PerChannel(values) => {
                let values = &values[b * channels..][..channels];
                while buffer.len() < length * channels {
                    buffer.extend_from_slice(values);
                }
                &buffer[..length * channels]
            }
        }
    }
}
