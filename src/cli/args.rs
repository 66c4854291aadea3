//! What the program takes.

use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand};
use serde::Serialize;

use crate::error::Error;
use crate::evaluation::Metric;
use crate::explain::MapSize;
use crate::torch::Precision;
use crate::version::VERSION;
use crate::volumes::MapType;

/// Attention maps of 2D and 3D medical CNNs, at about the price of inference.
#[derive(Debug, Parser)]
#[command(version = VERSION, propagate_version = true, after_help = EXAMPLES)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
    /// Say more about what happens, on stderr.
    #[arg(long, global = true)]
    pub verbose: bool,
}

const EXAMPLES: &str = "\
Examples:
  medcam layers model.pt --shape 1,1,64,64,64
  medcam map model.pt scan.nii.gz -o maps --label 1 --picture
  medcam map model.pt a.nii.gz b.nii.gz -o maps --layer full --card model.toml
  medcam cohort model.pt scans -o maps --resume
  medcam score maps/up2/scan.nii.gz mask.nii.gz --metric wioa,iou";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the layers of a model, and which of them can carry a map.
    Layers(LayersArguments),
    /// Make attention maps of images.
    Map(Box<MapArguments>),
    /// Make attention maps of thousands of images, and lose nothing if that is interrupted.
    Cohort(Box<CohortArguments>),
    /// Predict the memory that a cohort takes; takes the command line of `medcam cohort`, and writes nothing.
    Plan(Box<CohortArguments>),
    /// Make the tables of a cohort from its journals.
    Merge(MergeArguments),
    /// Score an attention map against a mask of what it should show.
    Score(ScoreArguments),
}

const LAYERS_EXAMPLES: &str = "\
Examples:
  medcam layers model.pt --shape 1,1,64,64,64     what the layers give for a 3D input of that shape
  medcam layers model.pt --input scan.nii.gz      ... for that image, prepared as model.toml says
  medcam layers model.pt --shape 1,3,224,224 --json";

#[derive(Debug, Args)]
#[command(after_help = LAYERS_EXAMPLES)]
pub struct LayersArguments {
    #[command(flatten)]
    pub model: ModelArguments,
    /// An image whose shape the model is run on.
    #[arg(long, value_name = "FILE", conflicts_with = "shape")]
    pub input: Option<PathBuf>,
    /// The shape of the input, B,C,H,W or B,C,D,H,W; without it and --input the size in the card.
    #[arg(long, value_delimiter = ',', value_name = "B,C,[D,]H,W", allow_hyphen_values = true)]
    pub shape: Option<Vec<usize>>,
    /// Print JSON on stdout.
    #[arg(long)]
    pub json: bool,
}

/// What both commands say of the model.
#[derive(Debug, Clone, Args, Serialize)]
pub struct ModelArguments {
    /// TorchScript model, traced or scripted, as torch.jit.save writes it.
    #[arg(value_name = "MODEL.pt")]
    pub model: PathBuf,
    /// Model card: how an image becomes the model's input [default: MODEL.toml beside the model, or
    /// beside the file that it links to, if it is there].
    #[arg(long, value_name = "FILE")]
    pub card: Option<PathBuf>,
    /// Of a model that returns several tensors, the one to explain, by number or by name; without it
    /// the first.
    #[arg(long, value_name = "N|NAME")]
    pub explain_output: Option<String>,
    /// Convert the model to this precision, f32, bf16 or f16; without it, it runs as it was saved. With half the
    /// bits, a forward takes half the memory, and its output is another.
    #[arg(long, value_name = "f32|bf16|f16")]
    pub precision: Option<String>,
    /// Where to run: auto, cpu, cuda or cuda:N.
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// Threads for the CPU, which libtorch, the maps and the files take turns in using [default:
    /// SLURM_CPUS_PER_TASK, else as many as the process may use: cores, affinity, the limit of its container].
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
}

