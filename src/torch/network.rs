//! Networks that can be injected: TorchScript models, and networks written in Rust.

use std::collections::{BTreeMap, HashMap, HashSet};

use tch::Tensor;

use super::guide::is_like_relu;
use super::tape::Tape;
use crate::error::Result;

/// A network whose layers can be tapped.
///
/// [`Model`](crate::Model) implements it for TorchScript. A network written with `tch::nn`
/// implements it by passing each named activation through the tape:
///
/// ```
/// use medcam::{Network, Options, Result, Tape, Target};
/// use tch::nn::{self, Module};
/// use tch::{Device, Kind, Tensor};
///
/// struct Net {
///     features: nn::Conv3D,
///     head: nn::Linear,
/// }
///
/// impl Network for Net {
///     fn forward_tapped(&self, input: &Tensor, tape: &mut Tape) -> Result<Tensor> {
///         let x = tape.tap("features", &self.features.forward(input).relu())?;
///         let pooled = x.mean_dim([2_i64, 3, 4].as_slice(), false, Kind::Float);
///         Ok(self.head.forward(&pooled))
///     }
/// }
///
/// let store = nn::VarStore::new(Device::Cpu);
/// let config = nn::ConvConfig { padding: 1, ..Default::default() };
/// let net = Net {
///     features: nn::conv3d(&store.root() / "features", 1, 4, 3, config),
///     head: nn::linear(&store.root() / "head", 4, 2, Default::default()),
/// };
/// let mut net = medcam::inject(net, Options::default().target(Target::Class(1)))?;
/// let scores = net.forward(&Tensor::rand([2, 1, 8, 9, 10], (Kind::Float, Device::Cpu)))?;
/// assert_eq!(scores.size(), [2, 2]);
/// assert_eq!(net.attention_maps()[0].layer(), "features");
/// assert_eq!(net.attention_maps()[0].to_array()?.shape(), [2, 1, 8, 9, 10]);
/// # Ok::<(), medcam::Error>(())
/// ```
///
/// `Send` lets another thread run the network; layers of `tch::nn` are `Send`.
pub trait Network: Send {
    /// Runs the network on a batch `(B, C, [D,] H, W)`, passing the output of each layer that may
    /// be selected through [`Tape::tap`].
    ///
    /// Autograd is off, except for methods that guide activations; the tape turns it on where it is
    /// needed.
    ///
    /// # Errors
    ///
    /// If the network cannot run on the input.
    fn forward_tapped(&self, input: &Tensor, tape: &mut Tape) -> Result<Tensor>;

    /// The shapes of a forward on an input like this one, without computing it: taps each layer as
    /// [`forward_tapped`](Self::forward_tapped) does, with tensors that have a shape and a type, but
    /// no values (libtorch's meta device), and returns the output as such a tensor.
    ///
    /// `None`, the default, if shapes cannot be found so: a step needs values, or the network is
    /// written in Rust. Then a forward of one sample may be needed before the first map.
    fn forward_shapes(&self, _input: &Tensor, _tape: &mut Tape) -> Option<Tensor> {
        None
    }

    /// Makes layers of the network's operations too (convolutions, norms, activations, pools, sums),
    /// where no module does so already, or undoes that, and returns whether it could. By default it
    /// cannot.
    ///
    /// # Errors
    ///
    /// If the network cannot be rewritten.
    fn tap_operations(&mut self, _on: bool) -> Result<bool> {
        Ok(false)
    }

    /// What is known of the network without running it; nothing by default.
    fn facts(&self) -> Facts {
        Facts::default()
    }
}

