//! Compares with nibabel and torch, if `MEDCAM_PYTHON` names a Python that has them.

use std::path::Path;
use std::process::Command;

use medcam::volumes::{Card, Input, MapType, Volume, read_npy, write_npy};
use ndarray::{Array3, Ix4};

const DEEPBET: &str = "[[intensity]]\nclip_percentiles = [0.5, 99.5]\n\
                       [[intensity]]\nscale = [0, 1]\n[[intensity]]\nz_score = \"all\"\n\
                       [[intensity]]\naffine = { multiply = 0.226, add = 0.449 }";

pub fn script(python: &str, name: &str, mode: &str, folder: &Path) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/volumes").join(name);
    let out = Command::new(python).arg(path).arg(mode).arg(folder).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

#[test]
#[expect(clippy::print_stdout, reason = "a skipped test says why")]
fn nibabel_sees_what_medcam_sees() {
    let Ok(python) = std::env::var("MEDCAM_PYTHON") else {
        println!("skipped: MEDCAM_PYTHON names no Python with nibabel and torch");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let at = |name: String| folder.path().join(name);
    let names = script(&python, "nibabel_images.py", "write", folder.path());
    let mut prepared = 0;
    for name in names.split_whitespace() {
        let text = std::fs::read_to_string(at(format!("{name}.txt"))).unwrap();
        let mut words = text.split_whitespace();
        let volume = Volume::read(at(words.next().unwrap().to_owned())).unwrap();
        let codes: String = volume.axis_codes().iter().collect();
        assert_eq!(codes, words.next().unwrap(), "{name}");
        for (ours, theirs) in volume.affine.iter().flatten().zip(words) {
            let theirs: f64 = theirs.parse().unwrap();
            assert!((ours - theirs).abs() <= 1e-6, "{name}: {ours} {theirs}");
        }
        let data = read_npy(at(format!("{name}.npy"))).unwrap();
        assert_eq!(volume.data, data.into_dimensionality::<Ix4>().unwrap(), "{name}");

        for (interpolation, steps) in [("linear", ""), ("nearest", DEEPBET)] {
            let file = at(format!("{name}-{interpolation}.npy"));
            if file.exists() {
                let card = format!(
                    "[input]\norientation = \"RAS\"\nsize = [5, 11, 4]\n\
                     interpolation = \"{interpolation}\"\n{steps}"
                );
                let card: Card = card.parse().unwrap();
                let tensor = card.prepare(&Input::Volume(volume.clone()), Some(3)).unwrap().tensor;
                let theirs = read_npy(&file).unwrap();
                assert_eq!(tensor.shape(), theirs.shape());
                let scale = theirs.iter().fold(0.0_f32, |most, v| most.max(v.abs()));
                let error = (tensor - theirs).iter().fold(0.0_f32, |most, v| most.max(v.abs()));
                assert!(error <= 1e-5 * scale, "{name} {interpolation}: {error} of {scale}");
                prepared += 1;
            }
        }

        let (_, i, j, k) = volume.data.dim();
        let map = Array3::from_shape_fn((i, j, k), |(a, b, c)| {
            (a + 2 * b + 3 * c) as f32 / (i + 2 * j + 3 * k) as f32
        });
        write_npy(at(format!("{name}-map.npy")), &map.clone().into_dyn(), MapType::F32).unwrap();
        // The map is written directly, and then by way of the model's axes.
        volume.write_map(at(format!("{name}-u8.nii.gz")), &map, MapType::U8).unwrap();
        let card: Card = "[input]\norientation = \"RAS\"\nsize = [4, 4, 4]".parse().unwrap();
        let grid = card.prepare(&Input::Volume(volume.clone()), Some(3)).unwrap().grid;
        let model_map = grid.prepare_mask(&Input::Array(map.into_dyn()), grid.map_size()).unwrap();
        grid.save_map(folder.path(), &format!("{name}-same"), model_map.view(), MapType::F32)
            .unwrap();
        let half = Array3::from_elem([i, j, k].map(|n| n.div_ceil(2)), 0.5);
        volume.write_map(at(format!("{name}-half.nii.gz")), &half, MapType::F32).unwrap();
    }
    assert_eq!(prepared, 10);
    script(&python, "nibabel_images.py", "check", folder.path());
}
