//! Options of `inject` apart from the method: files, evaluation, replacing the output, switching
//! off.

use std::sync::Arc;

use medcam::evaluation::{Evaluator, Masks, Metric, Scoring, Threshold};
use medcam::tch::nn::{self, Module};
use medcam::tch::{self, Tensor};
use medcam::volumes::{self, Image, Input};
use medcam::{
    Backend, Call, Facts, Guide, LayerChoice, Network, Options, Result, Tape, Target, inject,
    to_array,
};
use ndarray::{Array3, ArrayD, Axis};
use ndarray_npy::NpzReader;

use crate::common::{Case, Manifest, difference, model, tensor};
use crate::injected;

fn with_case(name: &str, run: impl Fn(&Case)) {
    let manifest = Manifest::read();
    let case = manifest.cases().find(|case| case.network.name == name).unwrap();
    run(&case);
}

#[test]
fn an_archive_holds_the_maps_of_all_forwards() {
    with_case("plain2d", |case| {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("maps.npz");
        let options = Options::default()
            .targets([Target::Class(0), Target::Class(1)])
            .layers(LayerChoice::Names(vec!["features.4".into(), "features".into()]))
            .save_archive(&file);
        let mut injected = injected(case.file, options);
        for _ in 0..2 {
            let _output = injected.forward(&tensor(&case.network.input)).unwrap();
        }
        assert!(!file.exists(), "complete only after dump");
        assert_eq!(injected.dump().unwrap(), std::slice::from_ref(&file));
        let mut archive = NpzReader::new(std::fs::File::open(&file).unwrap()).unwrap();
        assert_eq!(archive.names().unwrap().len(), 8);
        let name = "000001/features.4/class1.npy";
        let map: ArrayD<f32> = archive.by_name(name).unwrap();
        assert_eq!(map, injected.attention_maps()[2].to_array().unwrap());
        assert_eq!(injected.attention_maps()[2].target(), "class1");
    });
}

#[test]
fn maps_are_saved_with_an_overlay_of_the_raw_input() {
    with_case("plain2d", |case| {
        let folder = tempfile::tempdir().unwrap();
        let mut injected = injected(case.file, Options::default().save_maps(folder.path()));
        let images: Vec<_> =
            (0..3).map(|_| Input::Image(Image::new(Array3::from_elem((3, 66, 94), 0.5)))).collect();
        let input = tensor(&case.network.input);
        let _output = injected.forward_with(&input, &Call::default().raw_input(&images)).unwrap();
        let saved = volumes::read_npy(folder.path().join("features/000000.npy")).unwrap();
        assert_eq!(saved, injected.attention_maps()[0].to_array().unwrap());
        assert!(folder.path().join("features/000000_2_overlay.png").exists());

        let error = injected.forward_with(&input, &Call::default().raw_input(&images[..2]));
        assert!(error.unwrap_err().to_string().contains("2 image(s) for a batch of 3"));
    });
}

#[test]
fn one_call_may_have_a_target_of_its_own() {
    with_case("plain2d", |case| {
        let input = tensor(&case.network.input);
        let mut injected = injected(case.file, Options::default().target(Target::Class(0)));
        let call = Call::default().target(Target::Class(2));
        let _output = injected.forward_with(&input, &call).unwrap();
        let of_call = injected.attention_maps()[0].clone();
        assert_eq!(of_call.classes(), [Some(2); 3]);
        let _output = injected.forward(&input).unwrap();
        assert_eq!(injected.attention_maps()[0].classes(), [Some(0); 3]);
        injected.set_target(Target::Class(2));
        let _output = injected.forward(&input).unwrap();
        assert_eq!(
            difference(
                &injected.attention_maps()[0].to_array().unwrap(),
                &of_call.to_array().unwrap()
            ),
            0.0
        );
    });
}

#[test]
fn the_map_replaces_the_output_or_comes_with_it() {
    with_case("unet3d", |case| {
        let input = tensor(&case.network.input);
        let own = model(case.file).forward(&input).unwrap();
        let mut injected = injected(case.file, Options::default().replace(true));
        let map = injected.forward(&input).unwrap();
        assert_eq!(to_array(&map).unwrap(), injected.attention_maps()[0].to_array().unwrap());
        injected.replace_output(false);
        assert_eq!(injected.forward(&input).unwrap(), own);
        let (output, map) = injected.forward_with_attention(&input).unwrap();
        assert_eq!(output, own);
        assert_eq!(to_array(&map).unwrap(), injected.attention_maps()[0].to_array().unwrap());

        let options = Options::default().replace(true).layers(LayerChoice::Full);
        let error = crate::injected(case.file, options).forward(&input).unwrap_err().to_string();
        assert!(error.contains("single map") && error.contains("Choose one layer"), "{error}");
    });
}

