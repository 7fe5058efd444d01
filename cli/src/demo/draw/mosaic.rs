//! Sheets of maps: a block of tiles for each photograph, with names.

use super::canvas::{Canvas, GRAY, INK, Rect};
use super::number::short;
use super::text::Font;
use super::tone::Tone;
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
    /// Its name.
    pub name: &'a str,
    /// Its maps.
    pub tiles: Vec<Tile<'a>>,
}

/// A map.
pub struct Tile<'a> {
    /// Its name.
    pub name: &'a str,
    /// What is said below the name.
    pub caption: String,
    /// Its values.
    pub values: &'a [f32],
    /// How they are shown.
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
#[derive(Debug, Clone, PartialEq)]
struct Layout {
    /// Of a map as drawn.
    tile: (usize, usize),
    cell_width: usize,
    blocks_per_row: usize,
    tiles_per_row: usize,
    tile_rows: usize,
    width: usize,
    height: usize,
}

impl Layout {
    fn new(blocks: usize, tiles: usize, size: (usize, usize)) -> Self {
        let blocks_per_row = blocks.clamp(1, 2);
        let tiles_per_row = tiles.clamp(1, TILES_PER_ROW);
        let block_width = SHEET_WIDTH / blocks_per_row;
        let room = block_width / tiles_per_row - GAP;
        let tile = scaled(size, room);
        let cell_width = tile.0.max(MIN_CELL);
        let tile_rows = tiles.div_ceil(tiles_per_row).max(1);
        let block_rows = blocks.div_ceil(blocks_per_row).max(1);
        let mut layout = Self {
            tile,
            cell_width,
            blocks_per_row,
            tiles_per_row,
            tile_rows,
            width: 0,
            height: 0,
        };
        let (width, height) = layout.block_size();
        layout.width = 2 * MARGIN + blocks_per_row * (width + GUTTER) - GUTTER;
        layout.height = HEADER + block_rows * (height + GUTTER) - GUTTER + MARGIN;
        layout
    }

    fn block_size(&self) -> (usize, usize) {
        let width = self.tiles_per_row * (self.cell_width + GAP) - GAP;
        let height = HEADING + self.tile_rows * (self.tile.1 + LABEL + GAP) - GAP;
        (width, height)
    }

