//! Sheets of maps: a block of tiles for each photograph, with names.

use super::canvas::{Canvas, Font, GRAY, INK, Rect};
use super::scale::{Tone, short};
use crate::demo::photos::Photo;

/// A page of blocks.
pub struct Sheet<'a> {
    /// What is shown.
    pub title: &'a str,
    /// How to read it.
    pub note: &'a str,
    /// The scale of all tiles, if they share one.
    pub scale: Option<Tone>,
    /// Pixels per row and rows of every map.
    pub size: (usize, usize),
    /// One for each photograph.
    pub blocks: Vec<Block<'a>>,
}

/// The maps of a photograph.
pub struct Block<'a> {
    pub name: &'a str,
    pub tiles: Vec<Tile<'a>>,
}

/// A map.
pub struct Tile<'a> {
    pub name: &'a str,
    /// What is said below the name.
    pub caption: String,
    pub values: &'a [f32],
    /// How the values are shown.
    pub tone: Tone,
}

const MARGIN: usize = 28;
const HEADER: usize = 84;
const HEADING: usize = 34;
const LABEL: usize = 40;
const GAP: usize = 10;
/// Between blocks.
const GUTTER: usize = 36;
const TILES_PER_ROW: usize = 8;
/// About as wide as a sheet is made.
const SHEET_WIDTH: usize = 2464;
/// What the longest name and caption take.
const MIN_CELL: usize = 124;

/// Where everything is on a sheet.
struct Layout {
    /// Size of a map as drawn.
    tile: (usize, usize),
    cell_width: usize,
    /// Size of a block.
    block: (usize, usize),
    blocks_per_row: usize,
    tiles_per_row: usize,
    width: usize,
    height: usize,
}

impl Layout {
    fn new(blocks: usize, tiles: usize, size: (usize, usize)) -> Self {
        let blocks_per_row = blocks.clamp(1, 2);
        let tiles_per_row = tiles.clamp(1, TILES_PER_ROW);
        let tile = scaled(size, SHEET_WIDTH / blocks_per_row / tiles_per_row - GAP);
        let cell_width = tile.0.max(MIN_CELL);
        let tile_rows = tiles.div_ceil(tiles_per_row).max(1);
        let block_rows = blocks.div_ceil(blocks_per_row).max(1);
        let block = (
            tiles_per_row * (cell_width + GAP) - GAP,
            HEADING + tile_rows * (tile.1 + LABEL + GAP) - GAP,
        );
        Self {
            tile,
            cell_width,
            block,
            blocks_per_row,
            tiles_per_row,
            width: 2 * MARGIN + blocks_per_row * (block.0 + GUTTER) - GUTTER,
            height: HEADER + block_rows * (block.1 + GUTTER) - GUTTER + MARGIN,
        }
    }

    /// The upper left corner of a block.
    fn block(&self, block: usize) -> (usize, usize) {
        let (column, row) = (block % self.blocks_per_row, block / self.blocks_per_row);
        let (width, height) = self.block;
        (
            MARGIN + column * (width + GUTTER),
            HEADER + row * (height + GUTTER),
        )
    }

    /// Where a map is drawn; its label is below.
    fn tile(&self, block: usize, tile: usize) -> Rect {
        let (x, y) = self.block(block);
        let (column, row) = (tile % self.tiles_per_row, tile / self.tiles_per_row);
        Rect {
            x: x + column * (self.cell_width + GAP),
            y: y + HEADING + row * (self.tile.1 + LABEL + GAP),
            width: self.tile.0,
            height: self.tile.1,
        }
    }
}

/// The size of a picture that is drawn into a square: whole multiples of small ones.
fn scaled((width, height): (usize, usize), room: usize) -> (usize, usize) {
    let longest = width.max(height).max(1);
    if longest <= room {
        let factor = room / longest;
        return (width * factor, height * factor);
    }
    let scale = |length: usize| (length * room / longest).max(1);
    (scale(width), scale(height))
}

