//! Draws maps over the images that they explain.

use std::path::PathBuf;

use ndarray::Axis;

use super::save::with_depth;
use super::{MapView, Names};
use crate::error::Result;
use crate::volumes::{self, Caption, Grid, Input, Style};

/// Draws each map over its image: see [`volumes::overlay`]. `images` has one image per sample of
/// the batch; with `numbered`, the sample's number is part of the file's name. `wrote` is called
/// with each file once it is written.
///
/// # Errors
///
/// If an image cannot be drawn (an array of several samples, say), or a file cannot be written.
pub fn save_pictures(
    maps: &[MapView<'_>],
    names: &Names<'_>,
    (images, numbered): (&[Input], bool),
    grid: &Grid,
    caption: &dyn Fn(&MapView<'_>) -> Caption,
    wrote: &mut dyn FnMut(PathBuf),
) -> Result<()> {
    for map in maps {
        let values = with_depth(map)?;
        let style = if map.signed { Style::Gray } else { Style::Heat };
        for (sample, (image, of_sample)) in images.iter().zip(values.outer_iter()).enumerate() {
            let on_grid = grid.restore(of_sample.index_axis(Axis(0), 0)).to_owned();
            let picture = volumes::overlay(image, &on_grid, &caption(map), style)?;
            let path = names.overlay(map.layer, map.target, numbered.then_some(sample));
            volumes::make_folder(names.folder_of(map.layer))?;
            volumes::write_png(&path, &picture.into())?;
            wrote(path);
        }
    }
    Ok(())
}

/// The caption of a map's picture: the class with its name, layer and method, and below them the
/// input's `stem`.
pub fn caption(
    map: &MapView<'_>,
    stem: &str,
    method: &str,
    class_name: &dyn Fn(usize) -> Option<String>,
) -> Caption {
    let class = match map.classes.first() {
        Some(&Some(index)) => match class_name(index) {
            Some(name) => format!("class {index} ({name})"),
            None => format!("class {index}"),
        },
        _ => "all outputs".to_owned(),
    };
    let target = map.target;
    let class = if target.starts_with("component") { format!("{class}, {target}") } else { class };
    Caption { lines: vec![format!("{class} · layer {} · {method}", map.layer), stem.to_owned()] }
}