const MAP_EXAMPLES: &str = "\
Examples:
  medcam map model.pt scan.nii.gz -o maps                        best class, layer chosen by rule
  medcam map model.pt scan.nii.gz -o maps --label 1 --picture    class 1, with a PNG to look at
  medcam map model.pt a.nii.gz b.nii.gz -o maps --layer up2,up3  two layers, a folder each
  medcam map model.pt scan.nii.gz -o maps --label predicted:1    only the voxels predicted as 1
  medcam map model.pt scan.nii.gz -o maps --label 1,2,5          three classes from one forward
  medcam map model.pt scan.nii.gz -o maps --label components:1   a map of each lesion
  medcam map model.pt scan.nii.gz -o maps --backend ggcam        Guided Grad-CAM
  medcam map model.pt scans/*.nii.gz -o maps --mask lesions      scored against lesions/STEM.*
  medcam map model.pt photo.png -o maps --dtype u8
  medcam map model.pt batch.npy -o maps --json

Writes DIR/LAYER/STEM.nii.gz for a NIfTI, on the image's own grid; STEM.png and STEM.npy for an
image; STEM.npy of shape B,1,... for .npy; with several labels STEM_LABEL.nii.gz, such as
STEM_class2.nii.gz; and DIR/run.json: what was run and how it went.";

#[derive(Debug, Clone, Args, Serialize)]
#[command(after_help = MAP_EXAMPLES)]
#[command(mut_arg("mask_values", |arg| arg.requires("mask")))]
#[command(mut_arg("metric", |arg| arg.requires("mask")))]
#[command(mut_arg("threshold", |arg| arg.requires("mask")))]
pub struct MapArguments {
    #[command(flatten)]
    #[serde(flatten)]
    pub options: Options,
    /// Images: .nii, .nii.gz, .png, .jpg, or .npy of shape B,C,[D,]H,W.
    #[arg(value_name = "INPUT", required = true)]
    pub inputs: Vec<PathBuf>,
    /// Also write DIR/attention_maps.npz: the maps of all inputs, of the model's input's size, as
    /// STEM/LAYER/TARGET with STEM the name of the input's file. Without any map there is none.
    #[arg(long)]
    pub archive: bool,
    /// Print run.json on stdout as well.
    #[arg(long)]
    pub json: bool,
}

/// What `medcam map` and `medcam cohort` are asked for each image.
#[derive(Debug, Clone, Args, Serialize)]
pub struct Options {
    #[command(flatten)]
    pub model: ModelArguments,
    /// Folder for the maps; made if it is not there.
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
    /// Attention method: gcam (Grad-CAM), gcampp (Grad-CAM++), gbp (Guided Backpropagation), ggcam
    /// (Guided Grad-CAM), hirescam (HiResCAM) or layercam (LayerCAM).
    #[arg(long, default_value = "gcam", value_name = "NAME")]
    pub backend: String,
    /// auto, full (all that can carry a map), or names from `medcam layers`; NAME#k for the k-th run.
    #[arg(long, default_value = "auto", value_name = "auto|full|NAME[,NAME...]")]
    pub layer: String,
    /// Make one map, of layer `fused`, of those of all layers: their mean, or the greatest at each
    /// voxel, brought to [0, 1] again. Maps that are noise (WEIGHTS_CANCEL) are left out, as long as
    /// there is another.
    #[arg(long, value_name = "mean|max")]
    pub fuse: Option<String>,
    /// What to explain: the best class, all outputs together, class N, each class, the voxels
    /// predicted as class N, or each connected component of those (each lesion). Several, with
    /// commas: a map of each, from one forward.
    #[arg(long, default_value = "best", value_delimiter = ',', allow_hyphen_values = true)]
    #[arg(value_name = "best|all|N|each|predicted:N|components:N")]
    pub label: Vec<String>,
    /// Which activations gbp and ggcam guide: ReLU, or all kinds (LeakyReLU, GELU, ...).
    #[arg(long, default_value = "relu", value_name = "relu|all")]
    pub guide: String,
    /// Explain only this region (0/1, on the image's grid) of class --label, in segmentation.
    #[arg(long, value_name = "FILE")]
    pub target_mask: Option<PathBuf>,
    /// Evaluate the maps: the mask of the one input, or a folder with a mask of each input's name;
    /// 0/1, or a label at each voxel. Writes DIR/scores.xlsx, scores.csv and mean_scores.png.
    #[arg(long, value_name = "FILE|DIR")]
    pub mask: Option<PathBuf>,
    /// What the values of --mask are: 0/1 (binary), or the class of each voxel (labels).
    #[arg(long, default_value = "detect", value_name = "detect|binary|labels")]
    pub mask_values: String,
    /// What to measure with --mask: ioa, wioa, iou, wiou, pointing_game, relevance_mass,
    /// relevance_rank.
    #[arg(long, default_value = "wioa", value_delimiter = ',', value_name = "NAME[,NAME...]")]
    pub metric: Vec<String>,
    /// From where on a voxel counts as attention: Otsu's threshold, or a number from 0 to 1. Metrics take
    /// it, and the volumes in a cohort's tables.
    #[arg(long, default_value = "otsu", value_name = "otsu|X", allow_hyphen_values = true)]
    pub threshold: String,
    /// Take the score before a final softmax or sigmoid, or after it.
    #[arg(long, default_value = "logits", value_name = "logits|output")]
    #[arg(default_value_if("compat", "m3dcam", "output"))]
    pub score: String,
    /// Whose numbers: medcam's own, or those of M3d-CAM 0.1.22. That takes the score after a final
    /// softmax, and has a layer auto of its own; what is its label None is `--label all` here.
    #[arg(long, default_value = "none", value_name = "none|m3dcam")]
    pub compat: String,
    /// Size of the maps: the input image's, the layer's, or voxels along the model's axes.
    #[arg(long, default_value = "input", value_name = "input|layer|D,H,W")]
    #[arg(allow_hyphen_values = true)]
    pub size: String,
    /// Type of the maps' values: f32, or u8 (a quarter of the size).
    #[arg(long, default_value = "f32", value_name = "f32|u8")]
    pub dtype: String,
    /// Also write STEM_overlay.png: the map over the image.
    #[arg(long)]
    pub picture: bool,
    /// Also write DIR/STEM_output.npy: the model's own output, as float32.
    #[arg(long)]
    pub save_output: bool,
}

const COHORT_EXAMPLES: &str = "\
Examples:
  medcam cohort model.pt scans -o maps                       all images in scans and below it
  medcam cohort model.pt scans -o maps --resume              go on where a run was interrupted
  medcam cohort model.pt 'raw/*/t1.nii.gz' -o maps --label 1 the files that match
  medcam cohort model.pt cases.csv -o maps                   columns image, and id, mask, label if wanted
  medcam cohort model.pt bids -o maps --num-parts 4 --part-id 0
  medcam plan model.pt scans -o maps --max-memory 8GiB       what it will take
  medcam merge maps                                          tables of all parts

