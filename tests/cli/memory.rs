//! Memory: `medcam plan`, `--max-memory`, `--precision`, and a limit of the system.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use medcam::tch::{CModule, Device, Kind, Tensor};
use medcam::volumes::read_npy;
use ndarray::ArrayD;
use serde_json::Value;

use super::cohort::{LAYERS, cohort, ended, maps, statuses};
use super::run::{ProcessOutput, Workspace, network, program};

/// `medcam plan` for these sources.
fn plan(sources: &[&Path], options: &str) -> ProcessOutput {
    let mut command = program();
    command.arg("plan").arg(network("plain2d.traced.pt")).args(sources);
    command.args(["-o", "nowhere", "--device", "cpu", "--layer", LAYERS]);
    ProcessOutput::of(command.args(options.split_whitespace()))
}

/// Images of this many rows and columns.
fn images(workspace: &Workspace, name: &str, count: usize, extent: usize) -> PathBuf {
    fs::create_dir_all(workspace.at(name)).unwrap();
    for i in 0..count {
        let values = ArrayD::from_shape_fn(vec![1, 3, extent, extent], |at| {
            ((at[1] * 3 + at[2] * (i + 3) + at[3] * 7) % 23) as f32
        });
        workspace.array(&format!("{name}/{name}{i}.npy"), &values);
    }
    workspace.at(name)
}

fn lines(folder: &Path, kind: &str) -> Vec<Value> {
    let journal = fs::read_to_string(folder.join("journal.jsonl")).unwrap();
    let lines = journal.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["line"] == kind).collect()
}

#[test]
fn a_limit_of_memory_holds_and_refuses_what_is_too_large() {
    let workspace = Workspace::new();
    let small = images(&workspace, "small", 4, 700);
    let large = images(&workspace, "large", 1, 2800);
    let number = |plan: &Value, name: &str| plan[name].as_u64().unwrap();
    let json = |sources: &[&Path]| -> Value {
        serde_json::from_str(&plan(sources, "--json").succeeded().stdout).unwrap()
    };
    let of_small = json(&[&small]);
    let of_both = json(&[&small, &large]);
    assert_eq!(of_small["input_shape"], serde_json::json!([1, 3, 700, 700]));
    assert_eq!(of_both["tried_shape"], of_both["input_shape"]);
    let [least, most] = [&of_small, &of_both].map(|plan| number(plan, "forward_bytes"));
    assert!(least < most, "{of_small} {of_both}");
    let text = plan(&[&small, &large], "").succeeded().stdout;
    assert!(text.contains("5 case(s); the largest that fits is large0"), "{text}");
    assert!(!Path::new("nowhere").exists());

    // Room for a small one, and not for the large one.
    let limit = number(&of_small, "forward_bytes") + 3 * number(&of_small, "case_bytes");
    assert!(limit < most);
    let option = format!("--max-memory {limit}B");
    let folder = workspace.at("maps");
    let mut command = cohort(&[&small, &large], &folder, &option);
    let ran =
        ProcessOutput::of(&mut command).failed(1, &["1 of 5 case(s) failed", "memory: about"]);
    assert!(ran.stderr.contains("would take about"), "{}", ran.stderr);
    let statuses = statuses(&folder);
    assert_eq!(statuses.iter().filter(|(_, status)| *status == "done").count(), 4);
    assert_eq!(statuses["large0"], "failed");
    let predicted = lines(&folder, "memory");
    assert_eq!((predicted.len(), &predicted[0]["limit_bytes"]), (1, &limit.into()));
    let peaks = ended(&folder);
    let peak = peaks.iter().map(|line| number(line, "peak_memory_bytes")).max().unwrap();
    // What is predicted is no promise, and yet it is near.
    let predicted = number(&predicted[0], "peak_bytes") as f64;
    let share = peak as f64 / predicted;
    assert!((0.5..1.1).contains(&share), "{peak} of {predicted}");

    let none = format!("--max-memory {}B", number(&of_small, "process_bytes"));
    plan(&[&small], &none).failed(1, &["no case fits", "model card"]);
    plan(&[&small], "--max-memory 8elephants").failed(2, &["--max-memory"]);
    plan(&[&small], "--max-memory 8").failed(2, &["give a unit"]);
    let part = plan(&[&small], "--num-parts 2 --part-id 1 --max-memory 8GiB").succeeded().stdout;
    assert!(part.contains("2 case(s)"), "{part}");
}

