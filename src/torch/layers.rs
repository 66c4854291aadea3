//! The layers of a network: which of them can carry a map, and which are selected.

mod auto;
mod images;
mod refusals;

use std::collections::{HashMap, HashSet};

pub(crate) use refusals::{quantized, unknown_layer};

use serde::{Serialize, Serializer};
use tch::Tensor;

use super::in_libtorch;
use super::network::Facts;
use super::tape::Seen;
use crate::error::{Error, Result};
use crate::task::Task;

/// One layer of a network: a submodule, or an operation where there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Layer {
    /// The dotted name of the submodule, as PyTorch names it; of an operation, its kind and number in the
    /// graph, such as `conv3d.4`, which hold for one file.
    pub name: String,
    /// The name of its class, such as `Conv3d`, or an operation's kind; empty where unknown.
    #[serde(rename = "type")]
    pub kind: String,
    /// The shape of its output for one sample, `(1, C, [D,] H, W)` for most; that of its last run.
    pub shape: Vec<i64>,
    /// Whether its output is `(1, [D,] H, W, C)`, as in transformers. Its maps are
    /// `(B, 1, [D,] H, W)` all the same.
    pub channels_last: bool,
    /// How often it runs in one forward; `NAME#k` picks the k-th run, `NAME` the last.
    pub runs: usize,
    /// Whether it can carry a map: its output has the batch and the rank of the input and more than
    /// one voxel, and the score depends on it.
    pub can_carry_map: bool,
    /// Whether only pointwise steps (1x1 convolutions, activations, softmax, resizing) come after
    /// it, in segmentation: a map there only redraws the output.
    pub redraws_output: bool,
    /// Whether an instance norm follows that makes the mean gradient of every channel zero, because
    /// all steps in between mix channels alike at every voxel (1x1 convolutions, sums). Grad-CAM's
    /// weights and its map are rounding noise there.
    pub weights_cancel: bool,
    /// Whether it shows an image of its own: it does more than pad, crop or resize what came before,
    /// and does not come from a single voxel, as behind a global pool.
    pub shows_image: bool,
    /// Whether it is a single voxel, padded or resized.
    #[serde(skip)]
    pub(crate) regrids_one_voxel: bool,
    /// See [`Facts::patch_embeddings`].
    #[serde(skip)]
    embeds_patches: bool,
    /// Position of its last run among the runs of all layers, from 0.
    #[serde(skip)]
    last_run: usize,
    #[serde(skip)]
    is_floating_point: bool,
    /// Whether its first axis is as long as the batch.
    #[serde(skip)]
    has_batch: bool,
}

impl Layer {
    /// The spatial extents of a shape that has them.
    fn spatial(&self) -> &[i64] {
        if self.channels_last { &self.shape[1..self.shape.len() - 1] } else { &self.shape[2..] }
    }

    fn voxels(&self) -> i64 {
        self.spatial().iter().product()
    }

    /// Whether it has more than one voxel along each axis.
    pub(crate) fn has_extent(&self) -> bool {
        self.spatial().iter().all(|&extent| extent > 1)
    }

    fn channels(&self) -> i64 {
        self.shape[if self.channels_last { self.shape.len() - 1 } else { 1 }]
    }
}

/// Which layers to make maps of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum LayerChoice {
    /// One, chosen by the network's task.
    ///
    /// Classification: the last layer whose output has more than one voxel along each axis.
    /// Segmentation: among the layers that more than pointwise steps separate from the score, the
    /// last of those with the fewest voxels, as Seg-Grad-CAM (arXiv 2002.11434) takes the
    /// bottleneck.
    ///
    /// Layers whose weights cancel ([`Layer::weights_cancel`]) are left out, and so are those with
    /// a single channel, which a map could only repeat, and those that show no image of their own
    /// ([`Layer::shows_image`]). Layers that are one voxel thin along an axis, and the first layer of
    /// a transformer, which embeds patches of the image, are taken only if there is no other.
    #[default]
    Auto,
    /// All that can carry a map.
    Full,
    /// These, by name; `NAME#k` for the k-th run of a layer that runs more than once.
    Names(Vec<String>),
}

impl std::str::FromStr for LayerChoice {
    type Err = Error;

    /// `auto`, `full`, or names separated by commas.
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(Self::Auto),
            "full" => Ok(Self::Full),
            _ => {
                let names: Vec<_> = text.split(',').map(|name| name.trim().to_owned()).collect();
                if names.iter().any(String::is_empty) {
                    return Err(Error::usage(format!("layer '{text}': a name is empty")));
                }
                Ok(Self::Names(names))
            }
        }
    }
}

/// Serialises as the text that is parsed.
impl Serialize for LayerChoice {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Full => serializer.serialize_str("full"),
            Self::Names(names) => serializer.serialize_str(&names.join(",")),
        }
    }
}

