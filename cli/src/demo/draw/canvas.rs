//! A picture to draw on.

use anyhow::Result;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder};

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

/// A part of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rect {
    /// From the left.
    pub x: usize,
    /// From the top.
    pub y: usize,
    /// Pixels per row.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

impl Rect {
    /// First column right of it.
    pub fn right(&self) -> usize {
        self.x + self.width
    }

    /// First row below it.
    pub fn bottom(&self) -> usize {
        self.y + self.height
    }
}

/// Pixels. What is drawn beyond the edges is left out.
#[derive(Debug, Clone)]
pub struct Canvas {
    width: usize,
    height: usize,
    pixels: Vec<Colour>,
}

impl Canvas {
    /// White paper.
    pub fn new(width: usize, height: usize) -> Self {
        Self {
            width,
            height,
            pixels: vec![WHITE; width * height],
        }
    }

    /// Its width.
    pub fn width(&self) -> usize {
        self.width
    }

    /// A pixel.
    #[cfg(test)]
    pub fn get(&self, x: usize, y: usize) -> Colour {
        self.pixels[y * self.width + x]
    }

    /// Sets a pixel.
    pub fn set(&mut self, x: usize, y: usize, colour: Colour) {
        if x < self.width && y < self.height {
            self.pixels[y * self.width + x] = colour;
        }
    }

    /// Lays a colour over a pixel, 0 (nothing) to 255 (all of it).
    pub fn blend(&mut self, x: usize, y: usize, colour: Colour, cover: u8) {
        if x < self.width && y < self.height {
            let pixel = &mut self.pixels[y * self.width + x];
            let cover = u32::from(cover);
            for (old, new) in pixel.iter_mut().zip(colour) {
                let mixed = u32::from(*old) * (255 - cover) + u32::from(new) * cover;
                *old = ((mixed + 127) / 255) as u8;
            }
        }
    }

    /// Lays a colour over a part.
    pub fn fill(&mut self, part: Rect, colour: Colour, cover: u8) {
        for y in part.y..part.bottom().min(self.height) {
            for x in part.x..part.right().min(self.width) {
                self.blend(x, y, colour, cover);
            }
        }
    }

    /// The file of the picture, a PNG: gray if all of it is gray.
    pub fn png(&self) -> Result<Vec<u8>> {
        let gray = self.pixels.iter().all(|&[r, g, b]| r == g && g == b);
        let (bytes, kind) = if gray {
            let bytes = self.pixels.iter().map(|pixel| pixel[0]).collect();
            (bytes, ExtendedColorType::L8)
        } else {
            (self.pixels.concat(), ExtendedColorType::Rgb8)
        };
        let mut file = Vec::new();
        let encoder =
            PngEncoder::new_with_quality(&mut file, CompressionType::Fast, FilterType::Adaptive);
        encoder.write_image(
            &bytes,
            u32::try_from(self.width)?,
            u32::try_from(self.height)?,
            kind,
        )?;
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_drawn_comes_back_from_the_file() {
        let mut canvas = Canvas::new(5, 3);
        canvas.set(4, 2, [1, 2, 3]);
        let decoded = image::load_from_memory(&canvas.png().unwrap()).unwrap();
        assert!(matches!(decoded, image::DynamicImage::ImageRgb8(_)));
        let decoded = decoded.to_rgb8();
        assert_eq!(decoded.dimensions(), (5, 3));
        assert_eq!(decoded.get_pixel(4, 2).0, [1, 2, 3]);
        assert_eq!(decoded.get_pixel(0, 0).0, WHITE);
    }

    #[test]
    fn a_gray_picture_makes_a_gray_file() {
        let mut canvas = Canvas::new(2, 2);
        canvas.set(1, 1, [7; 3]);
        let decoded = image::load_from_memory(&canvas.png().unwrap()).unwrap();
        assert!(matches!(decoded, image::DynamicImage::ImageLuma8(_)));
        assert_eq!(decoded.to_luma8().get_pixel(1, 1).0, [7]);
    }

    #[test]
    fn nothing_is_drawn_beyond_the_edges() {
        let mut canvas = Canvas::new(2, 2);
        let part = Rect {
            x: 1,
            y: 1,
            width: 9,
            height: 9,
        };
        canvas.fill(part, [0; 3], 255);
        canvas.set(2, 0, [0; 3]);
        assert_eq!(canvas.pixels, [WHITE, WHITE, WHITE, [0; 3]]);
    }
}
