//! Histograms: a panel for each group, its channels over one another, on common axes.

use super::canvas::{Canvas, Colour, FAINT, GRAY, INK, Rect};
use super::number::{short, step};
use super::text::Font;

/// Counts of values in bins of equal width.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Histogram {
    bins: Vec<u64>,
    /// Values outside of the range, and NaN.
    outside: u64,
}

impl Histogram {
    /// Counts values from `low` to `high`, both included.
    fn new(values: impl Iterator<Item = f32>, (low, high): (f64, f64), bins: usize) -> Self {
        let mut histogram = Self {
            bins: vec![0; bins],
            outside: 0,
        };
        let scale = bins as f64 / (high - low);
        for value in values {
            let value = f64::from(value);
            if (low..=high).contains(&value) {
                // Rounding may take the upper end to one bin too many; an empty range gives NaN,
                // which is bin 0.
                let bin = ((value - low) * scale) as usize;
                histogram.bins[bin.min(bins - 1)] += 1;
            } else {
                histogram.outside += 1;
            }
        }
        histogram
    }

    fn total(&self) -> u64 {
        self.outside + self.bins.iter().sum::<u64>()
    }

    /// The share of all values in each bin.
    fn shares(&self) -> Vec<f64> {
        let total = self.total().max(1) as f64;
        self.bins
            .iter()
            .map(|&count| count as f64 / total)
            .collect()
    }
}

/// A group.
pub struct Panel<'a> {
    /// Its name.
    pub title: String,
    /// Its channels: name, what is said of it, and its values, a slice for each photograph.
    pub channels: Vec<(&'a str, String, Vec<&'a [f32]>)>,
}

/// A page of panels.
pub struct Plot<'a> {
    /// What is shown.
    pub title: &'a str,
    /// How to read it.
    pub note: &'a str,
    /// The range of all panels.
    pub range: (f64, f64),
    /// One for each group.
    pub panels: Vec<Panel<'a>>,
}

/// Distinct, also for the colour-blind (Okabe and Ito).
const COLOURS: [Colour; 7] = [
    [0, 114, 178],
    [213, 94, 0],
    [0, 158, 115],
    [204, 121, 167],
    [86, 180, 233],
    [230, 159, 0],
    [90, 90, 90],
];

const BINS: usize = 120;
const MARGIN: usize = 28;
const HEADER: usize = 88;
/// Left of the first panel of a row: what the vertical axis says.
const LEFT: usize = 56;
const PLOT_HEIGHT: usize = 220;
const GAP: usize = 30;
const TITLE: usize = 26;
const LINE: usize = 18;
const TICKS: usize = 30;
/// Least share that is drawn; shares are on a logarithmic scale up to 1.
const LEAST: f64 = 1e-5;
/// Width of a column of names.
const NAMES: usize = 340;

/// Sizes that depend on how many panels there are.
#[derive(Debug, Clone, Copy)]
struct Layout {
    columns: usize,
    rows: usize,
    bin_width: usize,
    /// Lines of names above each plot.
    lines: usize,
}

impl Layout {
    fn new(panels: usize, channels: usize) -> Self {
        // Few panels are wide, so that pages are about as wide as one another.
        let (columns, bin_width) = match panels {
            0..=1 => (1, 11),
            2 => (2, 6),
            3 => (3, 4),
            4..=16 => (4, 3),
            _ => (6, 3),
        };
        let mut layout = Self {
            columns,
            rows: panels.div_ceil(columns),
            bin_width,
            lines: 0,
        };
        layout.lines = channels.div_ceil(layout.name_columns());
        layout
    }

    fn plot_width(self) -> usize {
        BINS * self.bin_width
    }

    fn name_columns(self) -> usize {
        (self.plot_width() / NAMES).max(1)
    }

    fn panel_height(self) -> usize {
        TITLE + self.lines * LINE + 8 + PLOT_HEIGHT + TICKS
    }

    fn size(self) -> (usize, usize) {
        (
            2 * MARGIN + LEFT + self.columns * (self.plot_width() + GAP) - GAP,
            HEADER + self.rows * (self.panel_height() + GAP) - GAP + MARGIN,
        )
    }

    /// The upper left corner of a panel.
    fn panel(self, index: usize) -> (usize, usize) {
        let (column, row) = (index % self.columns, index / self.columns);
        (
            MARGIN + LEFT + column * (self.plot_width() + GAP),
            HEADER + row * (self.panel_height() + GAP),
        )
    }

    /// Where the data of a panel are drawn.
    fn plot(self, index: usize) -> Rect {
        let (x, y) = self.panel(index);
        Rect {
            x,
            y: y + TITLE + self.lines * LINE + 8,
            width: self.plot_width(),
            height: PLOT_HEIGHT,
        }
    }
}

