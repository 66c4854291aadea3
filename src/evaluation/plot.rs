//! The plot of mean scores over layers.

use image::RgbImage;
use plotters::prelude::*;
use plotters::style::{FontTransform, register_font};

use super::evaluator::MeanScore;
use crate::error::{Error, Result};

/// Above this number, layers within other layers are left out: a reader could not tell more apart.
const MOST_LAYERS: usize = 40;
/// Pixels from one layer to the next in plots wider than `LEAST_WIDTH`.
const STEP: u32 = 40;
/// Height of the plot in pixels, without the layer names beneath it.
const HEIGHT: u32 = 680;
const LEAST_WIDTH: u32 = 700;
/// Width of the y axis' labels, in pixels.
const SCALE: u32 = 60;
/// Margin around the plot, in pixels.
const MARGIN: u32 = 20;
/// Width of the legend in pixels, without its text.
const LEGEND_FRAME: u32 = 70;
/// Longer names of layers are cut at their beginning, as their ends tell them apart.
const MOST_LETTERS: usize = 48;
const FONT: &str = "medcam";
const LETTER: u32 = 22;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Draws a line for each metric and class, in the order of the means.
pub(super) fn mean_scores(means: &[MeanScore]) -> Result<RgbImage> {
    let failed = |error: Failure| Error::unavailable("the plot cannot be drawn").because(error);
    register_font(FONT, FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT)
        .map_err(|_| Error::unavailable("the built-in font cannot be read"))?;
    draw(means).map_err(failed)
}

