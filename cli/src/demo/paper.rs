//! Paper that plotters draws on: pixels, and text from a font that is in the program (Noto Sans Mono, SIL Open Font
//! License).

use anyhow::Result;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{Pixel as _, RgbImage, Rgba};
use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};
use plotters::coord::Shift;
use plotters::prelude::{DrawingArea, IntoDrawingArea as _, WHITE};
use plotters_backend::text_anchor::{HPos, VPos};
use plotters_backend::{
    BackendColor, BackendCoord, BackendTextStyle, DrawingBackend, DrawingErrorKind, FontStyle,
};
use std::convert::Infallible;

pub type Area<'a> = DrawingArea<Paper<'a>, Shift>;

/// Pixels. What is drawn beyond the edges is left out.
pub struct Paper<'a>(&'a mut RgbImage);

/// Draws a page: the bytes of a PNG.
pub fn page(
    width: usize,
    height: usize,
    draw: impl FnOnce(&Area) -> Result<()>,
) -> Result<Vec<u8>> {
    let mut pixels = RgbImage::new(width as u32, height as u32);
    let area = Paper(&mut pixels).into_drawing_area();
    area.fill(&WHITE)?;
    draw(&area)?;
    drop(area);
    let mut file = Vec::new();
    let (fast, adaptive) = (CompressionType::Fast, FilterType::Adaptive);
    pixels.write_with_encoder(PngEncoder::new_with_quality(&mut file, fast, adaptive))?;
    Ok(file)
}

/// As much of a text in the small font as is at most `width` wide, with `..` where something is missing.
pub fn fit(text: &str, width: usize) -> String {
    let most = width / get_raster_width(FontWeight::Regular, RasterHeight::Size16);
    match text.chars().count() <= most {
        true => text.to_owned(),
        false => text
            .chars()
            .take(most.saturating_sub(2))
            .chain("..".chars())
            .collect(),
    }
}

/// The font has two weights and two heights.
fn font(style: &impl BackendTextStyle) -> (FontWeight, RasterHeight) {
    let weight = match style.style() {
        FontStyle::Bold => FontWeight::Bold,
        _ => FontWeight::Regular,
    };
    match style.size() > 16.0 {
        true => (weight, RasterHeight::Size24),
        false => (weight, RasterHeight::Size16),
    }
}

type Outcome = Result<(), DrawingErrorKind<Infallible>>;

impl DrawingBackend for Paper<'_> {
    type ErrorType = Infallible;

    fn get_size(&self) -> (u32, u32) {
        self.0.dimensions()
    }

    fn ensure_prepared(&mut self) -> Outcome {
        Ok(())
    }

    fn present(&mut self) -> Outcome {
        Ok(())
    }

    fn draw_pixel(&mut self, (x, y): BackendCoord, color: BackendColor) -> Outcome {
        // Left of the paper and above it there are no pixels either: these become large.
        if let Some(pixel) = self.0.get_pixel_mut_checked(x as u32, y as u32) {
            let ((r, g, b), alpha) = (color.rgb, (255.0 * color.alpha).round() as u8);
            let mut mixed = pixel.to_rgba();
            mixed.blend(&Rgba([r, g, b, alpha]));
            *pixel = mixed.to_rgb();
        }
        Ok(())
    }

    fn estimate_text_size<S: BackendTextStyle>(
        &self,
        text: &str,
        style: &S,
    ) -> Result<(u32, u32), DrawingErrorKind<Infallible>> {
        let (weight, height) = font(style);
        let width = text.chars().count() * get_raster_width(weight, height);
        Ok((width as u32, height.val() as u32))
    }

    /// What the font lacks becomes a question mark.
    fn draw_text<S: BackendTextStyle>(
        &mut self,
        text: &str,
        style: &S,
        at: BackendCoord,
    ) -> Outcome {
        let (weight, size) = font(style);
        let (width, height) = self.estimate_text_size(text, style)?;
        let mut left = at.0
            - match style.anchor().h_pos {
                HPos::Left => 0,
                HPos::Center => width as i32 / 2,
                HPos::Right => width as i32,
            };
        let top = at.1
            - match style.anchor().v_pos {
                VPos::Top => 0,
                VPos::Center => height as i32 / 2,
                VPos::Bottom => height as i32,
            };
        let raster = |c| get_raster(c, weight, size).or_else(|| get_raster('?', weight, size));
        for glyph in text.chars().filter_map(raster) {
            for (y, row) in (top..).zip(glyph.rows()) {
                for (x, &cover) in (left..).zip(row) {
                    self.draw_pixel((x, y), style.color().mix(f64::from(cover) / 255.0))?;
                }
            }
            left += glyph.width() as i32;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;
    use plotters::prelude::{BLACK, Color as _, IntoFont as _, Rectangle, TextStyle};

    fn pixels(width: usize, height: usize, draw: impl FnOnce(&Area) -> Result<()>) -> RgbImage {
        let file = page(width, height, draw).unwrap();
        image::load_from_memory(&file).unwrap().to_rgb8()
    }

    #[test]
    fn nothing_is_drawn_beyond_the_edges() {
        let pixels = pixels(3, 2, |area| {
            Ok(area.draw(&Rectangle::new([(1, 1), (9, 9)], BLACK.filled()))?)
        });
        let dark: Vec<bool> = pixels.pixels().map(|pixel| pixel.0 == [0; 3]).collect();
        assert_eq!(dark, [false, false, false, false, true, true]);
    }

    fn ink(text: &str) -> usize {
        let style = TextStyle::from(("mono", 16).into_font());
        let pixels = pixels(200, 30, |area| Ok(area.draw_text(text, &style, (0, 0))?));
        pixels
            .pixels()
            .filter(|pixel| **pixel != Rgb([255; 3]))
            .count()
    }

    #[test]
    fn every_character_that_the_demo_writes_is_in_the_font() {
        for character in "±°²·×-+.,:%()/azAZ09".chars() {
            let raster = get_raster(character, FontWeight::Regular, RasterHeight::Size16);
            assert!(raster.is_some(), "{character}");
        }
        assert_eq!(ink(" "), 0);
        assert!(ink("M") > 10);
        assert_eq!(ink("漢"), ink("?"));
    }

    #[test]
    fn long_texts_are_cut() {
        let width = 6 * get_raster_width(FontWeight::Regular, RasterHeight::Size16);
        assert_eq!(fit("abcdef", width), "abcdef");
        assert_eq!(fit("abcdefg", width), "abcd..");
        assert_eq!(fit("abc", 0), "..");
    }
}
