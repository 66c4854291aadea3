//! Reads back the files of a study.

use std::path::Path;

use calamine::{Data, Reader, Xlsx, open_workbook};
use image::Rgb;
use medcam::evaluation::{Evaluator, Metric, Scoring, Threshold};
use ndarray::array;

use super::means::study;

fn sheet(file: &Path, name: &str) -> Vec<Vec<Data>> {
    let mut workbook: Xlsx<_> = open_workbook(file).unwrap();
    assert_eq!(workbook.sheet_names(), ["Scores", "Mean Scores"]);
    workbook.worksheet_range(name).unwrap().rows().map(<[Data]>::to_vec).collect()
}

fn text(text: &str) -> Data {
    Data::String(text.to_owned())
}

#[test]
fn a_study_is_written_and_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("made/for it");
    let study = study(&["conv1", "conv2", "conv10"]);
    let files = study.dump(&folder).unwrap();
    let names = ["scores.xlsx", "scores.csv", "mean_scores.png"];
    assert_eq!(files, names.map(|name| folder.join(name)));

    let scores = sheet(&files[0], "Scores");
    assert_eq!(scores[0], ["evaluation", "layer", "class_label", "name", "metric"].map(text));
    assert_eq!(scores.len(), 13);
    let row = |score, layer, class, name, metric| {
        vec![score, text(layer), class, text(name), text(metric)]
    };
    let three = Data::Float(3.0);
    assert_eq!(scores[1], row(Data::Float(1.0), "conv2", three.clone(), "a", "ioa"));
    assert_eq!(scores[5], row(text("NaN"), "conv2", three.clone(), "b", "ioa"));
    assert_eq!(scores[7], row(Data::Float(1.0), "conv2", Data::Empty, "b", "ioa"));

    let means = sheet(&files[0], "Mean Scores");
    let head = ["mean_score", "layer", "class_label", "metric", "count", "undefined"];
    assert_eq!(means[0], head.map(text));
    assert_eq!(means.len(), 9);
    let row = |mean, layer, class, metric, counts: [f64; 2]| {
        let [count, undefined] = counts.map(Data::Float);
        vec![mean, text(layer), class, text(metric), count, undefined]
    };
    assert_eq!(means[1], row(text("NaN"), "conv1", three.clone(), "ioa", [0.0, 1.0]));
    assert_eq!(means[4], row(Data::Float(0.5), "conv2", three, "iou", [2.0, 0.0]));

    let table = std::fs::read_to_string(&files[1]).unwrap();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 13);
    assert_eq!(lines[..2], ["evaluation,layer,class_label,name,metric", "1,conv2,3,a,ioa"]);
    assert_eq!((lines[5], lines[7]), ("NaN,conv2,3,b,ioa", "1,conv2,,b,ioa"));

    // A second dump at another time replaces the files by the same bytes.
    let bytes: Vec<_> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let again = study.dump(&folder).unwrap();
    assert_eq!(again.iter().map(|file| std::fs::read(file).unwrap()).collect::<Vec<_>>(), bytes);
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 3);
}

#[test]
fn odd_names_stay_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let mut evaluator = Evaluator::new(Scoring::new(
        vec![Metric::function("mine, \"1\"", |_, _| f64::INFINITY)],
        Threshold::default(),
    ));
    let map = array![[[0.0, 1.0]]];
    let (layer, name) = ("=1+1", "a,b\n\"c\" <&> ä");
    evaluator.add(map.view(), map.view(), layer, None, name).unwrap();
    let files = evaluator.dump(folder.path()).unwrap();
    let expected = vec![text("inf"), text(layer), Data::Empty, text(name), text("mine, \"1\"")];
    assert_eq!(sheet(&files[0], "Scores")[1], expected);
    let table = std::fs::read_to_string(&files[1]).unwrap();
    let quoted = "inf,=1+1,,\"a,b\n\"\"c\"\" <&> ä\",\"mine, \"\"1\"\"\"\n";
    assert!(table.ends_with(quoted), "{table}");
}

/// The pixels of the plot's lines, which alone are coloured.
fn coloured(picture: &image::RgbImage) -> impl Iterator<Item = (u32, u32)> {
    let gray = |&Rgb([r, g, b]): &Rgb<u8>| r.abs_diff(g) < 40 && g.abs_diff(b) < 40;
    picture.enumerate_pixels().filter(move |(_, _, pixel)| !gray(pixel)).map(|(x, y, _)| (x, y))
}

#[test]
fn the_plot_shows_the_means() {
    let folder = tempfile::tempdir().unwrap();
    let plot = |shares: &[f64]| {
        let mut evaluator = Evaluator::new(Scoring::new(
            vec![Metric::function("share", |map, _| f64::from(map[[0, 0, 1]]))],
            Threshold::Otsu,
        ));
        for (layer, &share) in shares.iter().enumerate() {
            #[expect(clippy::cast_possible_truncation, reason = "a test")]
            let map = array![[[0.0, share as f32, 1.0]]];
            let mask = array![[[0.0, 1.0, 0.0]]];
            evaluator.add(map.view(), mask.view(), &format!("layer{layer}"), None, "a").unwrap();
        }
        let files = evaluator.dump(folder.path()).unwrap();
        image::open(&files[2]).unwrap().into_rgb8()
    };
    // The line falls from the upper left to the lower right.
    let falling = plot(&[0.9, 0.7, 0.5, 0.3, 0.1]);
    // Leaves out the legend, at the upper right.
    let (width, height) = falling.dimensions();
    let in_plot = |&(x, y): &(u32, u32)| x < 3 * width / 4 || y > height / 6;
    let points: Vec<_> = coloured(&falling).filter(in_plot).collect();
    let left = points.iter().min().unwrap();
    let right = points.iter().max().unwrap();
    assert!(left.1 + height / 3 < right.1 && left.0 + width / 2 < right.0, "{left:?} {right:?}");
    // Axes and letters are dark.
    assert!(falling.pixels().filter(|pixel| pixel.0 == [0; 3]).count() > 500);
    // The plot is wider with many layers.
    let many: Vec<f64> = (0..40).map(|layer| f64::from(layer) / 40.0).collect();
    assert!(plot(&many).width() > width + 500);
    // A single layer gives a dot in the plot and one in the legend.
    assert!(coloured(&plot(&[0.5])).count() > 60);
}

#[test]
fn what_cannot_be_written_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let empty = Evaluator::new(Scoring::new(vec![Metric::Ioa], Threshold::Otsu));
    let error = empty.dump(folder.path().join("none")).unwrap_err();
    assert!(error.is_input() && error.to_string().contains("no scores"), "{error}");
    assert!(!folder.path().join("none").exists());

    let file = folder.path().join("file");
    std::fs::write(&file, "text").unwrap();
    let error = study(&[]).dump(&file).unwrap_err();
    assert!(error.is_file() && error.to_string().contains("file: cannot make"), "{error}");

    // A folder has the file's name.
    std::fs::create_dir_all(folder.path().join("scores.xlsx")).unwrap();
    let error = study(&[]).dump(folder.path()).unwrap_err();
    assert!(error.is_file() && error.to_string().contains("scores.xlsx: cannot write"), "{error}");
}
