//! `inject()`: one network with its method, options and outputs.

mod map;
mod options;

use std::time::{Duration, Instant};

use tch::{Kind, Tensor};

pub use map::{AttentionMap, Warning};
pub use options::{MapSize, Options};

use crate::error::{Error, Result};
use crate::methods::{Score, ScoreAt, Target};
use crate::ops::Recipe;
use crate::torch::{
    Facts, LayerChoice, Layers, MapMaker, Network, Selected, Tape, Task, check_input, torch,
};
use crate::volumes::{self, MapType};

/// Injects attention maps into a network: each [`Injected::forward`] gives the network's own
/// output, bit for bit, and makes the maps on the way.
///
/// Nothing is run here. The first forward runs one sample of its batch once more, without autograd,
/// to find out which layers there are.
///
/// # Errors
///
/// If the folder of [`Options::save_maps`] cannot be made.
///
/// # Example
///
/// ```no_run
/// use medcam::{Device, Options, Target};
///
/// let model = medcam::load("bbox_model.pt", Device::Cpu)?;
/// let mut model = medcam::inject(model, Options::default().target(Target::Class(1)))?;
/// let batch = tch::Tensor::rand([1, 1, 128, 128, 128], (tch::Kind::Float, tch::Device::Cpu));
/// let probabilities = model.forward(&batch)?;
/// for map in model.attention_maps() {
///     println!("{}: {:?}", map.layer(), map.to_array().shape());
/// }
/// # Ok::<(), medcam::Error>(())
/// ```
pub fn inject<N: Network>(network: N, options: Options) -> Result<Injected<N>> {
    if let Some(folder) = &options.save_maps {
        volumes::make_folder(folder)?;
    }
    let facts = network.facts();
    Ok(Injected {
        network,
        options,
        facts,
        layers: None,
        selected: Vec::new(),
        maker: MapMaker::default(),
        maps: Vec::new(),
        warnings: Vec::new(),
        forwards: 0,
        timings: Timings::default(),
    })
}

/// A network that makes attention maps as it runs; see [`inject()`].
#[derive(Debug)]
pub struct Injected<N: Network> {
    network: N,
    options: Options,
    facts: Facts,
    layers: Option<Layers>,
    selected: Vec<Selected>,
    maker: MapMaker,
    maps: Vec<AttentionMap>,
    warnings: Vec<Warning>,
    forwards: usize,
    timings: Timings,
}

/// Where the time of the last forward went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timings {
    /// Finding out the layers; zero after the first forward.
    pub discovery: Duration,
    /// The network's own forward.
    pub inference: Duration,
    /// All that the maps took on top: backward, and from the gradients to the finished maps.
    pub maps: Duration,
}

