//! Panels in a row, caption above, colour bar beside.

use image::RgbImage;
use image::imageops::{FilterType, resize};

use super::Caption;
use super::canvas::{Align, BACKGROUND, Canvas, FAINT, MARK, TEXT, over};
use super::panel::Panel;
use crate::error::Result;

/// The slices together are at most this wide and high, in pixels.
const ROOM: [f64; 2] = [1200.0, 620.0];
const MARGIN: i64 = 36;
/// Around every slice, for its letters and marks.
const FRAME: i64 = 30;
/// Between two slices' frames, so that their letters are not read together.
const GAP: i64 = 20;
/// A cell is at least as wide as its title.
const TITLE: f32 = 17.0;
const HEAD: f32 = 27.0;
const LINE: f32 = 18.0;
const SMALL: f32 = 15.0;
const BAR: [i64; 2] = [22, 260];
const BAR_CELL: i64 = 120;
const LEAST_WIDTH: i64 = 900;

/// Draws everything.
pub(super) fn compose(panels: &[Panel], caption: &Caption, footer: &str) -> Result<RgbImage> {
    let measure = Canvas::new(1, 1)?;
    let sizes = pixel_sizes(panels);
    let cells: Vec<i64> = panels
        .iter()
        .zip(&sizes)
        .map(|(panel, size)| {
            let title = whole(measure.width(&panel.title, TITLE));
            (i64::from(size[0]) + 2 * FRAME).max(title) + GAP
        })
        .collect();
    let row_height = sizes.iter().map(|size| i64::from(size[1])).max().unwrap_or(0).max(BAR[1]);
    let width = (2 * MARGIN + cells.iter().sum::<i64>() + BAR_CELL).max(LEAST_WIDTH);
    let extra = caption.lines.len().saturating_sub(1);
    let caption_height = whole(HEAD * 1.5) + whole(LINE * 1.45) * extra as i64 + 8;
    let top = MARGIN + if caption.lines.is_empty() { 0 } else { caption_height };
    let row = top + whole(TITLE * 1.6) + FRAME;
    let footer_height = if footer.is_empty() { 0 } else { whole(SMALL * 1.6) };
    let height = row + row_height + FRAME + footer_height + MARGIN - 12;
    let mut canvas = Canvas::new(pixels(width), pixels(height))?;

    let mut y = MARGIN - 8;
    for (index, line) in caption.lines.iter().enumerate() {
        let (size, colour) = if index == 0 { (HEAD, TEXT) } else { (LINE, FAINT) };
        canvas.write_within(line, size, [MARGIN, y], (width - 2 * MARGIN) as f32, colour);
        y += whole(size * 1.45);
    }
    let spare = width - 2 * MARGIN - BAR_CELL - cells.iter().sum::<i64>();
    let mut x = MARGIN + spare / 2;
    for ((panel, size), cell) in panels.iter().zip(sizes).zip(cells) {
        let centre = x + cell / 2;
        canvas.write(&panel.title, TITLE, [centre, top], Align::Centre, TEXT);
        let [w, h] = size.map(i64::from);
        draw_panel(&mut canvas, panel, size, [centre - w / 2, row + (row_height - h) / 2]);
        x += cell;
    }
    let bar_top = row + (row_height - BAR[1]) / 2;
    draw_bar(&mut canvas, [width - MARGIN - spare / 2 - BAR_CELL + 30, bar_top]);
    canvas.write(footer, SMALL, [MARGIN, height - MARGIN - 6], Align::Left, FAINT);
    Ok(canvas.picture)
}

/// Width and height of each slice on the picture, all at the same scale.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within ROOM")]
fn pixel_sizes(panels: &[Panel]) -> Vec<[u32; 2]> {
    let millimetres: Vec<[f64; 2]> = panels
        .iter()
        .map(|panel| {
            let [dx, dy] = panel.pixel_mm;
            [f64::from(panel.base.width()) * dx, f64::from(panel.base.height()) * dy]
        })
        .collect();
    let total: f64 = millimetres.iter().map(|size| size[0]).sum();
    let highest = millimetres.iter().map(|size| size[1]).fold(0.0, f64::max);
    let scale = (ROOM[0] / total).min(ROOM[1] / highest);
    millimetres.iter().map(|size| size.map(|mm| (mm * scale).round().max(1.0) as u32)).collect()
}

fn draw_panel(canvas: &mut Canvas, panel: &Panel, [width, height]: [u32; 2], [x, y]: [i64; 2]) {
    let base = resize(&panel.base, width, height, FilterType::Triangle);
    let map = panel.map.as_ref().map(|map| resize(map, width, height, FilterType::Triangle));
    for (column, row, pixel) in base.enumerate_pixels() {
        let value = map.as_ref().map_or(0.0, |map| map.get_pixel(column, row).0[0]);
        let colour = over(pixel.0, value.clamp(0.0, 1.0));
        canvas.fill([x + i64::from(column), y + i64::from(row)], [1, 1], colour);
    }
    let (w, h) = (i64::from(width), i64::from(height));
    if let Some([cross_x, cross_y]) = panel.cross {
        let at = |position: f64, extent: u32, shown: i64| {
            whole_f64(position / f64::from(extent) * shown as f64)
        };
        let cx = x + at(cross_x, panel.base.width(), w);
        let cy = y + at(cross_y, panel.base.height(), h);
        for start in [y - 9, y + h + 1] {
            canvas.fill([cx - 1, start], [2, 8], MARK);
        }
        for start in [x - 9, x + w + 1] {
            canvas.fill([start, cy - 1], [8, 2], MARK);
        }
    }
    if let Some([left, right, upper, lower]) = panel.sides {
        let middle = y + h / 2 - whole(LINE * 0.6);
        let centre = x + w / 2;
        // Beside the marks, which may stand in the middle.
        for (letter, at) in [
            (left, [x - 20, middle]),
            (right, [x + w + 20, middle]),
            (upper, [centre, y - 29]),
            (lower, [centre, y + h + 8]),
        ] {
            canvas.write(&letter.to_string(), LINE, at, Align::Centre, TEXT);
        }
    }
}

/// The colours from 0 to 1 as they look over middle gray.
fn draw_bar(canvas: &mut Canvas, [x, y]: [i64; 2]) {
    let [width, height] = BAR;
    for row in 0..height {
        let value = 1.0 - row as f32 / (height - 1) as f32;
        canvas.fill([x, y + row], [width, 1], over([0.5; 3], value));
    }
    for (tick, label) in ["1", "0.75", "0.5", "0.25", "0"].into_iter().enumerate() {
        let at = y + tick as i64 * (height - 1) / 4;
        canvas.fill([x + width, at - 1], [6, 2], TEXT);
        canvas.write(label, SMALL, [x + width + 12, at - 9], Align::Left, TEXT);
    }
    canvas.fill([x - 1, y - 1], [1, height + 2], BACKGROUND);
    canvas.write("attention", SMALL, [x, y - 30], Align::Left, TEXT);
}

#[expect(clippy::cast_possible_truncation, reason = "lengths on a picture")]
fn whole(length: f32) -> i64 {
    length.round() as i64
}

#[expect(clippy::cast_possible_truncation, reason = "lengths on a picture")]
fn whole_f64(length: f64) -> i64 {
    length.round() as i64
}

fn pixels(length: i64) -> u32 {
    u32::try_from(length).unwrap_or(1)
}