/// What is known of a network without running it.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Facts {
    /// Channels that the input must have.
    pub input_channels: Option<usize>,
    /// Rank that the input must have, with its batch and channel axes: 4 (2D) or 5 (3D).
    pub input_rank: Option<usize>,
    /// The floating point type that the input must have: that of the first weights that use it, or
    /// else of the first parameter.
    pub input_kind: Option<tch::Kind>,
    /// The activation (`"softmax"`, `"sigmoid"`...) that ends the network, if one does.
    pub final_activation: Option<String>,
    /// Number of tensors that the network returns; `None` if that is unknown before it runs.
    pub outputs: Option<usize>,
    /// Steps that act as in training, whatever the mode of the network.
    pub training_steps: Vec<TrainingSteps>,
    /// All modules by name in the order in which they were registered, whether they run or not.
    pub registered: Vec<String>,
    /// The class of each layer, such as `Conv3d`, by name.
    pub layer_types: HashMap<String, String>,
    /// Layers that the score cannot depend on.
    pub unreached: HashSet<String>,
    /// Layers of [`unreached`](Facts::unreached) that lie between the score before a final
    /// activation and the output.
    pub after_score: HashSet<String>,
    /// Layers that only pointwise steps separate from the score: a map there redraws the output.
    pub redrawing: HashSet<String>,
    /// Layers behind which an instance norm makes the mean gradient of every channel zero: the
    /// weights of Grad-CAM are rounding noise there.
    pub cancelling: HashSet<String>,
    /// Layers whose output is `(B, [D,] H, W, C)`, as in transformers.
    pub channels_last: HashSet<String>,
    /// Layers whose output is a product of matrices, such as attention weights: no axis of it is
    /// one of the image.
    pub products: HashSet<String>,
    /// Layers that only pad, crop or resize what came before, but for pointwise steps: they show no
    /// more of the image than it did.
    pub regridding: HashSet<String>,
    /// Layers that are the input cut into patches, each by the same convolution, as in front of a
    /// transformer.
    pub patch_embeddings: HashSet<String>,
    /// For runs of layers, as `NAME#k`, that come from others alone: the runs next behind them; none
    /// for what comes from a global pool. A run that the input reaches by another way too, or of
    /// which this is not known, is not here.
    pub sources: HashMap<String, Vec<String>>,
    /// Modules that run and return no single tensor, and what they return, such as `List[Tensor]`.
    pub untapped: HashMap<String, String>,
    /// A device other than the CPU that the network names itself, such as `cuda:0`.
    pub named_device: Option<String>,
    /// Whether its operations are layers too, see [`Network::tap_operations`].
    pub operations: bool,
    /// Whether a convolution leads to another with no module's output in between: some of the network
    /// is written in functions, or one module has several steps.
    pub bare_convolutions: bool,
    /// An operator of quantised tensors, which have no gradient, such as `quantized::conv2d`.
    pub quantized: Option<String>,
    /// The activations that [`Guide::All`](crate::Guide::All) would guide, such as `leaky_relu`,
    /// and how many of each there are.
    pub activations: BTreeMap<String, usize>,
}

/// An operator of a network that acts as in training, though the network is in evaluation mode:
/// traced without `.eval()`, or called so (`F.dropout(x)`).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TrainingSteps {
    /// Its name, such as `dropout` or `batch_norm`.
    pub name: String,
    /// How many of it the network has.
    pub count: usize,
    /// Whether it draws random numbers; else it normalises with the statistics of its batch.
    pub is_random: bool,
}

impl Facts {
    /// The activations that [`Guide::Relu`](crate::Guide::Relu) does not guide, with the number of
    /// each.
    pub(crate) fn activations_beyond_relu(&self) -> impl Iterator<Item = (&str, usize)> {
        let all = self.activations.iter().map(|(name, &count)| (name.as_str(), count));
        all.filter(|(name, _)| !is_like_relu(name))
    }

    /// The facts for a score that is taken at the output, behind a final activation.
    pub(crate) fn scored_at_output(mut self) -> Self {
        self.unreached.retain(|layer| !self.after_score.contains(layer));
        self.redrawing.extend(self.after_score.drain());
        self
    }
}
