//! Draws text, boxes and colours on a picture.

use ab_glyph::{Font, FontRef, PxScale, ScaleFont, point};
use image::{Rgb, RgbImage};

use crate::error::{Error, Result};
use crate::volumes::write::to_u8;

pub(super) const BACKGROUND: Rgb<u8> = Rgb([18, 18, 22]);
pub(super) const TEXT: Rgb<u8> = Rgb([238, 238, 238]);
pub(super) const FAINT: Rgb<u8> = Rgb([165, 165, 172]);
pub(super) const MARK: Rgb<u8> = Rgb([255, 255, 255]);

/// The opacity of the map where its value is 1.
const OPACITY: f32 = 0.72;

/// A picture, with the font for its text.
pub(super) struct Canvas {
    pub(super) picture: RgbImage,
    font: FontRef<'static>,
}

/// The point of a text that its x coordinate places.
#[derive(Clone, Copy)]
pub(super) enum Align {
    Left,
    Centre,
}

impl Canvas {
    pub(super) fn new(width: u32, height: u32) -> Result<Self> {
        let font =
            FontRef::try_from_slice(epaint_default_fonts::UBUNTU_LIGHT).map_err(|error| {
                Error::unavailable("the built-in font cannot be read").because(error)
            })?;
        Ok(Self { picture: RgbImage::from_pixel(width, height, BACKGROUND), font })
    }

    /// Blends `colour` into one pixel; positions outside the picture are ignored.
    fn blend(&mut self, x: i64, y: i64, colour: Rgb<u8>, opacity: f32) {
        let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y)) else { return };
        if let Some(pixel) = self.picture.get_pixel_mut_checked(x, y) {
            for (old, new) in pixel.0.iter_mut().zip(colour.0) {
                let mixed = f32::from(*old) * (1.0 - opacity) + f32::from(new) * opacity;
                *old = to_u8(mixed / 255.0);
            }
        }
    }

    pub(super) fn fill(&mut self, [x, y]: [i64; 2], [width, height]: [i64; 2], colour: Rgb<u8>) {
        for row in y..y + height {
            for column in x..x + width {
                self.blend(column, row, colour, 1.0);
            }
        }
    }

    /// The width of a text set in letters of `size` pixels.
    pub(super) fn width(&self, text: &str, size: f32) -> f32 {
        let font = self.font.as_scaled(PxScale::from(size));
        text.chars().map(|c| font.h_advance(font.glyph_id(c))).sum()
    }

    /// Writes one line; `y` is its upper edge.
    #[expect(clippy::cast_possible_truncation, reason = "positions within a picture")]
    pub(super) fn write(
        &mut self,
        text: &str,
        size: f32,
        [x, y]: [i64; 2],
        align: Align,
        colour: Rgb<u8>,
    ) {
        let width = self.width(text, size);
        let mut pen = x as f32
            - match align {
                Align::Left => 0.0,
                Align::Centre => width / 2.0,
            };
        let font = self.font.clone();
        let font = font.as_scaled(PxScale::from(size));
        let baseline = y as f32 + font.ascent();
        for letter in text.chars() {
            let mut glyph = font.scaled_glyph(letter);
            glyph.position = point(pen, baseline);
            pen += font.h_advance(glyph.id);
            let Some(outline) = font.outline_glyph(glyph) else { continue };
            let corner = outline.px_bounds().min;
            outline.draw(|column, row, coverage| {
                let (x, y) =
                    (corner.x as i64 + i64::from(column), corner.y as i64 + i64::from(row));
                // The font is light; the square root darkens its thin strokes enough to be legible.
                self.blend(x, y, colour, coverage.sqrt());
            });
        }
    }

    /// Writes one line, shrunk and then cut to at most `room` pixels.
    pub(super) fn write_within(
        &mut self,
        text: &str,
        size: f32,
        at: [i64; 2],
        room: f32,
        colour: Rgb<u8>,
    ) {
        let smallest = (size * 0.7).min(14.0_f32.max(size * 0.5));
        let natural = self.width(text, size);
        let size = if natural > room { (size * room / natural).max(smallest) } else { size };
        let mut text = text.to_owned();
        if self.width(&text, size) > room {
            while !text.is_empty() && self.width(&text, size) + self.width("…", size) > room {
                text.pop();
            }
            text.push('…');
        }
        self.write(&text, size, at, Align::Left, colour);
    }
}

/// The part of the Turbo colour map in use. Beyond it lies a dark red that would look weaker on
/// black than the orange below.
const TURBO_END: f64 = 0.92;

/// The heat colour of `map`, within `0..=1`, blended over the image's colour `base`.
pub(super) fn over(base: [f32; 3], map: f32) -> Rgb<u8> {
    let colour = colorous::TURBO.eval_continuous(f64::from(map) * TURBO_END);
    let opacity = OPACITY * map;
    let mut mixed = colour.into_array();
    for (channel, base) in mixed.iter_mut().zip(base) {
        *channel = to_u8(base * (1.0 - opacity) + f32::from(*channel) / 255.0 * opacity);
    }
    Rgb(mixed)
}