impl<N: Network> Injected<N> {
    /// Runs the network on a batch `(B, C, [D,] H, W)` and makes its attention maps.
    ///
    /// Returns the network's own output, bit for bit what it gives without injection.
    ///
    /// # Errors
    ///
    /// If the input does not fit the network or is not finite, a layer is unknown or no gradient
    /// reaches it, a class is out of range, the maps are not finite, or they cannot be saved. The
    /// maps of the forward before are gone then.
    pub fn forward(&mut self, input: &Tensor) -> Result<Tensor> {
        self.maps.clear();
        self.warnings.clear();
        let start = Instant::now();
        self.check(input)?;
        self.discover(input)?;
        let discovered = Instant::now();

        let mut tape = Tape::new()?;
        for layer in &self.selected {
            tape.want(&layer.name, layer.run)?;
        }
        let output = {
            let _no_grad = tch::no_grad_guard();
            self.network.forward_tapped(input, &mut tape)?
        };
        let ran = Instant::now();
        let activations = self
            .selected
            .iter()
            .enumerate()
            .map(|(wish, layer)| {
                tape.activation(wish).ok_or_else(|| {
                    Error::layer(format!(
                        "layer '{}': run {} did not happen for this input",
                        layer.label, layer.run
                    ))
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let logits = tape.noted_logits().unwrap_or_else(|| output.shallow_clone());
        drop(tape);
        let score = self.score(input, &output, &logits)?;
        let gradients = self.backward(&score, &activations)?;
        self.make_maps(input, &activations, &gradients, &score.classes)?;
        self.timings = Timings {
            discovery: discovered - start,
            inference: ran - discovered,
            maps: ran.elapsed(),
        };
        self.save()?;
        self.forwards += 1;
        Ok(output.detach())
    }

    /// The maps of the last forward, one entry per layer, in the order of the choice.
    pub fn attention_maps(&self) -> &[AttentionMap] {
        &self.maps
    }

    /// What to know about the maps of the last forward.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// The layers of the network, found out with one forward of the first sample of `input` if
    /// that has not happened yet.
    ///
    /// # Errors
    ///
    /// If the input does not fit the network, or its output is no classification or segmentation.
    pub fn layers(&mut self, input: &Tensor) -> Result<&Layers> {
        self.check(input)?;
        match self.layers {
            Some(ref layers) => Ok(layers),
            None => Ok(self.layers.insert(find_layers(&self.network, &self.facts, input)?)),
        }
    }

    /// The layers of the network, if a forward has shown them.
    pub fn known_layers(&self) -> Option<&Layers> {
        self.layers.as_ref()
    }

    /// Changes what the maps of the forwards to come explain.
    pub fn set_target(&mut self, target: Target) {
        self.options.target = target;
    }

    /// Changes the size of the maps of the forwards to come.
    pub fn set_size(&mut self, size: MapSize) {
        self.options.size = size;
    }

    /// Where the time of the last forward went; on a GPU, where work is queued, only the sum counts.
    pub fn timings(&self) -> Timings {
        self.timings
    }

    /// The network itself.
    pub fn network(&self) -> &N {
        &self.network
    }

    fn check(&self, input: &Tensor) -> Result<()> {
        check_input(&self.facts, input)?;
        finite("input", input)
    }

    /// Finds out, once, which layers there are and which of them are wanted.
    fn discover(&mut self, input: &Tensor) -> Result<()> {
        if !self.selected.is_empty() {
            return Ok(());
        }
        let layers = match self.layers.take() {
            Some(layers) => layers,
            None => find_layers(&self.network, &self.facts, input)?,
        };
        let selected = layers.select(&self.options.layers);
        self.layers = Some(layers);
        self.selected = selected?;
        Ok(())
    }

    /// What the maps explain, with a warning for each sample in which there is nothing of it.
    fn score(&mut self, input: &Tensor, output: &Tensor, logits: &Tensor) -> Result<Score> {
        finite("the model's output", output)?;
        let score_at = match self.options.score {
            ScoreAt::Logits => logits,
            ScoreAt::Output => output,
        };
        let task = Task::of(&input.size(), &output.size())?;
        let score = tch::with_grad(|| Score::of(&self.options.target, task, score_at, logits))?;
        for &sample in &score.empty {
            let what = match self.options.target {
                Target::Predicted(class) => format!("nothing is predicted as class {class}"),
                _ => "the target mask has no voxel".to_owned(),
            };
            self.warnings.push(Warning {
                code: "EMPTY_TARGET",
                layer: String::new(),
                sample: Some(sample),
                message: format!("sample {sample}: {what}, so the map is zero"),
            });
        }
        Ok(score)
    }

    /// The gradient of the score with respect to each activation; `None` only where all layers are
    /// wanted and the score does not depend on one.
    fn backward(&mut self, score: &Score, activations: &[Tensor]) -> Result<Vec<Option<Tensor>>> {
        let unreached = |layer: &Selected| {
            Error::layer(format!(
                "layer '{}': no gradient of the score reaches it; the score does not depend on it",
                layer.label
            ))
        };
        if !score.sum.requires_grad() {
            return Err(self.selected.first().map_or_else(|| Error::layer("no layer"), unreached));
        }
        let gradients =
            torch("backward", || Tensor::f_run_backward(&[&score.sum], activations, false, false))?;
        gradients
            .into_iter()
            .zip(&self.selected)
            .map(|(gradient, layer)| match self.options.layers {
                _ if gradient.defined() => Ok(Some(gradient)),
                LayerChoice::Full => {
                    let message = unreached(layer).to_string();
                    let layer = layer.label.clone();
                    self.warnings.push(Warning {
                        code: "NO_GRADIENT",
                        layer,
                        sample: None,
                        message: format!("{message}. It has no map"),
                    });
                    Ok(None)
                }
                _ => Err(unreached(layer)),
            })
            .collect()
    }

    fn make_maps(
        &mut self,
        input: &Tensor,
        activations: &[Tensor],
        gradients: &[Option<Tensor>],
        classes: &[Option<usize>],
    ) -> Result<()> {
        let spatial_rank = input.dim() - 2;
        let size = match self.options.size {
            MapSize::Layer => None,
            MapSize::Exact(size) => Some(size),
            MapSize::Input => Some(spatial(input)),
        };
        if let (2, Some([depth, ..])) = (spatial_rank, size)
            && depth != 1
        {
            return Err(Error::input(
                "size",
                format!("a depth of {depth} for a 2D network; give 1, H and W"),
            ));
        }
        let recipe = Recipe { to: size, ..Recipe::new(self.options.backend.method()) };
        for ((layer, activation), gradient) in self.selected.iter().zip(activations).zip(gradients)
        {
            let Some(gradient) = gradient else { continue };
            let map = self
                .maker
                .maps(&recipe, activation, gradient)
                .and_then(|maps| AttentionMap::new(&layer.label, maps, classes, spatial_rank))
                .map_err(|error| error.within(format!("layer '{}'", layer.label)))?;
            self.warnings.extend(map::judge(&map));
            let redraws =
                |layers: &Layers| layers.get(&layer.name).is_some_and(|l| l.redraws_output);
            if self.layers.as_ref().is_some_and(redraws) {
                self.warnings.push(Warning {
                    code: "REDRAWS_OUTPUT",
                    layer: layer.label.clone(),
                    sample: None,
                    message: format!(
                        "layer '{}': only pointwise steps come between it and the score, so the \
                         gradient is the same at every voxel and the map only redraws the output. \
                         Layer auto avoids such layers",
                        layer.label
                    ),
                });
            }
            self.maps.push(map);
        }
        Ok(())
    }

    fn save(&self) -> Result<()> {
        let Some(folder) = &self.options.save_maps else { return Ok(()) };
        for map in &self.maps {
            let folder = folder.join(&map.layer);
            volumes::make_folder(&folder)?;
            let path = folder.join(format!("{:06}.npy", self.forwards));
            volumes::write_npy(path, &map.to_array(), MapType::F32)?;
        }
        Ok(())
    }
}

fn find_layers(network: &impl Network, facts: &Facts, input: &Tensor) -> Result<Layers> {
    let mut tape = Tape::new()?;
    let sample = torch("input", || input.f_narrow(0, 0, 1))?;
    let output = {
        let _no_grad = tch::no_grad_guard();
        network.forward_tapped(&sample, &mut tape)?
    };
    Layers::new(&sample.size(), &output.size(), &tape.seen(), facts)
}

/// `D, H, W` of an input; 2D has `D = 1`.
fn spatial(input: &Tensor) -> [usize; 3] {
    let mut extents = [1; 3];
    for (extent, &n) in extents.iter_mut().rev().zip(input.size()[2..].iter().rev()) {
        *extent = usize::try_from(n).unwrap_or(0);
    }
    extents
}

/// Refuses NaN and infinity.
fn finite(what: &str, tensor: &Tensor) -> Result<()> {
    let bad = torch(what, || {
        let tensor = tensor.f_detach()?;
        // One pass without a temporary; only a sum that is not finite calls for a closer look.
        if tensor.f_sum(Kind::Float)?.f_double_value(&[])?.is_finite() {
            return Ok(0);
        }
        i64::try_from(tensor.f_isfinite()?.f_logical_not()?.f_sum(Kind::Int64)?)
    })?;
    if bad == 0 {
        return Ok(());
    }
    Err(Error::input(what, format!("{bad} of {} values are NaN or infinite", tensor.numel())))
}