/// Draws a sheet.
pub fn mosaic(sheet: &Sheet) -> Canvas {
    let tiles = sheet.blocks.iter().map(|block| block.tiles.len()).max();
    let layout = Layout::new(sheet.blocks.len(), tiles.unwrap_or(0), sheet.size);
    let mut canvas = Canvas::new(layout.width, layout.height);
    canvas.heading(MARGIN, sheet.title, sheet.note);
    if let Some(tone) = sheet.scale {
        draw_scale(&mut canvas, layout.width - MARGIN, tone);
    }
    for (b, block) in sheet.blocks.iter().enumerate() {
        let (x, y) = layout.block(b);
        let name = Font::SMALL_BOLD.fit(block.name, layout.block.0);
        canvas.text(x, y + 10, &name, Font::SMALL_BOLD, INK);
        for (t, tile) in block.tiles.iter().enumerate() {
            let part = layout.tile(b, t);
            let shown = resample(tile.values, sheet.size, layout.tile);
            for (i, value) in shown.into_iter().enumerate() {
                let (x, y) = (part.x + i % part.width, part.y + i / part.width);
                canvas.blend(x, y, tile.tone.colour(value), 255);
            }
            let below = [(tile.name, 4, INK), (tile.caption.as_str(), 21, GRAY)];
            for (text, below, colour) in below {
                let text = Font::SMALL.fit(text, layout.cell_width);
                canvas.text(part.x, part.bottom() + below, &text, Font::SMALL, colour);
            }
        }
    }
    canvas
}

/// The scale that all tiles share, at the upper right.
fn draw_scale(canvas: &mut Canvas, right: usize, tone: Tone) {
    let (low, high) = tone.ends();
    let (low_text, high_text) = (short(low.into()), short(high.into()));
    canvas.text_left_of(right, 23, &high_text);
    let x = right.saturating_sub(Font::SMALL.width(&high_text) + 10 + 256);
    let bar = Rect::new(x, 20, 256, 22);
    for i in 0..bar.width {
        let value = low + (high - low) * i as f32 / (bar.width - 1) as f32;
        let line = Rect {
            x: x + i,
            width: 1,
            ..bar
        };
        canvas.fill(line, tone.colour(value), 255);
    }
    canvas.outline(bar, GRAY);
    canvas.text_left_of(x.saturating_sub(10), 23, &low_text);
}

/// Draws photographs side by side, two a row from three on.
pub fn photographs(photos: &[Photo]) -> Canvas {
    const LABEL: usize = 26;
    let Some(first) = photos.first() else {
        return Canvas::new(1, 1);
    };
    let columns = match photos.len() {
        few @ ..3 => few,
        many => many.div_ceil(2).min(4),
    };
    let size = (first.width, first.height);
    let room = SHEET_WIDTH / columns - GAP;
    // At its own size where there is room: more would show nothing more.
    let shown = match size.0.max(size.1) {
        longest if longest > room => scaled(size, room),
        longest => scaled(size, longest.max(128)),
    };
    let cell = (shown.0.max(MIN_CELL), shown.1 + LABEL);
    let mut canvas = Canvas::new(
        2 * MARGIN + columns * (cell.0 + GAP) - GAP,
        MARGIN + photos.len().div_ceil(columns) * (cell.1 + GAP) - GAP + MARGIN / 2,
    );
    for (i, photo) in photos.iter().enumerate() {
        let x = MARGIN + i % columns * (cell.0 + GAP);
        let y = MARGIN + i / columns * (cell.1 + GAP);
        let planes = [0, 1, 2].map(|c| resample(photo.channel(c), size, shown));
        for pixel in 0..shown.0 * shown.1 {
            let colour = planes.each_ref().map(|plane| plane[pixel].round() as u8);
            canvas.blend(x + pixel % shown.0, y + pixel / shown.0, colour, 255);
        }
        let name = Font::SMALL.fit(&photo.name, cell.0);
        canvas.text(x, y + shown.1 + 5, &name, Font::SMALL, INK);
    }
    canvas
}