Writes what `medcam map` writes, DIR/LAYER/ID.nii.gz; DIR/journal.jsonl, a line for each case with its
status, reason, timings, and the hashes of its files; and DIR/cases.csv, cases.xlsx and cases.parquet.
Exit code: 0, or 1 if a case failed. A signal finishes what is begun, a second one stops at once; --resume
goes on.";

#[derive(Debug, Clone, Args)]
#[command(after_help = COHORT_EXAMPLES)]
pub struct CohortArguments {
    #[command(flatten)]
    pub options: Options,
    /// Images, folders with images in or below them, patterns ('scans/*/t1.nii.gz'), BIDS datasets, or
    /// manifests (.csv with a column image, and id, mask and label if wanted; paths from its folder).
    #[arg(value_name = "SOURCE", required_unless_present = "worker", conflicts_with = "worker")]
    pub sources: Vec<PathBuf>,
    /// Go on with what an earlier run into DIR has left, or begin. It must be of the same model, images
    /// and settings.
    #[arg(long)]
    pub resume: bool,
    /// With --resume: also those cases that failed, or during which the process died twice.
    #[arg(long, requires = "resume")]
    pub retry_failed: bool,
    /// Into how many parts the cases are divided, each run on its own [default: in a SLURM array with step
    /// 1, its number of tasks].
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub num_parts: Option<usize>,
    /// Which part to run, from 0 [default: SLURM_ARRAY_TASK_ID, or Kubernetes' JOB_COMPLETION_INDEX; without
    /// --num-parts, the place of the task in its array].
    #[arg(long, value_name = "I", requires = "num_parts", allow_hyphen_values = true)]
    pub part_id: Option<usize>,
    /// Keep the process within so much memory of the host, such as 8GiB: predicts what a case takes by trials on
    /// random input, lets fewer cases be in flight, and fails those that would not fit even alone. `medcam plan`
    /// prints the prediction.
    #[arg(long, value_name = "SIZE")]
    pub max_memory: Option<ByteSize>,
    /// Also write DIR/profile.json, which chrome://tracing and ui.perfetto.dev show, and print what the
    /// stages did.
    #[arg(long)]
    pub profile: bool,
    /// Take cases from stdin, a JSON line each: {\"id\": ..., \"image\": ..., \"mask\": ..., \"label\": ...}, and
    /// answer each on stdout with the line of its journal, as it ends. The first line says what runs.
    #[arg(long, conflicts_with_all = ["resume", "num_parts", "profile", "json", "mask", "max_memory"])]
    pub worker: bool,
    /// Print the journal's line of each case that ends on stdout.
    #[arg(long)]
    pub json: bool,
}