/// What cannot be read, or does not fit the model, fails for that reason, and decides nothing for the others.
#[test]
fn a_limit_of_memory_is_not_set_by_broken_files() {
    let workspace = Workspace::new();
    let scans = images(&workspace, "scan", 2, 48);
    let dictionary = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 3, 30000, 30000), }";
    let header = format!("{dictionary:<117}\n");
    let cut = [&b"\x93NUMPY\x01\x00\x76\x00"[..], header.as_bytes()].concat();
    fs::write(scans.join("cut.npy"), cut).unwrap();
    workspace.array("scan/channels.npy", &ArrayD::zeros(vec![1, 5, 900, 900]));
    workspace.array("scan/flat.npy", &ArrayD::zeros(vec![3, 900, 900]));
    let folder = workspace.at("maps");
    let ran = ProcessOutput::of(&mut cohort(&[&scans], &folder, "--max-memory 1GiB"));
    ran.failed(1, &["3 of 5 case(s) failed", "memory: about", "1.0 GiB, with 5 case(s)"]);
    assert_eq!(lines(&folder, "memory")[0]["input_shape"], serde_json::json!([1, 3, 48, 48]));
    let reasons: Vec<_> = ended(&folder).iter().map(|line| line["reason"].to_string()).collect();
    for words in ["promises", "5 channel(s)", "has shape [3, 900, 900]"] {
        assert!(reasons.iter().any(|reason| reason.contains(words)), "{words}: {reasons:?}");
    }
}

/// Under `ulimit -v` allocations fail. Cases for which there is no memory beside others are run alone, and if the
/// process itself ends, a resume goes on: there is a map of each in the end.
#[test]
fn a_failed_allocation_is_tried_again_alone() {
    let workspace = Workspace::new();
    let scans = images(&workspace, "scan", 4, 1200);
    let whole = workspace.at("whole");
    ProcessOutput::of(&mut cohort(&[&scans], &whole, "")).succeeded();
    let expected = maps(&whole);
    let mut postponed = 0;
    for limit_kib in (600_000..1_400_000).step_by(200_000) {
        let folder = workspace.at(format!("maps{limit_kib}"));
        let limited = cohort(&[&scans], &folder, "");
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit -v {limit_kib}; exec \"$@\""), "sh"]);
        shell.arg(limited.get_program()).args(limited.get_args());
        shell.env("OMP_NUM_THREADS", "2").env("RAYON_NUM_THREADS", "2");
        let _ = shell.output().unwrap();
        if !folder.join("journal.jsonl").exists() {
            continue;
        }
        postponed += lines(&folder, "postponed").len();
        let mut resumed = cohort(&[&scans], &folder, "--resume --retry-failed");
        ProcessOutput::of(&mut resumed).succeeded();
        assert!(maps(&folder) == expected, "{limit_kib}");
    }
    assert!(postponed > 0);
}

#[test]
fn half_precision_is_the_models_own_in_that_type() {
    let workspace = Workspace::new();
    let model = network("plain2d.traced.pt");
    let scan = images(&workspace, "scan", 1, 64).join("scan0.npy");
    let map = |options: &str| {
        let options = format!("--save-output --device cpu --label 1 --layer features.5 {options}");
        workspace.map(&model, std::slice::from_ref(&scan), &options)
    };
    map("").succeeded();
    let single = workspace.npy("features.5/scan0.npy");
    for (name, kind) in [("bf16", Kind::BFloat16), ("f16", Kind::Half)] {
        map(&format!("--precision {name}")).succeeded();
        assert_eq!(workspace.report()["options"]["model"]["precision"], name);
        let mut module = CModule::load(&model).unwrap();
        module.set_eval();
        module.to(Device::Cpu, kind, false);
        let input =
            medcam::to_tensor(&read_npy(&scan).unwrap(), medcam::Device::Cpu, kind).unwrap();
        let output: Tensor = medcam::tch::no_grad(|| module.forward_ts(&[input])).unwrap();
        assert_eq!(workspace.npy("scan0_output.npy"), medcam::to_array(&output).unwrap());
        let half = workspace.npy("features.5/scan0.npy");
        let most = (&half - &single).iter().fold(0.0_f32, |most, d| most.max(d.abs()));
        assert!(most > 0.0 && most < 0.2, "{name}: {most}");
    }
    map("--precision f8").failed(2, &["precision f8", "bf16"]);
}
