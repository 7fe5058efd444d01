//! A picture to draw on, and text from a font that is in the program (Noto Sans Mono, SIL Open Font License).

use anyhow::Result;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{DynamicImage, Rgb, RgbImage};
use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};

/// Red, green, blue.
pub type Colour = [u8; 3];

/// The paper.
pub const WHITE: Colour = [255; 3];
/// Text.
pub const INK: Colour = [32, 33, 36];
/// Text of less weight.
pub const GRAY: Colour = [105, 108, 114];
/// Lines behind the data.
pub const FAINT: Colour = [226, 228, 232];

/// A part of a picture, from its upper left corner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rect {
    pub x: usize,
    pub y: usize,
    pub width: usize,
    pub height: usize,
}

impl Rect {
    pub fn new(x: usize, y: usize, width: usize, height: usize) -> Self {
        Self {
            x,
            y,
            width,
            height,
        }
    }

    /// First column right of it.
    pub fn right(&self) -> usize {
        self.x + self.width
    }

    /// First row below it.
    pub fn bottom(&self) -> usize {
        self.y + self.height
    }
}

/// Weight and size of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Font(FontWeight, RasterHeight);

impl Font {
    /// Captions.
    pub const SMALL: Font = Font(FontWeight::Regular, RasterHeight::Size16);
    /// Names.
    pub const SMALL_BOLD: Font = Font(FontWeight::Bold, RasterHeight::Size16);
    /// Headings.
    pub const TITLE: Font = Font(FontWeight::Bold, RasterHeight::Size24);

    /// Width of a text.
    pub fn width(self, text: &str) -> usize {
        text.chars().count() * get_raster_width(self.0, self.1)
    }

    /// As much of a text as is at most `width` wide, with `..` where something is missing.
    pub fn fit(self, text: &str, width: usize) -> String {
        if self.width(text) <= width {
            return text.to_owned();
        }
        let most = (width / self.width("m")).saturating_sub(2);
        text.chars().take(most).chain("..".chars()).collect()
    }
}

/// Pixels. What is drawn beyond the edges is left out.
#[derive(Debug, Clone)]
pub struct Canvas(RgbImage);

impl Canvas {
    /// White paper.
    pub fn new(width: usize, height: usize) -> Self {
        Self(RgbImage::from_pixel(
            width as u32,
            height as u32,
            Rgb(WHITE),
        ))
    }

    #[cfg(test)]
    pub fn get(&self, x: usize, y: usize) -> Colour {
        self.0.get_pixel(x as u32, y as u32).0
    }

    /// Lays a colour over a pixel, 0 (nothing) to 255 (all of it).
    pub fn blend(&mut self, x: usize, y: usize, colour: Colour, cover: u8) {
        if let Some(Rgb(pixel)) = self.0.get_pixel_mut_checked(x as u32, y as u32) {
            for (old, new) in pixel.iter_mut().zip(colour) {
                let cover = u32::from(cover);
                let mixed = u32::from(*old) * (255 - cover) + u32::from(new) * cover;
                *old = ((mixed + 127) / 255) as u8;
            }
        }
    }

    /// Lays a colour over a part.
    pub fn fill(&mut self, part: Rect, colour: Colour, cover: u8) {
        for y in part.y..part.bottom().min(self.0.height() as usize) {
            for x in part.x..part.right().min(self.0.width() as usize) {
                self.blend(x, y, colour, cover);
            }
        }
    }

    /// Draws the edges of a part.
    pub fn outline(&mut self, part: Rect, colour: Colour) {
        let (row, column) = (Rect { height: 1, ..part }, Rect { width: 1, ..part });
        let (y, x) = (part.bottom() - 1, part.right() - 1);
        for edge in [row, Rect { y, ..row }, column, Rect { x, ..column }] {
            self.fill(edge, colour, 255);
        }
    }