#[test]
fn maps_can_be_switched_off_and_on() {
    with_case("plain2d", |case| {
        let input = tensor(&case.network.input);
        let own = model(case.file).forward(&input).unwrap();
        let mut injected = injected(case.file, Options::default().enabled(false));
        assert_eq!(injected.forward(&input).unwrap(), own);
        assert!(injected.attention_maps().is_empty());
        injected.enable();
        assert_eq!(injected.forward(&input).unwrap(), own);
        assert_eq!(injected.attention_maps().len(), 1);
        injected.disable();
        let _output = injected.forward(&input).unwrap();
        assert!(injected.attention_maps().is_empty());
    });
}

#[test]
fn a_test_run_lists_the_layers() {
    with_case("plain2d", |case| {
        let folder = tempfile::tempdir().unwrap();
        let mut injected = injected(case.file, Options::default());
        let input = tensor(&case.network.input);
        let names = injected.test_run(&input, Some(folder.path())).unwrap();
        assert!(names.contains(&"features.4".to_owned()));
        let text = std::fs::read_to_string(folder.path().join("registered_layers.txt")).unwrap();
        assert_eq!(text.lines().collect::<Vec<_>>(), names);
        let all = injected.layer_names(false);
        assert!(names.iter().all(|name| all.contains(name)));
        let mut reversed = injected.layer_names(true);
        reversed.reverse();
        assert_eq!(all, reversed);
    });
}

fn scoring() -> Scoring {
    let metrics = vec![Metric::WeightedIoa, Metric::Iou];
    Scoring::new(metrics, Threshold::Otsu).masks(Masks::Binary)
}

#[test]
fn maps_are_evaluated_with_the_mask_of_the_call() {
    with_case("unet3d", |case| {
        let input = tensor(&case.network.input);
        let folder = tempfile::tempdir().unwrap();
        let options = Options::default()
            .layers(LayerChoice::Full)
            .evaluate(scoring())
            .save_scores(folder.path());
        let mut injected = injected(case.file, options);
        let mut mask = ArrayD::zeros(vec![3, 1, 16, 20, 24]);
        mask.slice_axis_mut(Axis(2), (4..12).into()).fill(1.0);
        for _ in 0..2 {
            let call = Call::default().mask(&mask);
            let _output = injected.forward_with(&input, &call).unwrap();
        }
        let layers = injected.attention_maps().len();
        assert_eq!(injected.scores().len(), layers * 3 * 2);
        assert_eq!(injected.evaluator().unwrap().scores().len(), 2 * layers * 3 * 2);
        let map = &injected.attention_maps()[0];
        let alone = Evaluator::new(scoring())
            .compute(
                map.values().unwrap().index_axis(Axis(0), 1).index_axis(Axis(0), 0),
                mask.index_axis(Axis(0), 1).index_axis(Axis(0), 0).into_dimensionality().unwrap(),
            )
            .unwrap();
        let scores = injected.scores();
        assert_eq!((scores[2].score, scores[3].score), (alone[0], alone[1]));
        let files = injected.dump().unwrap();
        assert!(files.contains(&folder.path().join("scores.xlsx")), "{files:?}");
    });
}