/// A map at another size: means of what falls into a pixel, or repeated values.
fn resample(values: &[f32], from: (usize, usize), to: (usize, usize)) -> Vec<f32> {
    let span = |i: usize, from: usize, to: usize| {
        let start = i * from / to;
        start..((i + 1) * from / to).max(start + 1)
    };
    let pixel = |i: usize| {
        let (columns, rows) = (span(i % to.0, from.0, to.0), span(i / to.0, from.1, to.1));
        let area = (rows.len() * columns.len()) as f64;
        let part = rows.flat_map(|y| &values[y * from.0..][columns.clone()]);
        (part.map(|&value| f64::from(value)).sum::<f64>() / area) as f32
    };
    (0..to.0 * to.1).map(pixel).collect()
}

#[cfg(test)]
mod tests {
    use super::super::canvas::WHITE;
    use super::*;

    fn overlap(a: Rect, b: Rect) -> bool {
        a.x < b.right() && b.x < a.right() && a.y < b.bottom() && b.y < a.bottom()
    }

    #[test]
    fn tiles_and_labels_stay_on_the_sheet_and_apart() {
        for size in [
            (288, 288),
            (1, 1),
            (4000, 3000),
            (1, 900),
            (900, 1),
            (50, 7),
        ] {
            for (blocks, tiles) in [(1, 32), (2, 32), (4, 32), (3, 5), (1, 1)] {
                let layout = Layout::new(blocks, tiles, size);
                let mut cells: Vec<Rect> = Vec::new();
                for i in 0..blocks * tiles {
                    let tile = layout.tile(i / tiles, i % tiles);
                    let (width, height) = (layout.cell_width, tile.height + LABEL);
                    let cell = Rect {
                        width,
                        height,
                        ..tile
                    };
                    assert!(cell.right() <= layout.width && cell.bottom() <= layout.height);
                    assert!(cell.y >= HEADER + HEADING);
                    assert!(cells.iter().all(|&other| !overlap(cell, other)));
                    cells.push(cell);
                }
                assert!(layout.width < 2600, "{size:?}: {}", layout.width);
            }
        }
    }

    #[test]
    fn a_map_keeps_its_shape() {
        assert_eq!(scaled((288, 288), 140), (140, 140));
        assert_eq!(scaled((400, 200), 100), (100, 50));
        assert_eq!(scaled((3, 2), 140), (138, 92));
        assert_eq!(scaled((10_000, 1), 100), (100, 1));
    }

    #[test]
    fn resampling_averages_and_repeats() {
        let values = [0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0];
        assert_eq!(resample(&values, (4, 2), (2, 1)), [5.0, 9.0]);
        let line = [1.0, 1.0, 2.0, 2.0];
        assert_eq!(resample(&[1.0, 2.0], (2, 1), (4, 2)), [line, line].concat());
        assert_eq!(resample(&values, (4, 2), (4, 2)), values);
    }

    #[test]
    fn each_map_is_drawn_in_its_place() {
        let (low, high) = (0.0, 2.0);
        let tone = Tone::Gray { low, high };
        let values = [[0.0; 6], [1.0; 6]];
        let tiles = values.each_ref().map(|values| Tile {
            name: "map",
            caption: String::new(),
            values,
            tone,
        });
        let (name, tiles) = ("photo", tiles.into());
        let canvas = mosaic(&Sheet {
            title: "",
            note: "",
            scale: None,
            size: (3, 2),
            blocks: vec![Block { name, tiles }],
        });
        let layout = Layout::new(1, 2, (3, 2));
        for (tile, gray) in [(0, 0), (1, 128)] {
            let part = layout.tile(0, tile);
            for (x, y) in [(part.x, part.y), (part.right() - 1, part.bottom() - 1)] {
                assert_eq!(canvas.get(x, y), [gray; 3]);
            }
            assert_eq!(canvas.get(part.x, part.y - 1), WHITE);
        }
    }
}
