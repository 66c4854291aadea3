//! Networks and inputs as users bring them (`tests/wild/cases.py`): maps against autograd in
//! float64, refusals, warnings.

use medcam::volumes::{Volume, read_npy};
use ndarray::{ArrayD, Axis};
use serde::Deserialize;

use super::run::{ProcessOutput, Workspace, warnings};
use crate::common::{difference, folder};

#[derive(Deserialize)]
struct Manifest {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    input: String,
    label: String,
    options: String,
    /// The text of a model card; empty for none.
    card: String,
    /// Words of the error; empty if there is a map.
    refused: Vec<String>,
    warnings: Vec<String>,
    /// Whether two runs give the same output.
    repeats: bool,
    tolerance: f32,
    #[serde(default)]
    classes: Vec<u64>,
    map: Option<String>,
    output: Option<String>,
}

impl Case {
    fn run(&self, workspace: &Workspace) -> ProcessOutput {
        let at = |name: &str| folder("MEDCAM_WILD").join(name);
        let mut options = vec!["--label", &self.label, "--save-output"];
        options.extend(self.options.split_whitespace());
        let card = workspace.at("card.toml");
        if !self.card.is_empty() {
            std::fs::write(&card, &self.card).unwrap();
            options.extend(["--card", card.to_str().unwrap()]);
        }
        workspace.map_with(&at(&format!("{}.pt", self.name)), &[at(&self.input)], options)
    }

    /// The only map, and the model's output.
    fn results(&self, workspace: &Workspace) -> (ArrayD<f32>, ArrayD<f32>) {
        let report = workspace.report();
        let files: Vec<_> = report["inputs"][0]["outputs"].as_array().unwrap().iter().collect();
        let [map, output] = files[..] else { panic!("{}: {files:?}", self.name) };
        let (map, output) = (map.as_str().unwrap(), output.as_str().unwrap());
        let map = if map.ends_with(".npy") {
            read_npy(map).unwrap()
        } else {
            // The map of a volume of one slice is `(1, H, W, 1)`.
            Volume::read(map)
                .unwrap()
                .data
                .index_axis_move(Axis(3), 0)
                .insert_axis(Axis(0))
                .into_dyn()
        };
        (map, read_npy(output).unwrap())
    }

    fn check(&self) {
        let workspace = Workspace::new();
        let ran = self.run(&workspace);
        if !self.refused.is_empty() {
            let words: Vec<_> = self.refused.iter().map(String::as_str).collect();
            // The hint is given where a card can help.
            let is_expected = words.iter().any(|word| word.contains("model card"));
            assert_eq!(ran.stderr.contains("model card"), is_expected, "{}", ran.stderr);
            ran.failed(1, &words);
            return;
        }
        ran.succeeded();
        let report = workspace.report();
        let codes = warnings(&report, 0);
        let (map, output) = self.results(&workspace);
        if !self.repeats {
            assert!(self.warnings.iter().all(|code| codes.contains(&&**code)), "{codes:?}");
            return;
        }
        assert_eq!(codes, self.warnings, "{}", self.name);
        let at = |file: &Option<String>| folder("MEDCAM_WILD").join(file.as_ref().unwrap());
        assert_eq!(output, read_npy(at(&self.output)).unwrap(), "{}", self.name);
        let off = difference(&map, &read_npy(at(&self.map)).unwrap());
        assert!(off <= self.tolerance, "{}: off by {off}", self.name);
        let classes = report["inputs"][0]["explained"][0]["classes"].as_array().unwrap();
        let classes: Vec<_> =
            classes.iter().map(|class| class["index"].as_u64().unwrap()).collect();
        assert_eq!(classes, self.classes, "{}", self.name);
    }
}

fn cases() -> Vec<Case> {
    let file = folder("MEDCAM_WILD").join("manifest.json");
    serde_json::from_str::<Manifest>(&std::fs::read_to_string(file).unwrap()).unwrap().cases
}

/// Each case gives its expected map, or the expected error.
#[test]
fn what_people_bring_has_its_map_or_its_refusal() {
    let cases = cases();
    let (even, odd): (Vec<_>, Vec<_>) = cases.iter().enumerate().partition(|(i, _)| i % 2 == 0);
    std::thread::scope(|scope| {
        for part in [even, odd] {
            scope.spawn(move || part.into_iter().for_each(|(_, case)| case.check()));
        }
    });
}

/// The graph has dropout that evaluation mode cannot switch off: runs differ, and a warning says
/// so.
#[test]
fn two_runs_of_a_graph_in_training_mode_differ() {
    let cases = cases();
    let case = cases.iter().find(|case| case.name == "dropout_training").unwrap();
    let outputs = [0, 1].map(|_| {
        let workspace = Workspace::new();
        let ran = case.run(&workspace).succeeded();
        assert!(ran.stderr.contains("warning[TRAINING_MODE]"), "{}", ran.stderr);
        assert!(ran.stderr.contains("1 feature_dropout") && ran.stderr.contains("network.eval()"));
        case.results(&workspace).1
    });
    assert_ne!(outputs[0], outputs[1]);
}