/// A layer and one of its runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selected {
    /// The name as requested: `NAME` or `NAME#k`.
    pub label: String,
    pub name: String,
    /// Number of the run, from 1; `None` for the last, while it is not known how often the layer
    /// runs.
    pub run: Option<usize>,
    /// See [`Layer::channels_last`].
    pub channels_last: bool,
    /// See [`Layer::weights_cancel`], which is known for the last run alone; else `false`.
    pub weights_cancel: bool,
}

impl Selected {
    /// A layer that no forward has shown yet, by the name that was asked for.
    ///
    /// # Errors
    ///
    /// If what follows a `#` is no number.
    pub(crate) fn in_advance(label: &str, facts: &Facts) -> Result<Self> {
        let (name, run) = name_and_run(label, facts.layer_types.contains_key(label))?;
        Ok(Self {
            label: label.to_owned(),
            name: name.to_owned(),
            run,
            channels_last: facts.channels_last.contains(name),
            weights_cancel: facts.cancelling.contains(name) && run.is_none(),
        })
    }

    /// Whether a forward that recorded `earlier` recorded this.
    pub(crate) fn is_recorded_by(&self, earlier: &Self) -> bool {
        let run = earlier.run.or(self.run);
        *self == Self { run, weights_cancel: self.weights_cancel, ..earlier.clone() }
    }

    /// The layer's activation or gradient as `(B, C, [D,] H, W)`: the same memory, with other
    /// strides.
    pub(crate) fn channels_first(&self, tensor: &Tensor) -> Result<Tensor> {
        in_libtorch("layer", || {
            if self.channels_last {
                tensor.f_movedim_int(-1, 1)
            } else {
                Ok(tensor.shallow_clone())
            }
        })
    }
}

/// The layers of a network as one forward showed them, parents before their children.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layers {
    task: Task,
    layers: Vec<Layer>,
    output_shape: Vec<i64>,
    batch: i64,
    /// Layers that did not run, as only outputs that are not explained need them.
    not_run: HashSet<String>,
    /// Layers whose output has no axis of the image, such as attention weights.
    no_images: HashSet<String>,
    untapped: HashMap<String, String>,
    quantized: Option<String>,
    operations: bool,
}

impl Layers {
    /// `output` is `(B, K, ...)`, see [`batched_shape`](super::batched_shape).
    pub(crate) fn new(input: &[i64], output: &[i64], seen: &[Seen], facts: &Facts) -> Result<Self> {
        let task = Task::of(input, output)?;
        let batch = input[0];
        let mut by_name: HashMap<&str, usize> = HashMap::new();
        let mut layers: Vec<Layer> = Vec::new();
        for (position, run) in seen.iter().enumerate() {
            let index = *by_name.entry(&run.name).or_insert_with(|| {
                layers.push(Layer {
                    name: run.name.clone(),
                    kind: facts.layer_types.get(&run.name).cloned().unwrap_or_default(),
                    shape: Vec::new(),
                    channels_last: facts.channels_last.contains(&run.name),
                    runs: 0,
                    can_carry_map: false,
                    redraws_output: task == Task::Segmentation
                        && facts.redrawing.contains(&run.name),
                    weights_cancel: facts.cancelling.contains(&run.name),
                    shows_image: true,
                    regrids_one_voxel: false,
                    embeds_patches: facts.patch_embeddings.contains(&run.name),
                    last_run: 0,
                    is_floating_point: true,
                    has_batch: true,
                });
                layers.len() - 1
            });
            let layer = &mut layers[index];
            layer.runs += 1;
            layer.last_run = position;
            layer.shape.clone_from(&run.sizes);
            layer.is_floating_point = run.is_floating_point;
            // The first axis need not be the batch: attention windows, flips or crops may be
            // stacked along it.
            layer.has_batch = run.sizes.first() == Some(&batch);
            if layer.has_batch {
                layer.shape[0] = 1;
            }
            layer.can_carry_map = run.is_floating_point
                && run.sizes.len() == input.len()
                && layer.has_batch
                && layer.voxels() > 1
                && !facts.unreached.contains(&run.name)
                && !facts.products.contains(&run.name);
        }
        let image_voxels = images::image_voxels(seen, input, facts);
        for layer in &mut layers {
            let is_one_voxel = image_voxels.get(&layer.name).is_some_and(|&voxels| voxels <= 1);
            let regrids = facts.regridding.contains(&layer.name);
            layer.shows_image = !is_one_voxel && !regrids;
            layer.regrids_one_voxel = is_one_voxel && regrids;
        }
        let ran = |name: &String| by_name.contains_key(name.as_str());
        let not_run = facts.unreached.iter().filter(|name| !ran(name)).cloned().collect();
        let output_shape = [&[1], &output[1..]].concat();
        Ok(Self {
            task,
            layers: parents_first(layers),
            output_shape,
            batch,
            not_run,
            no_images: facts.products.clone(),
            untapped: facts.untapped.clone(),
            quantized: facts.quantized.clone(),
            operations: facts.operations,
        })
    }