/// What `medcam merge` takes.
#[derive(Debug, Args)]
pub struct MergeArguments {
    /// The folder of the cohort, as it was given with -o.
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// Read all files again, and compare their hashes with those in the journals; without it, their lengths.
    #[arg(long)]
    pub verify: bool,
}

const SCORE_EXAMPLES: &str = "\
Examples:
  medcam score maps/up2/scan.nii.gz lesion.nii.gz                       M3d-CAM's wioa
  medcam score maps/up2/scan.nii.gz lesion.nii.gz --metric ioa,iou --threshold 0.3
  medcam score maps/up2/scan.nii.gz labels.nii.gz --class 2 --json      label 2 of several
  medcam score maps/layer4/photo.npy mask.png -o scores                 with a table and a plot

Metrics: ioa, wioa, iou, wiou, pointing_game, relevance_mass, relevance_rank.
Writes DIR/scores.xlsx, DIR/scores.csv and DIR/mean_scores.png; the layer in there is the name of
the map's folder.";

#[derive(Debug, Args, Serialize)]
#[command(after_help = SCORE_EXAMPLES)]
pub struct ScoreArguments {
    /// The map: .nii, .nii.gz, .npy or a gray .png. It is resampled to the mask's grid.
    #[arg(value_name = "MAP")]
    pub map: PathBuf,
    /// The mask, of the same field of view: 0/1, or labels with --class.
    #[arg(value_name = "MASK")]
    pub mask: PathBuf,
    /// What to measure.
    #[arg(long, default_value = "wioa", value_delimiter = ',', value_name = "NAME[,NAME...]")]
    pub metric: Vec<String>,
    /// From where on a voxel counts as attention: Otsu's threshold, or a number from 0 to 1.
    #[arg(long, default_value = "otsu", value_name = "otsu|X", allow_hyphen_values = true)]
    pub threshold: String,
    /// The label of the mask to score against.
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub class: Option<usize>,
    /// Folder for a spreadsheet, a table and a plot; made if it is not there.
    #[arg(short, long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Print JSON on stdout.
    #[arg(long)]
    pub json: bool,
}

impl ModelArguments {
    pub fn precision(&self) -> Result<Option<Precision>, Error> {
        self.precision.as_ref().map(|precision| precision.parse()).transpose()
    }

    /// The card that is given, or that beside the model; beside the file that it links to, if it is a link.
    pub fn card_file(&self) -> Option<PathBuf> {
        let beside =
            |model: &Path| Some(model.with_extension("toml")).filter(|card| card.is_file());
        let beside_target = || beside(&self.model.canonicalize().ok()?);
        self.card.clone().or_else(|| beside(&self.model)).or_else(beside_target)
    }
}

/// The metrics of `--metric`.
pub fn metrics(names: &[String]) -> Result<Vec<Metric>, Error> {
    for (i, name) in names.iter().enumerate() {
        if names[..i].contains(name) {
            return Err(Error::usage(format!("--metric: {name} is there twice")));
        }
    }
    names.iter().map(|name| name.parse()).collect()
}

impl Options {
    pub fn dtype(&self) -> Result<MapType, Error> {
        match self.dtype.as_str() {
            "f32" => Ok(MapType::F32),
            "u8" => Ok(MapType::U8),
            other => Err(Error::usage(format!("--dtype {other}: expected f32 or u8"))),
        }
    }

    /// `None`: the size of the input image.
    pub fn size(&self) -> Result<Option<MapSize>, Error> {
        match self.size.as_str() {
            "input" => Ok(None),
            "layer" => Ok(Some(MapSize::Layer)),
            other => {
                let extents: Vec<usize> =
                    other.split(',').filter_map(|n| n.trim().parse().ok()).collect();
                match extents[..] {
                    [d, h, w] if other.matches(',').count() == 2 && d.min(h).min(w) > 0 => {
                        Ok(Some(MapSize::Exact([d, h, w])))
                    }
                    _ => Err(Error::usage(format!(
                        "--size {other}: expected input, layer or D,H,W (2D: 1,H,W)"
                    ))),
                }
            }
        }
    }
}