/// The colour of a channel: after the first seven, the same ones darker and paler.
fn colour(channel: usize) -> Colour {
    let colour = COLOURS[channel % COLOURS.len()];
    let towards = |end: u16, share: u16| {
        colour.map(|part| ((u16::from(part) * (10 - share) + end * share) / 10) as u8)
    };
    match channel / COLOURS.len() % 4 {
        0 => colour,
        1 => towards(0, 5),
        2 => towards(255, 5),
        _ => towards(0, 7),
    }
}

/// Draws a page.
pub fn histograms(plot: &Plot) -> Canvas {
    let channels = plot.panels.iter().map(|panel| panel.channels.len());
    let layout = Layout::new(plot.panels.len(), channels.max().unwrap_or(0));
    let (width, height) = layout.size();
    let mut canvas = Canvas::new(width, height);
    canvas.text(MARGIN, 18, plot.title, Font::Title, INK);
    let note = Font::Small.fit(plot.note, width - 2 * MARGIN);
    canvas.text(MARGIN, 48, &note, Font::Small, GRAY);
    for (i, panel) in plot.panels.iter().enumerate() {
        let (x, y) = layout.panel(i);
        let title = Font::SmallBold.fit(&panel.title, layout.plot_width());
        canvas.text(x, y, &title, Font::SmallBold, INK);
        draw_names(&mut canvas, layout, (x, y + TITLE), panel);
        let part = layout.plot(i);
        draw_axes(&mut canvas, part, plot.range, i % layout.columns == 0);
        draw_channels(&mut canvas, part, plot.range, panel);
    }
    canvas
}

fn draw_names(canvas: &mut Canvas, layout: Layout, (left, top): (usize, usize), panel: &Panel) {
    let columns = layout.name_columns();
    let pitch = (layout.plot_width() + GAP) / columns;
    let width = pitch - GAP;
    for (i, (name, caption, _)) in panel.channels.iter().enumerate() {
        let x = left + i / layout.lines * pitch;
        let y = top + i % layout.lines * LINE;
        let key = Rect {
            x,
            y: y + 4,
            width: 11,
            height: 11,
        };
        canvas.fill(key, colour(i), 255);
        canvas.text(x + 18, y, name, Font::Small, INK);
        let room = width.saturating_sub(28 + Font::Small.width(name));
        let caption = Font::Small.fit(caption, room);
        canvas.text_left_of(x + width, y, &caption, Font::Small, GRAY);
    }
}

/// Height above the axis of a share of all values.
fn height(share: f64) -> usize {
    let position = (share / LEAST).log10() / (1.0 / LEAST).log10();
    // NaN and what is below the axis become 0.
    (position.clamp(0.0, 1.0) * PLOT_HEIGHT as f64).round() as usize
}

fn draw_axes(canvas: &mut Canvas, part: Rect, (low, high): (f64, f64), labelled: bool) {
    let step = step(high - low, 5.0);
    let mut tick = (low / step).ceil();
    // Bounded by the ticks that a plot has room for, whatever the range.
    for _ in 0..12 {
        let value = tick * step;
        if value > high {
            break;
        }
        let share = if high > low {
            (value - low) / (high - low)
        } else {
            0.5
        };
        let x = part.x + (share * (part.width - 1) as f64).round() as usize;
        let line = Rect {
            x,
            width: 1,
            ..part
        };
        canvas.fill(line, FAINT, 255);
        canvas.text_centred(x, part.bottom() + 6, &short(value), Font::Small, GRAY);
        tick += 1.0;
    }
    let shares = [1.0, 0.1, 1e-2, 1e-3, 1e-4];
    for (share, label) in shares
        .into_iter()
        .zip(["100%", "10%", "1%", "0.1%", "0.01%"])
    {
        let y = part.bottom() - height(share);
        let line = Rect {
            y,
            height: 1,
            ..part
        };
        canvas.fill(line, FAINT, 255);
        if labelled {
            canvas.text_left_of(part.x - 8, y.saturating_sub(8), label, Font::Small, GRAY);
        }
    }
    let axis = Rect {
        y: part.bottom(),
        height: 1,
        ..part
    };
    canvas.fill(axis, GRAY, 255);
}