#[test]
fn what_cannot_be_evaluated_is_refused_in_words() {
    with_case("unet3d", |case| {
        let input = tensor(&case.network.input);
        let refused = |options: Options, mask: Option<&ArrayD<f32>>, words: &str| {
            let mut injected = injected(case.file, options);
            let call = mask.map_or_else(Call::default, |mask| Call::default().mask(mask));
            let error = injected.forward_with(&input, &call).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        let evaluating = || Options::default().evaluate(scoring());
        let of = |shape: &[usize], value: f32| ArrayD::from_elem(shape, value);
        refused(evaluating(), None, "Call::mask");
        refused(Options::default(), Some(&of(&[3, 1, 16, 20, 24], 1.0)), "Options::evaluate");
        refused(evaluating(), Some(&of(&[2, 1, 16, 20, 24], 1.0)), "must be (3, 1, D, H, W)");
        refused(evaluating(), Some(&of(&[3, 1, 16, 20], 1.0)), "must be (3, 1, D, H, W)");
        refused(evaluating(), Some(&of(&[3, 1, 16, 20, 24], 0.5)), "mask");
        refused(evaluating(), Some(&of(&[3, 1, 16, 20, 24], f32::NAN)), "mask");
        // A tensor that is no batch, with a mask of as many axes.
        let call = of(&[2], 1.0);
        let no_batch = Tensor::ones([2_i64].as_slice(), (tch::Kind::Float, tch::Device::Cpu));
        let mut injected = inject(model(case.file), evaluating()).unwrap();
        let error = injected.forward_with(&no_batch, &Call::default().mask(&call)).unwrap_err();
        assert!(error.is_input(), "{error}");
        let error = "mean_iou".parse::<Metric>().unwrap_err().to_string();
        assert!(error.contains("wioa"), "{error}");
        assert!("1.5".parse::<Threshold>().is_err());
    });
}

#[test]
fn options_that_contradict_each_other_are_refused_at_once() {
    with_case("plain2d", |case| {
        let refused = |options: Options, words: &str| {
            let error = inject(model(case.file), options).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        refused(Options::default().targets([]), "none was given");
        refused(Options::default().save_scores("x"), "without something to measure");
        let guided = Options::default().backend(Backend::GUIDED_BACKPROPAGATION);
        refused(guided.fuse(medcam::Fuse::Max), "not one of each layer");
        refused(Options::default().save_archive("/nowhere/to/be/found/x.npz"), "x.npz");
    });
}

/// The network has no ReLU; all its activations are LeakyReLU.
#[test]
fn a_guided_method_says_where_nothing_is_guided() {
    with_case("softmax2d", |case| {
        let run = |guide| {
            let options = Options::default().backend(Backend::GUIDED_GRAD_CAM).guide(guide);
            let mut injected = inject(model(case.file), options).unwrap();
            injected.forward(&tensor(&case.network.input)).map(|_| ())
        };
        let error = run(Guide::Relu).unwrap_err().to_string();
        assert!(error.contains("3 leaky_relu"), "{error}");
        run(Guide::All).unwrap();
    });
}

/// A network whose facts name activations that `Guide::Relu` leaves unguided.
struct Mixed(nn::Conv2D);

impl Network for Mixed {
    fn forward_tapped(&self, input: &Tensor, tape: &mut Tape) -> Result<Tensor> {
        let x = tape.relu(&self.0.forward(input))?;
        let x = tape.tap("features", &x)?;
        Ok(x.gelu("none").mean_dim([2_i64, 3].as_slice(), false, None))
    }

    fn facts(&self) -> Facts {
        let mut facts = Facts::default();
        facts.activations.extend([("relu".to_owned(), 1), ("gelu".to_owned(), 1)]);
        facts
    }
}

fn mixed() -> Mixed {
    let store = nn::VarStore::new(tch::Device::Cpu);
    let config = nn::ConvConfig { padding: 1, ..Default::default() };
    Mixed(nn::conv2d(store.root(), 1, 4, 3, config))
}

fn codes(guide: Guide, target: Target) -> Vec<String> {
    let options = Options::default().backend(Backend::GUIDED_GRAD_CAM).guide(guide).target(target);
    let mut injected = inject(mixed(), options).unwrap();
    let input = Tensor::rand([1, 1, 9, 8], (tch::Kind::Float, tch::Device::Cpu));
    let _output = injected.forward(&input).unwrap();
    injected.warnings().iter().map(|warning| warning.code.to_string()).collect()
}

#[test]
fn activations_that_were_not_guided_are_warned_of() {
    assert!(codes(Guide::Relu, Target::Class(0)).contains(&"PARTLY_GUIDED".to_owned()));
    assert!(!codes(Guide::All, Target::Class(0)).contains(&"PARTLY_GUIDED".to_owned()));
}

#[test]
fn a_gradient_of_zero_is_told_from_a_map_of_zero() {
    let nothing = Target::Function(Arc::new(|y: &Tensor| y * 0.0));
    let warned = codes(Guide::All, nothing);
    assert!(
        warned.contains(&"ZERO_GRADIENT".to_owned()) || warned.contains(&"CONSTANT_MAP".to_owned()),
        "{warned:?}"
    );

    let options = Options::default().target(Target::Function(Arc::new(|y: &Tensor| y * 0.0)));
    let mut injected = inject(mixed(), options).unwrap();
    let input = Tensor::rand([1, 1, 9, 8], (tch::Kind::Float, tch::Device::Cpu));
    let _output = injected.forward(&input).unwrap();
    assert_eq!(injected.warnings()[0].code, "ZERO_GRADIENT");

    // Every output falls as the activations grow, so all weights are negative.
    let options = Options::default().target(Target::Function(Arc::new(|y: &Tensor| -y)));
    let mut injected = inject(mixed(), options).unwrap();
    let _output = injected.forward(&(input + 10.0)).unwrap();
    let codes: Vec<_> =
        injected.warnings().iter().map(|warning| warning.code.to_string()).collect();
    assert_eq!(codes, ["ZERO_MAP"]);
}
