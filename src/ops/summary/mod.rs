//! What a chain tells of the maps that it made, found where they are.

mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;

pub use cpu::reference;

/// What a chain tells of one sample's map: `struct SampleSummary` of `kernels/summary.cu`.
///
/// Counts stop at 2³²; flags are 0 or 1.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[repr(C)]
pub struct SampleSummary {
    /// The least finite value of the finished map before normalisation; `+inf` where there is none.
    pub minimum: f32,
    /// The greatest finite value; `-inf` where there is none.
    pub maximum: f32,
    /// How many channel weights are not finite.
    pub weights_not_finite: u32,
    /// How many sums of the map on the layer's grid were not finite, before any ReLU.
    pub layer_not_finite: u32,
    /// How many voxels of the finished map are not finite, of those that were looked at.
    pub map_not_finite: u32,
    /// Whether the weights are rounding noise: see [`channel_weights::cancel`](super::channel_weights::cancel).
    pub weights_cancel: u32,
    /// Whether the map is 0 everywhere and so is the gradient.
    pub zero_gradient: u32,
    /// Always 0. Pads the struct to 32 bytes.
    pub unused: u32,
}

impl SampleSummary {
    /// 32-bit words of a summary.
    pub const WORDS: usize = size_of::<Self>() / size_of::<i32>();

    /// From the words that a device wrote. Words that are missing are 0.
    pub fn of_words(words: &[i32]) -> Self {
        let word = |i: usize| words.get(i).map_or(0, |word| word.cast_unsigned());
        Self {
            minimum: f32::from_bits(word(0)),
            maximum: f32::from_bits(word(1)),
            weights_not_finite: word(2),
            layer_not_finite: word(3),
            map_not_finite: word(4),
            weights_cancel: word(5),
            zero_gradient: word(6),
            unused: word(7),
        }
    }

    /// As the words that a device writes.
    pub fn words(&self) -> [i32; Self::WORDS] {
        [
            self.minimum.to_bits(),
            self.maximum.to_bits(),
            self.weights_not_finite,
            self.layer_not_finite,
            self.map_not_finite,
            self.weights_cancel,
            self.zero_gradient,
            self.unused,
        ]
        .map(u32::cast_signed)
    }
}

/// The extremes of one sample's map: its range, and how many of its values are not finite.
pub type MapExtremes = (super::Range, u32);