fn draw_channels(canvas: &mut Canvas, part: Rect, range: (f64, f64), panel: &Panel) {
    let width = part.width / BINS;
    let tops: Vec<Vec<usize>> = panel
        .channels
        .iter()
        .map(|(_, _, values)| {
            let values = values.iter().flat_map(|values| values.iter().copied());
            let shares = Histogram::new(values, range, BINS).shares();
            shares.into_iter().map(height).collect()
        })
        .collect();
    // Many areas over one another would be mud.
    for (i, tops) in tops.iter().enumerate().take_while(|_| tops.len() <= 4) {
        for (bin, &top) in tops.iter().enumerate() {
            let column = Rect {
                x: part.x + bin * width,
                y: part.bottom() - top,
                width,
                height: top,
            };
            canvas.fill(column, colour(i), 16);
        }
    }
    // Outlines over all areas, so that none is tinted by another.
    for (i, tops) in tops.iter().enumerate() {
        let colour = colour(i);
        // Open at the ends: values may go on beyond them.
        let mut before = tops.first().copied().unwrap_or(0);
        for (bin, &top) in tops.iter().enumerate() {
            let x = part.x + bin * width;
            outline(canvas, part, (x, width), (top, top), colour);
            outline(canvas, part, (x, 2), (before, top), colour);
            before = top;
        }
    }
}

/// A bar from one height to another, two pixels thick at least; nothing on the axis itself.
fn outline(
    canvas: &mut Canvas,
    part: Rect,
    (x, width): (usize, usize),
    (from, to): (usize, usize),
    colour: Colour,
) {
    let (low, high) = (from.min(to), from.max(to));
    if high > 0 {
        let bar = Rect {
            x,
            y: part.bottom() - high,
            width,
            height: (high - low).max(2).min(high),
        };
        canvas.fill(bar, colour, 255);
    }
}

#[cfg(test)]
mod tests {
    use super::super::canvas::WHITE;
    use super::*;

    #[test]
    fn every_value_is_counted_once() {
        let values: Vec<f32> = (0..1000).map(|i| (i as f32 * 0.37).sin() * 5.0).collect();
        let histogram = Histogram::new(values.iter().copied(), (-4.0, 4.0), 17);
        assert_eq!(histogram.total(), 1000);
        let outside = values.iter().filter(|v| v.abs() > 4.0).count();
        assert_eq!(histogram.outside, outside as u64);
        let shares: f64 = histogram.shares().iter().sum();
        assert!((shares - (1000 - outside) as f64 / 1000.0).abs() < 1e-12);
    }

    #[test]
    fn the_ends_belong_to_the_range_and_nan_to_none() {
        let values = [0.0, 0.99, 1.0, 2.0, 2.01, f32::NAN, f32::INFINITY];
        let histogram = Histogram::new(values.into_iter(), (0.0, 2.0), 2);
        assert_eq!(histogram.bins, [2, 2]);
        assert_eq!(histogram.outside, 3);
    }

    #[test]
    fn a_range_of_one_value_and_no_values_at_all_are_fine() {
        let histogram = Histogram::new([3.0; 4].into_iter(), (3.0, 3.0), 5);
        assert_eq!(histogram.total(), 4);
        assert_eq!(histogram.outside, 0);
        assert_eq!(
            Histogram::new([].into_iter(), (0.0, 1.0), 2).shares(),
            [0.0; 2]
        );
    }

    #[test]
    fn shares_are_on_a_logarithmic_scale() {
        assert_eq!(height(1.0), PLOT_HEIGHT);
        assert_eq!(height(1e-2), PLOT_HEIGHT * 3 / 5);
        assert_eq!([0.0, 1e-9, f64::NAN].map(height), [0; 3]);
    }

    #[test]
    fn channels_of_one_panel_have_colours_of_their_own() {
        let distinct: std::collections::BTreeSet<_> = (0..28).map(colour).collect();
        assert_eq!(distinct.len(), 28);
    }

    #[test]
    fn pages_have_room_for_any_number_of_groups() {
        let values = [0.0, 1.0, 2.0];
        for (groups, channels) in [(1, 32), (2, 16), (8, 4), (32, 1)] {
            let panels = (0..groups).map(|g| Panel {
                title: format!("group {g}"),
                channels: (0..channels)
                    .map(|_| ("channel", "1 ± 2".into(), vec![&values[..]]))
                    .collect(),
            });
            let canvas = histograms(&Plot {
                title: "title",
                note: "note",
                range: (-1.0, 3.0),
                panels: panels.collect(),
            });
            // The lowest line is white: nothing was cut.
            let (width, height) = image::load_from_memory(&canvas.png().unwrap())
                .map(|image| (image.width() as usize, image.height() as usize))
                .unwrap();
            assert!((0..width).all(|x| canvas.get(x, height - 1) == WHITE));
            assert!((1300..2600).contains(&width), "{groups}: {width}");
        }
    }
}
