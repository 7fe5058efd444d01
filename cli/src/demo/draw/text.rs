//! Text from a font that is in the program (Noto Sans Mono, SIL Open Font License).

use super::canvas::{Canvas, Colour};
use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};

/// A size and weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Font {
    /// Captions.
    Small,
    /// Names.
    SmallBold,
    /// Headings.
    Title,
}

impl Font {
    fn parts(self) -> (FontWeight, RasterHeight) {
        match self {
            Font::Small => (FontWeight::Regular, RasterHeight::Size16),
            Font::SmallBold => (FontWeight::Bold, RasterHeight::Size16),
            Font::Title => (FontWeight::Bold, RasterHeight::Size24),
        }
    }

    /// Width of a text.
    pub fn width(self, text: &str) -> usize {
        let (weight, size) = self.parts();
        text.chars().count() * get_raster_width(weight, size)
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

impl Canvas {
    /// Writes a text to the right of and below a point.
    pub fn text(&mut self, x: usize, y: usize, text: &str, font: Font, colour: Colour) {
        let (weight, size) = font.parts();
        let mut left = x;
        for character in text.chars() {
            // The font has Latin letters; others become question marks.
            let glyph =
                get_raster(character, weight, size).or_else(|| get_raster('?', weight, size));
            let Some(glyph) = glyph else { continue };
            for (dy, row) in glyph.rows().enumerate() {
                for (dx, &cover) in row.iter().enumerate() {
                    self.blend(left + dx, y + dy, colour, cover);
                }
            }
            left += glyph.width();
        }
    }

    /// Writes a text that ends at `right`.
    pub fn text_left_of(&mut self, right: usize, y: usize, text: &str, font: Font, colour: Colour) {
        self.text(
            right.saturating_sub(font.width(text)),
            y,
            text,
            font,
            colour,
        );
    }

    /// Writes a text centred on `x`.
    pub fn text_centred(&mut self, x: usize, y: usize, text: &str, font: Font, colour: Colour) {
        let left = x.saturating_sub(font.width(text) / 2);
        self.text(left, y, text, font, colour);
    }
}

#[cfg(test)]
mod tests {
    use super::super::canvas::{INK, WHITE};
    use super::*;

    fn ink(text: &str) -> usize {
        let mut canvas = Canvas::new(200, 30);
        canvas.text(0, 0, text, Font::Small, INK);
        let pixels = (0..30).flat_map(|y| (0..200).map(move |x| (x, y)));
        pixels.filter(|&(x, y)| canvas.get(x, y) != WHITE).count()
    }

    #[test]
    fn every_character_that_the_demo_writes_is_in_the_font() {
        for character in "±°²·×-+.,:%()/azAZ09".chars() {
            let (weight, size) = Font::Small.parts();
            assert!(get_raster(character, weight, size).is_some(), "{character}");
        }
        assert_eq!(ink(" "), 0);
        assert!(ink("M") > 10);
    }

    #[test]
    fn what_the_font_lacks_is_shown_as_a_question_mark() {
        assert_eq!(ink("漢"), ink("?"));
    }

    #[test]
    fn long_texts_are_cut() {
        let width = Font::Small.width("abcdef");
        assert_eq!(Font::Small.fit("abcdef", width), "abcdef");
        assert_eq!(Font::Small.fit("abcdefg", width), "abcd..");
        assert_eq!(Font::Small.fit("abc", 0), "..");
    }
}