    /// The upper left corner of a block.
    fn block(&self, block: usize) -> (usize, usize) {
        let (width, height) = self.block_size();
        let (column, row) = (block % self.blocks_per_row, block / self.blocks_per_row);
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
    canvas.text(MARGIN, 18, sheet.title, Font::Title, INK);
    let note = Font::Small.fit(sheet.note, layout.width - 2 * MARGIN);
    canvas.text(MARGIN, 48, &note, Font::Small, GRAY);
    if let Some(tone) = sheet.scale {
        draw_scale(&mut canvas, tone);
    }
    for (b, block) in sheet.blocks.iter().enumerate() {
        let (x, y) = layout.block(b);
        let width = layout.block_size().0;
        let name = Font::SmallBold.fit(block.name, width);
        canvas.text(x, y + 10, &name, Font::SmallBold, INK);
        for (t, tile) in block.tiles.iter().enumerate() {
            draw_tile(
                &mut canvas,
                layout.tile(b, t),
                layout.cell_width,
                tile,
                sheet.size,
            );
        }
    }
    canvas
}

fn draw_tile(canvas: &mut Canvas, part: Rect, width: usize, tile: &Tile, size: (usize, usize)) {
    let shown = resample(tile.values, size, (part.width, part.height));
    for (i, value) in shown.into_iter().enumerate() {
        let (x, y) = (part.x + i % part.width, part.y + i / part.width);
        canvas.set(x, y, tile.tone.colour(value));
    }
    let name = Font::Small.fit(tile.name, width);
    let caption = Font::Small.fit(&tile.caption, width);
    canvas.text(part.x, part.bottom() + 4, &name, Font::Small, INK);
    canvas.text(part.x, part.bottom() + 21, &caption, Font::Small, GRAY);
}

/// The scale that all tiles share, at the upper right.
fn draw_scale(canvas: &mut Canvas, tone: Tone) {
    let (low, high) = tone.ends();
    let (low_text, high_text) = (short(low.into()), short(high.into()));
    let y = 20;
    let right = canvas.width() - MARGIN;
    canvas.text_left_of(right, y + 3, &high_text, Font::Small, GRAY);
    let bar = Rect {
        x: right.saturating_sub(Font::Small.width(&high_text) + 10 + 256),
        y,
        width: 256,
        height: 22,
    };
    for i in 0..bar.width {
        let value = low + (high - low) * i as f32 / (bar.width - 1) as f32;
        let line = Rect {
            x: bar.x + i,
            width: 1,
            ..bar
        };
        canvas.fill(line, tone.colour(value), 255);
    }
    outline(canvas, bar);
    canvas.text_left_of(
        bar.x.saturating_sub(10),
        y + 3,
        &low_text,
        Font::Small,
        GRAY,
    );
}

fn outline(canvas: &mut Canvas, part: Rect) {
    for x in part.x..part.right() {
        canvas.set(x, part.y, GRAY);
        canvas.set(x, part.bottom() - 1, GRAY);
    }
    for y in part.y..part.bottom() {
        canvas.set(part.x, y, GRAY);
        canvas.set(part.right() - 1, y, GRAY);
    }
}

/// Draws photographs side by side, two a row from three on.
pub fn photographs(photos: &[Photo]) -> Canvas {
    const LABEL: usize = 26;
    let Some(first) = photos.first() else {
        return Canvas::new(1, 1);
    };
    let columns = if photos.len() < 3 {
        photos.len()
    } else {
        photos.len().div_ceil(2).min(4)
    };
    let rows = photos.len().div_ceil(columns);
    let size = (first.width, first.height);
    let room = SHEET_WIDTH / columns - GAP;
    // At its own size where there is room: more would show nothing more.
    let shown = match size.0.max(size.1) {
        longest if longest > room => scaled(size, room),
        longest => scaled(size, longest.max(128)),
    };
    let cell = (shown.0.max(MIN_CELL), shown.1 + LABEL);
    let width = 2 * MARGIN + columns * (cell.0 + GAP) - GAP;
    let height = MARGIN + rows * (cell.1 + GAP) - GAP + MARGIN / 2;
    let mut canvas = Canvas::new(width, height);
    for (i, photo) in photos.iter().enumerate() {
        let x = MARGIN + i % columns * (cell.0 + GAP);
        let y = MARGIN + i / columns * (cell.1 + GAP);
        let [red, green, blue] = [0, 1, 2].map(|c| resample(photo.channel(c), size, shown));
        for (pixel, ((red, green), blue)) in red.into_iter().zip(green).zip(blue).enumerate() {
            let colour = [red, green, blue].map(|value| value.round().clamp(0.0, 255.0) as u8);
            canvas.set(x + pixel % shown.0, y + pixel / shown.0, colour);
        }
        let name = Font::Small.fit(&photo.name, cell.0);
        canvas.text(x, y + shown.1 + 5, &name, Font::Small, INK);
    }
    canvas
}

/// A map at another size: means of what falls into a pixel, or repeated values.
fn resample(values: &[f32], from: (usize, usize), to: (usize, usize)) -> Vec<f32> {
    let spans = |from: usize, to: usize| -> Vec<_> {
        (0..to)
            .map(|i| {
                let start = i * from / to;
                start..((i + 1) * from / to).max(start + 1)
            })
            .collect()
    };
    let (columns, rows) = (spans(from.0, to.0), spans(from.1, to.1));
    let mut result = Vec::with_capacity(to.0 * to.1);
    for rows in rows {
        for columns in &columns {
            let area = (rows.len() * columns.len()) as f64;
            let part = rows
                .clone()
                .flat_map(|y| &values[y * from.0..][columns.clone()]);
            let sum: f64 = part.map(|&value| f64::from(value)).sum();
            result.push((sum / area) as f32);
        }
    }
    result
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
        let sizes = [
            (288, 288),
            (1, 1),
            (4000, 3000),
            (1, 900),
            (900, 1),
            (50, 7),
        ];
        for size in sizes {
            for (blocks, tiles) in [(1, 32), (2, 32), (4, 32), (3, 5), (1, 1)] {
                let layout = Layout::new(blocks, tiles, size);
                let cells: Vec<Rect> = (0..blocks)
                    .flat_map(|b| (0..tiles).map(move |t| (b, t)))
                    .map(|(b, t)| {
                        let tile = layout.tile(b, t);
                        Rect {
                            width: layout.cell_width,
                            height: tile.height + LABEL,
                            ..tile
                        }
                    })
                    .collect();
                for (i, &cell) in cells.iter().enumerate() {
                    assert!(cell.right() <= layout.width && cell.bottom() <= layout.height);
                    assert!(cell.y >= HEADER + HEADING);
                    assert!(cells[..i].iter().all(|&other| !overlap(cell, other)));
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
        assert_eq!(
            resample(&[1.0, 2.0], (2, 1), (4, 2)),
            [1.0, 1.0, 2.0, 2.0, 1.0, 1.0, 2.0, 2.0]
        );
        assert_eq!(resample(&values, (4, 2), (4, 2)), values);
    }

    #[test]
    fn each_map_is_drawn_in_its_place() {
        let (low, high) = (vec![0.0; 6], vec![1.0; 6]);
        let tone = Tone::Gray {
            low: 0.0,
            high: 2.0,
        };
        let tiles = [&low, &high].map(|values| Tile {
            name: "map",
            caption: String::new(),
            values,
            tone,
        });
        let sheet = Sheet {
            title: "",
            note: "",
            scale: None,
            size: (3, 2),
            blocks: vec![Block {
                name: "photo",
                tiles: tiles.into(),
            }],
        };
        let canvas = mosaic(&sheet);
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
