//! Arranges panels in rows, with the caption above and the colour bar beside them.

use image::RgbImage;
use image::imageops::{FilterType, resize};

use super::canvas::{Align, BACKGROUND, Canvas, FAINT, MARK, TEXT, over};
use super::panel::Panel;
use super::{Caption, Style};
use crate::error::Result;

/// Maximum width and height of a row of slices, in pixels.
const ROOM: [f64; 2] = [1200.0, 620.0];
/// Maximum height of a row of slices if there are several rows.
const ROOM_OF_ROWS: f64 = 340.0;
const MARGIN: i64 = 36;
/// Margin around every slice for its letters and marks.
const FRAME: i64 = 30;
/// Gap between two frames and between two rows; without it, neighbouring letters read as one word.
const GAP: i64 = 20;
/// Font size of panel titles. A cell is at least as wide as its title.
const TITLE: f32 = 17.0;
const HEAD: f32 = 27.0;
const LINE: f32 = 18.0;
const SMALL: f32 = 15.0;
const BAR: [i64; 2] = [22, 260];
const BAR_CELL: i64 = 120;
const LEAST_WIDTH: i64 = 900;

/// Draws the rows of panels with caption, colour bar and footer.
pub(super) fn compose(
    rows: &[Vec<Panel>],
    caption: &Caption,
    footer: &str,
    style: Style,
) -> Result<RgbImage> {
    let measure = Canvas::new(1, 1)?;
    let rows = sized(rows);
    let cell = |panel: &Panel, size: [u32; 2]| {
        let title = whole(measure.width(&panel.title, TITLE));
        (i64::from(size[0]) + 2 * FRAME).max(title) + GAP
    };
    let row_width = |row: &Row<'_>| row.iter().map(|&(panel, size)| cell(panel, size)).sum::<i64>();
    let row_height = |row: &Row<'_>| {
        let slice = row.iter().map(|(_, size)| i64::from(size[1])).max().unwrap_or(0);
        slice.max(BAR[1] / rows.len() as i64)
    };
    let widest = rows.iter().map(row_width).max().unwrap_or(0);
    let heights: Vec<i64> = rows.iter().map(row_height).collect();
    let width = (2 * MARGIN + widest + BAR_CELL).max(LEAST_WIDTH);
    let extra = caption.lines.len().saturating_sub(1);
    let caption_height = whole(HEAD * 1.5) + whole(LINE * 1.45) * extra as i64 + 8;
    let top = MARGIN + if caption.lines.is_empty() { 0 } else { caption_height };
    let title_height = whole(TITLE * 1.6) + FRAME;
    let between = GAP * (rows.len() as i64 - 1);
    let rows_height =
        heights.iter().map(|height| title_height + height + FRAME).sum::<i64>() + between;
    let footer_height = if footer.is_empty() { 0 } else { whole(SMALL * 1.6) };
    let height = top + rows_height + footer_height + MARGIN - 12;
    let mut canvas = Canvas::new(pixels(width), pixels(height))?;

    let mut y = MARGIN - 8;
    for (index, line) in caption.lines.iter().enumerate() {
        let (size, colour) = if index == 0 { (HEAD, TEXT) } else { (LINE, FAINT) };
        canvas.write_within(line, size, [MARGIN, y], (width - 2 * MARGIN) as f32, colour);
        y += whole(size * 1.45);
    }
    let spare = width - 2 * MARGIN - BAR_CELL - widest;
    let mut row_top = top;
    for (row, row_height) in rows.iter().zip(heights) {
        let mut x = MARGIN + spare / 2;
        for &(panel, size) in row {
            let centre = x + cell(panel, size) / 2;
            canvas.write(&panel.title, TITLE, [centre, row_top], Align::Centre, TEXT);
            let [w, h] = size.map(i64::from);
            let slice_top = row_top + title_height + (row_height - h) / 2;
            draw_panel(&mut canvas, panel, size, [centre - w / 2, slice_top]);
            x += cell(panel, size);
        }
        row_top += title_height + row_height + FRAME + GAP;
    }
    let bar_top = top + title_height + (rows_height - title_height - FRAME - BAR[1]) / 2;
    draw_bar(&mut canvas, [width - MARGIN - spare / 2 - BAR_CELL + 30, bar_top], style);
    canvas.write(footer, SMALL, [MARGIN, height - MARGIN - 6], Align::Left, FAINT);
    Ok(canvas.picture)
}

/// Panels with the width and height of their slices, in pixels.
type Row<'a> = Vec<(&'a Panel, [u32; 2])>;

/// Sizes all slices to the same number of pixels per millimetre.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within ROOM")]
fn sized(rows: &[Vec<Panel>]) -> Vec<Row<'_>> {
    let millimetres = |panel: &Panel| {
        let [dx, dy] = panel.pixel_mm;
        [f64::from(panel.base.width()) * dx, f64::from(panel.base.height()) * dy]
    };
    let width = |row: &Vec<Panel>| row.iter().map(|panel| millimetres(panel)[0]).sum::<f64>();
    let widest = rows.iter().map(width).fold(0.0, f64::max);
    let highest = rows.iter().flatten().map(|panel| millimetres(panel)[1]).fold(0.0, f64::max);
    let room = if rows.len() == 1 { ROOM[1] } else { ROOM_OF_ROWS };
    let scale = (ROOM[0] / widest).min(room / highest);
    let size = |panel| millimetres(panel).map(|mm| (mm * scale).round().max(1.0) as u32);
    rows.iter().map(|row| row.iter().map(|panel| (panel, size(panel))).collect()).collect()
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
        // The letters lie outside the marks, which may be centred as well.
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

/// Draws the bar: the heat colours over middle gray, or the gray scale.
fn draw_bar(canvas: &mut Canvas, [x, y]: [i64; 2], style: Style) {
    let [width, height] = BAR;
    let labels: &[&str] = match style {
        Style::Heat => &["1", "0.75", "0.5", "0.25", "0"],
        Style::Gray => &["+", "0", "\u{2212}"],
    };
    for row in 0..height {
        let value = 1.0 - row as f32 / (height - 1) as f32;
        let colour = match style {
            Style::Heat => over([0.5; 3], value),
            Style::Gray => over([value; 3], 0.0),
        };
        canvas.fill([x, y + row], [width, 1], colour);
    }
    for (tick, label) in labels.iter().enumerate() {
        let at = y + tick as i64 * (height - 1) / (labels.len() as i64 - 1);
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