    /// The shape `(1, K, ...)` of the network's output for one sample.
    pub fn output_shape(&self) -> &[i64] {
        &self.output_shape
    }

    /// The network's task.
    pub fn task(&self) -> Task {
        self.task
    }

    /// All layers, parents before their children, otherwise in the order in which they first ran.
    pub fn iter(&self) -> std::slice::Iter<'_, Layer> {
        self.layers.iter()
    }

    /// Whether operations are among them, see [`Network::tap_operations`](crate::Network::tap_operations).
    pub fn has_operations(&self) -> bool {
        self.operations
    }

    /// The layers and runs that a choice selects.
    pub(crate) fn select(&self, choice: &LayerChoice) -> Result<Vec<Selected>> {
        let last = |layer: &Layer| Selected {
            label: layer.name.clone(),
            name: layer.name.clone(),
            run: Some(layer.runs),
            channels_last: layer.channels_last,
            weights_cancel: layer.weights_cancel,
        };
        match choice {
            LayerChoice::Auto => {
                self.auto().map(|layer| vec![last(layer)]).ok_or_else(|| self.no_auto())
            }
            LayerChoice::Full => {
                let all: Vec<_> =
                    self.layers.iter().filter(|layer| layer.can_carry_map).map(last).collect();
                if all.is_empty() { Err(self.no_layer()) } else { Ok(all) }
            }
            LayerChoice::Names(names) => {
                if names.is_empty() {
                    return Err(Error::layer("layer: no name was given"));
                }
                let mut chosen = Vec::new();
                for name in names {
                    let selected = self.named(name)?;
                    if !chosen.contains(&selected) {
                        chosen.push(selected);
                    }
                }
                Ok(chosen)
            }
        }
    }

    /// The layer of this name.
    pub fn get(&self, name: &str) -> Option<&Layer> {
        self.layers.iter().find(|layer| layer.name == name)
    }

    fn named(&self, label: &str) -> Result<Selected> {
        let (name, run) = name_and_run(label, self.get(label).is_some())?;
        let layer = self.get(name).ok_or_else(|| self.unknown_layer(name))?;
        let run = run.unwrap_or(layer.runs);
        if run > layer.runs {
            return Err(Error::layer(format!(
                "layer '{label}': '{name}' runs {} time(s); # counts from 1",
                layer.runs
            )));
        }
        if !layer.can_carry_map {
            return Err(self.cannot_carry(layer));
        }
        let (label, name) = (label.to_owned(), name.to_owned());
        let weights_cancel = layer.weights_cancel && run == layer.runs;
        let run = Some(run);
        Ok(Selected { label, name, run, channels_last: layer.channels_last, weights_cancel })
    }
}

/// `NAME#k` as name and run; `is_name` says that the whole is the name of a layer.
fn name_and_run(label: &str, is_name: bool) -> Result<(&str, Option<usize>)> {
    match label.rsplit_once('#') {
        Some((name, run)) if !is_name => match run.parse() {
            Ok(0) => Err(Error::layer(format!("layer '{label}': # counts from 1"))),
            Ok(run) => Ok((name, Some(run))),
            Err(_) => {
                Err(Error::layer(format!("layer '{label}': what follows # must be a number")))
            }
        },
        _ => Ok((label, None)),
    }
}

/// Sorts parents before their children; siblings stay in the order in which they first ran.
fn parents_first(layers: Vec<Layer>) -> Vec<Layer> {
    // A child's run ends before its parent's, so a name takes the position of the first run at or
    // below it.
    let mut first: HashMap<String, usize> = HashMap::new();
    for (position, layer) in layers.iter().enumerate() {
        for end in name_ends(&layer.name) {
            first.entry(layer.name[..end].to_owned()).or_insert(position);
        }
    }
    let mut keyed: Vec<(Vec<(usize, String)>, Layer)> = layers
        .into_iter()
        .map(|layer| {
            let path = name_ends(&layer.name)
                .map(|end| {
                    let name = layer.name[..end].to_owned();
                    (first.get(&name).copied().unwrap_or(0), name)
                })
                .collect();
            (path, layer)
        })
        .collect();
    keyed.sort_by(|a, b| a.0.cmp(&b.0));
    keyed.into_iter().map(|(_, layer)| layer).collect()
}

/// Where each prefix of a dotted name ends: of `a.b.c` those of `a`, `a.b` and `a.b.c`.
fn name_ends(name: &str) -> impl Iterator<Item = usize> + '_ {
    name.match_indices('.').map(|(at, _)| at).chain([name.len()])
}
