//! The commands that draw the pictures of docs/gallery.md, on quickly made networks with the same
//! layers.

use std::path::Path;
use std::process::Command;

use medcam::volumes::Card;

use super::run::{ProcessOutput, Workspace, deepbet, program};

fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The output of a Python script of the checkout.
fn script(python: &str, path: &str, argument: &str) -> String {
    let mut command = Command::new(python);
    let out = command.arg(checkout().join(path)).arg(argument).output().unwrap();
    assert!(out.status.success(), "{path}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

#[test]
#[expect(clippy::print_stdout, reason = "a skipped test says why")]
fn its_commands_draw_pictures() {
    let Ok(python) = std::env::var("MEDCAM_PYTHON") else {
        println!("skipped: MEDCAM_PYTHON names no Python with torch and nibabel");
        return;
    };
    let workspace = Workspace::new();
    let folder = workspace.at("");
    script(&python, "tests/cli/gallery.py", folder.to_str().unwrap());
    let commands = script(&python, "examples/gallery/make_gallery.py", "--list");
    assert_eq!(commands.lines().count(), 12);
    let [model, ..] = deepbet();
    let data = model.ancestors().nth(2).unwrap();
    let page = std::fs::read_to_string(checkout().join("docs/gallery.md")).unwrap();

    for line in commands.lines() {
        let name = line.split("-o maps/").nth(1).unwrap().split(' ').next().unwrap();
        let picture = format!("images/gallery/{name}.png");
        assert!(page.contains(&picture), "docs/gallery.md does not show {picture}");
        assert!(checkout().join("docs").join(&picture).is_file(), "{picture}: no such file");
        let words = line.split(' ').skip(1).map(|word| {
            word.replace("$MEDCAM_GALLERY", folder.to_str().unwrap())
                .replace("$MEDCAM_DATA", data.to_str().unwrap())
                .replace("maps/", workspace.at("maps/").to_str().unwrap())
        });
        let words: Vec<_> = words.collect();
        let of = |key: &str| words.iter().skip_while(|word| *word != key).nth(1).cloned();
        let card = Card::read(checkout().join(of("--card").unwrap())).unwrap();
        let label: usize = of("--label").unwrap().parse().unwrap();
        assert!(card.class_name(label).is_some(), "{line}: the card names no such class");
        // In 3D, one backend suffices: the 2D commands have run them all.
        if line.contains("segmentation3d") && of("--backend").unwrap() != "gcam" {
            continue;
        }
        let ran = ProcessOutput::of(program().current_dir(checkout()).args(&words)).succeeded();
        let overlay = ran.stdout.lines().find(|line| line.ends_with("_overlay.png"));
        assert!(overlay.is_some_and(|path| Path::new(path).is_file()), "{line}: {}", ran.stdout);
    }
}