    /// Writes a text to the right of and below a point. What the font lacks becomes a question mark.
    pub fn text(
        &mut self,
        x: usize,
        y: usize,
        text: &str,
        Font(weight, size): Font,
        colour: Colour,
    ) {
        let mut left = x;
        let raster = |c| get_raster(c, weight, size).or_else(|| get_raster('?', weight, size));
        for glyph in text.chars().filter_map(raster) {
            for (dy, row) in glyph.rows().enumerate() {
                for (dx, &cover) in row.iter().enumerate() {
                    self.blend(left + dx, y + dy, colour, cover);
                }
            }
            left += glyph.width();
        }
    }

    /// Writes a small text that ends at `right`.
    pub fn text_left_of(&mut self, right: usize, y: usize, text: &str) {
        let x = right.saturating_sub(Font::SMALL.width(text));
        self.text(x, y, text, Font::SMALL, GRAY);
    }

    /// Writes what a page shows, and below it how to read that.
    pub fn heading(&mut self, margin: usize, title: &str, note: &str) {
        self.text(margin, 18, title, Font::TITLE, INK);
        let note = Font::SMALL.fit(note, self.0.width() as usize - 2 * margin);
        self.text(margin, 48, &note, Font::SMALL, GRAY);
    }

    /// The file of the picture, a PNG: gray if all of it is gray.
    pub fn png(self) -> Result<Vec<u8>> {
        let gray = self.0.pixels().all(|&Rgb([r, g, b])| r == g && g == b);
        let image = DynamicImage::from(self.0);
        let image = if gray { image.to_luma8().into() } else { image };
        let mut file = Vec::new();
        let (fast, adaptive) = (CompressionType::Fast, FilterType::Adaptive);
        image.write_with_encoder(PngEncoder::new_with_quality(&mut file, fast, adaptive))?;
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_drawn_comes_back_from_the_file() {
        let mut canvas = Canvas::new(5, 3);
        canvas.blend(4, 2, [1, 2, 3], 255);
        let decoded = image::load_from_memory(&canvas.png().unwrap()).unwrap();
        assert!(matches!(decoded, DynamicImage::ImageRgb8(_)));
        let decoded = decoded.to_rgb8();
        assert_eq!(decoded.dimensions(), (5, 3));
        assert_eq!(decoded.get_pixel(4, 2).0, [1, 2, 3]);
        assert_eq!(decoded.get_pixel(0, 0).0, WHITE);
    }

    #[test]
    fn a_gray_picture_makes_a_gray_file() {
        let mut canvas = Canvas::new(2, 2);
        canvas.blend(1, 1, [7; 3], 255);
        let decoded = image::load_from_memory(&canvas.png().unwrap()).unwrap();
        assert!(matches!(decoded, DynamicImage::ImageLuma8(_)));
        assert_eq!(decoded.to_luma8().get_pixel(1, 1).0, [7]);
    }

    #[test]
    fn nothing_is_drawn_beyond_the_edges() {
        let mut canvas = Canvas::new(2, 2);
        canvas.fill(Rect::new(1, 1, 9, 9), [0; 3], 255);
        canvas.blend(2, 0, [0; 3], 255);
        let pixels: Vec<Colour> = canvas.0.pixels().map(|pixel| pixel.0).collect();
        assert_eq!(pixels, [WHITE, WHITE, WHITE, [0; 3]]);
    }

    fn ink(text: &str) -> usize {
        let mut canvas = Canvas::new(200, 30);
        canvas.text(0, 0, text, Font::SMALL, INK);
        canvas.0.pixels().filter(|pixel| pixel.0 != WHITE).count()
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
        let width = Font::SMALL.width("abcdef");
        assert_eq!(Font::SMALL.fit("abcdef", width), "abcdef");
        assert_eq!(Font::SMALL.fit("abcdefg", width), "abcd..");
        assert_eq!(Font::SMALL.fit("abc", 0), "..");
    }
}
