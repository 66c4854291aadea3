//! The map of an oblique, anisotropic NIfTI from `medcam map`, read by nibabel.

use std::process::Command;

use super::run::{Workspace, deepbet};

#[test]
#[expect(clippy::print_stdout, reason = "a skipped test says why")]
fn nibabel_agrees_with_the_map_of_an_oblique_image() {
    let Ok(python) = std::env::var("MEDCAM_PYTHON") else {
        println!("skipped: MEDCAM_PYTHON names no Python with nibabel");
        return;
    };
    let workspace = Workspace::new();
    let [model, t1, card] = deepbet();
    let script = |mode: &str, arguments: &[&str]| {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cli/oblique.py");
        let mut command = Command::new(&python);
        let out =
            command.arg(path).arg(mode).arg(workspace.at("")).args(arguments).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    };
    script("write", &[t1.to_str().unwrap()]);
    let inputs = [workspace.at("oblique.nii.gz"), workspace.at("canonical.nii.gz")];
    let options = format!("--label 1 --card {}", card.display());
    workspace.map(&model, &inputs, &options).succeeded();
    let report = workspace.report();
    let layer = report["layers"][0].as_str().unwrap();
    script("check", &[workspace.at("maps").join(layer).to_str().unwrap()]);

    // nibabel reads the same values as we do.
    for stem in ["oblique", "canonical"] {
        let ours = workspace.nifti(&format!("{layer}/{stem}.nii.gz")).data;
        let theirs = medcam::volumes::read_npy(workspace.at(format!("{stem}.npy"))).unwrap();
        assert_eq!(ours.index_axis(ndarray::Axis(0), 0).into_dyn(), theirs);
    }
}
