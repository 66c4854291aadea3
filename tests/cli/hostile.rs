//! Unusual names, sizes and pipes.

use std::io::Read;
use std::process::Stdio;

use super::run::{Workspace, network, program};

#[test]
fn a_size_beyond_memory_is_an_error() {
    let workspace = Workspace::new();
    let model = network("interpolating3d.traced.pt");
    let input = [workspace.volume("v.nii")];
    for size in ["100000,100000,100000", "1048576,1048576,1048576"] {
        let ran = workspace.map(&model, &input, &format!("--size {size}"));
        ran.failed(1, &["v.nii", "layer 'down2'", "no memory"]);
        assert_eq!(workspace.report()["failed"], 1);
    }
    let most = "18446744073709551615";
    let ran = workspace.map(&model, &input, &format!("--size {most},{most},{most}"));
    ran.failed(1, &["the limit is 2147483647"]);
    workspace.map(&model, &input, "--size 40000,1,1").failed(1, &["NIfTI cannot hold", "40000"]);
    let ran =
        workspace.map(&network("plain2d.traced.pt"), &[workspace.picture("p.png")], "--size 3,9,9");
    ran.failed(1, &["p.png", "depth of 3 for a 2D network"]);
}

#[cfg(unix)]
#[test]
fn names_of_all_kinds() {
    use std::os::unix::ffi::OsStrExt;
    let workspace = Workspace::new();
    let model = network("plain2d.traced.pt");
    workspace.picture("photo.png");
    std::os::unix::fs::symlink("photo.png", workspace.at("link.png")).unwrap();
    std::os::unix::fs::symlink("nothing.png", workspace.at("dangling.png")).unwrap();
    std::fs::copy(workspace.at("photo.png"), workspace.at("SCAN.V1.PNG")).unwrap();
    let inputs = ["link.png", "SCAN.V1.PNG", "dangling.png"].map(|name| workspace.at(name));
    workspace.map(&model, &inputs, "").failed(1, &["dangling.png", "1 of 3"]);
    assert_eq!(workspace.npy("features/link.npy"), workspace.npy("features/SCAN.V1.npy"));

    // run.json cannot hold this name.
    let name = workspace.at(std::ffi::OsStr::from_bytes(b"bad\xff.png"));
    std::fs::copy(workspace.at("photo.png"), &name).unwrap();
    workspace.map(&model, &[workspace.at("photo.png"), name], "").failed(2, &["not UTF-8"]);

    let out = workspace.at("ö ü/a b");
    let mut command = program();
    command.arg("map").arg(&model).arg(workspace.at("photo.png")).arg("-o").arg(&out);
    super::run::ProcessOutput::of(&mut command).succeeded();
    assert!(out.join("features/photo.png").is_file() && out.join("run.json").is_file());
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let workspace = Workspace::new();
    let (model, input) = (network("resnet18.traced.pt"), network("resnet18.input.npy"));
    let layers = ["layers", model.to_str().unwrap(), "--shape", "1,3,64,64"];
    let out = workspace.at("maps");
    let map =
        ["map", model.to_str().unwrap(), input.to_str().unwrap(), "-o", out.to_str().unwrap()];
    for arguments in [&layers[..], &map[..]] {
        let mut command = program();
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        drop(child.stdout.take());
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        assert!(child.wait().unwrap().success() && stderr.is_empty(), "{stderr}");
    }
}

#[test]
fn a_second_run_replaces_the_first() {
    let workspace = Workspace::new();
    let model = network("plain2d.traced.pt");
    let input = [workspace.picture("p.png")];
    workspace.map(&model, &input, "--label 0").succeeded();
    let first = workspace.npy("features/p.npy");
    workspace.map(&model, &input, "--label 3").succeeded();
    assert_ne!(first, workspace.npy("features/p.npy"));
    assert_eq!(workspace.report()["options"]["label"][0], "3");
    let left: Vec<_> = walk(&workspace.at("maps"));
    assert_eq!(left.len(), 3, "{left:?}");
}

/// All files in a folder and its subfolders.
pub fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}