fn draw(means: &[MeanScore]) -> Result<RgbImage, Failure> {
    let layers = layers(means);
    let names: Vec<String> = layers.iter().map(|name| shortened(name)).collect();
    let (text, small) = ((FONT, LETTER).into_font(), (FONT, LETTER - 4).into_font());
    let lines = lines(means);
    let labels: Vec<String> = lines
        .iter()
        .map(|(metric, class)| {
            class.map_or((*metric).to_owned(), |k| format!("{metric}, class {k}"))
        })
        .collect();
    // Room for the longest layer name, which is written upwards beneath the plot, and for the
    // legend on its right.
    let longest = length_of_longest(&text, &names)?;
    let legend = length_of_longest(&small, &labels)? + LEGEND_FRAME;
    let count = u32::try_from(layers.len())?;
    let plot_width = (count * STEP).max(LEAST_WIDTH);
    let (width, height) = (plot_width + legend + SCALE + 2 * MARGIN, HEIGHT + longest);
    let right = f64::from(count) * f64::from(plot_width + legend) / f64::from(plot_width) - 0.5;

    let mut pixels = vec![0; (3 * width * height) as usize];
    {
        let root = BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area();
        root.fill(&WHITE)?;
        let finite = || means.iter().map(|mean| mean.mean).filter(|mean| mean.is_finite());
        // A metric of the user's own may exceed 0 to 1.
        let range = finite().fold(0.0, f64::min)..finite().fold(1.0, f64::max);
        let mut chart = ChartBuilder::on(&root)
            .caption("Mean scores over layers", (FONT, LETTER + 6).into_font())
            .margin(MARGIN)
            .y_label_area_size(SCALE)
            .x_label_area_size(longest + 16)
            .build_cartesian_2d(-0.5..right, range.clone())?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(0)
            .y_label_formatter(&|value| format!("{value:.1}"))
            .y_label_style(small.clone())
            .light_line_style(WHITE)
            .draw()?;
        let turned = text.clone().transform(FontTransform::Rotate270).color(&BLACK);
        for (place, name) in names.iter().enumerate() {
            let (x, y) = chart.backend_coord(&(place as f64, range.start));
            let (length, height) = text.box_size(name)?;
            let corner = (x - i32::try_from(height)? / 2, y + 10 + i32::try_from(length)?);
            root.draw_text(name, &turned, corner)?;
        }
        for (line, ((metric, class), label)) in lines.into_iter().zip(labels).enumerate() {
            let colour = Palette99::pick(line).to_rgba();
            let of_line = |mean: &&MeanScore| mean.metric == metric && mean.class == class;
            let value = |layer: &&str| {
                means
                    .iter()
                    .filter(of_line)
                    .find(|m| m.layer == *layer)
                    .map_or(f64::NAN, |m| m.mean)
            };
            let points: Vec<(f64, f64)> =
                layers.iter().enumerate().map(|(x, layer)| (x as f64, value(layer))).collect();
            // An undefined mean leaves a gap in the line.
            for run in points.split(|(_, value)| !value.is_finite()) {
                chart.draw_series(LineSeries::new(run.iter().copied(), colour.stroke_width(2)))?;
            }
            let dots = points.iter().filter(|(_, value)| value.is_finite());
            chart
                .draw_series(dots.map(|&point| Circle::new(point, 4, colour.filled())))?
                .label(label)
                .legend(move |(x, y)| Circle::new((x + 8, y), 5, colour.filled()));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .label_font(small)
            .draw()?;
        root.present()?;
    }
    RgbImage::from_raw(width, height, pixels).ok_or_else(|| "the picture is incomplete".into())
}

fn length_of_longest(font: &FontDesc<'_>, texts: &[String]) -> Result<u32, Failure> {
    let lengths = texts.iter().map(|text| font.box_size(text).map(|(length, _)| length));
    Ok(lengths.collect::<Result<Vec<_>, _>>()?.into_iter().max().unwrap_or(0))
}

/// Metric and class of each line, in the order of the means.
fn lines(means: &[MeanScore]) -> Vec<(&str, Option<usize>)> {
    let mut lines = Vec::new();
    for mean in means {
        let line = (mean.metric.as_str(), mean.class);
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines
}

/// The layers of the plot, in the order of the means.
fn layers(means: &[MeanScore]) -> Vec<&str> {
    let mut layers: Vec<&str> = means.iter().map(|mean| mean.layer.as_str()).collect();
    layers.dedup();
    if layers.len() <= MOST_LAYERS {
        return layers;
    }
    let within = |name: &str| {
        layers
            .iter()
            .any(|outer| name.strip_prefix(outer).is_some_and(|rest| rest.starts_with('.')))
    };
    let last = layers.len() - 1;
    let kept = |&(i, name): &(usize, &&str)| i == 0 || i == last || !within(name);
    layers.iter().enumerate().filter(kept).map(|(_, name)| *name).collect()
}

fn shortened(name: &str) -> String {
    let letters = name.chars().count();
    if letters <= MOST_LETTERS {
        return name.to_owned();
    }
    let tail: String = name.chars().skip(letters - MOST_LETTERS + 1).collect();
    format!("…{tail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(layer: &str) -> MeanScore {
        let (metric, layer) = ("ioa".to_owned(), layer.to_owned());
        MeanScore { metric, mean: 0.5, layer, class: None, count: 1, undefined: 0 }
    }

    #[test]
    fn many_layers_lose_those_within_others_but_for_the_first_and_the_last() {
        let names: Vec<String> = (0..20)
            .flat_map(|i| {
                // `conv10` begins with `conv1` but is not within it.
                [format!("conv{i}.a"), format!("conv{i}.b"), format!("conv{i}")]
            })
            .chain(["conv3.c".to_owned()])
            .collect();
        let means: Vec<_> = names.iter().flat_map(|name| [mean(name), mean(name)]).collect();
        let mut expected = vec!["conv0.a".to_owned()];
        expected.extend((0..20).map(|i| format!("conv{i}")));
        expected.push("conv3.c".to_owned());
        assert_eq!(layers(&means), expected);
        assert_eq!(layers(&means[..2 * MOST_LAYERS]).len(), MOST_LAYERS);
    }

    #[test]
    fn long_names_keep_their_end() {
        assert_eq!(shortened("conv1"), "conv1");
        let name = shortened(&format!("{}.äö", "a".repeat(60)));
        assert_eq!(name.chars().count(), MOST_LETTERS);
        assert!(name.starts_with("…a") && name.ends_with(".äö"));
    }
}
