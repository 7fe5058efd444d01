//! Histograms: a panel for each group, its channels over one another, on common axes.

use super::canvas::{Canvas, Colour, FAINT, Font, GRAY, INK, Rect};
use super::scale::{short, step};

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

/// A group.
pub struct Panel<'a> {
    pub title: String,
    /// Its channels: name, what is said of it, and its values, a slice for each photograph.
    pub channels: Vec<(&'a str, String, Vec<&'a [f32]>)>,
}

/// The share of all values in each of some bins of equal width, from `low` to `high`, both included. The
/// others, NaN too, are in none.
fn shares(values: impl Iterator<Item = f32>, (low, high): (f64, f64), bins: usize) -> Vec<f64> {
    let mut counts = vec![0u64; bins];
    let mut total = 0;
    let scale = bins as f64 / (high - low);
    for value in values.map(f64::from) {
        total += 1;
        if (low..=high).contains(&value) {
            // Rounding may take the upper end to one bin too many; an empty range gives NaN, which is bin 0.
            let bin = ((value - low) * scale) as usize;
            counts[bin.min(bins - 1)] += 1;
        }
    }
    let share = |count| count as f64 / total.max(1) as f64;
    counts.into_iter().map(share).collect()
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

/// The colour of a channel: after the first seven, the same ones darker and paler.
fn colour(channel: usize) -> Colour {
    let (end, share) = [(0, 0), (0, 5), (255, 5), (0, 7)][channel / COLOURS.len() % 4];
    COLOURS[channel % COLOURS.len()]
        .map(|part| ((u16::from(part) * (10 - share) + end * share) / 10) as u8)
}

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

/// Draws a page.
pub fn histograms(plot: &Plot) -> Canvas {
    // Few panels are wide, so that pages are about as wide as one another.
    let (columns, bin_width) = match plot.panels.len() {
        0..=1 => (1, 11),
        2 => (2, 6),
        3 => (3, 4),
        4..=16 => (4, 3),
        _ => (6, 3),
    };
    let width = BINS * bin_width;
    let name_columns = (width / NAMES).max(1);
    let channels = plot.panels.iter().map(|panel| panel.channels.len());
    // Lines of names above each plot.
    let lines = channels.max().unwrap_or(0).div_ceil(name_columns);
    let above = TITLE + lines * LINE + 8;
    let pitch = above + PLOT_HEIGHT + TICKS + GAP;
    let rows = plot.panels.len().div_ceil(columns);
    let mut canvas = Canvas::new(
        2 * MARGIN + LEFT + columns * (width + GAP) - GAP,
        HEADER + rows * pitch - GAP + MARGIN,
    );
    canvas.heading(MARGIN, plot.title, plot.note);
    for (i, panel) in plot.panels.iter().enumerate() {
        let x = MARGIN + LEFT + i % columns * (width + GAP);
        let y = HEADER + i / columns * pitch;
        let title = Font::SMALL_BOLD.fit(&panel.title, width);
        canvas.text(x, y, &title, Font::SMALL_BOLD, INK);
        for (i, (name, caption, _)) in panel.channels.iter().enumerate() {
            let pitch = (width + GAP) / name_columns;
            let (x, y) = (x + i / lines * pitch, y + TITLE + i % lines * LINE);
            canvas.fill(Rect::new(x, y + 4, 11, 11), colour(i), 255);
            canvas.text(x + 18, y, name, Font::SMALL, INK);
            let room = (pitch - GAP).saturating_sub(28 + Font::SMALL.width(name));
            canvas.text_left_of(x + pitch - GAP, y, &Font::SMALL.fit(caption, room));
        }
        let part = Rect::new(x, y + above, width, PLOT_HEIGHT);
        draw_axes(&mut canvas, part, plot.range, i % columns == 0);
        draw_channels(&mut canvas, part, plot.range, panel);
    }
    canvas
}

/// Height above the axis of a share of all values; 0 of NaN and of what is below the axis.
fn height(share: f64) -> usize {
    let position = (share / LEAST).log10() / (1.0 / LEAST).log10();
    (position.clamp(0.0, 1.0) * PLOT_HEIGHT as f64).round() as usize
}

fn draw_axes(canvas: &mut Canvas, part: Rect, (low, high): (f64, f64), labelled: bool) {
    let step = step(high - low, 5.0);
    // Bounded by the ticks that a plot has room for, whatever the range.
    let ticks = (0..12).map(|i| ((low / step).ceil() + f64::from(i)) * step);
    for value in ticks.take_while(|&value| value <= high) {
        let share = if high > low {
            (value - low) / (high - low)
        } else {
            0.5
        };
        let x = part.x + (share * (part.width - 1) as f64).round() as usize;
        canvas.fill(
            Rect {
                x,
                width: 1,
                ..part
            },
            FAINT,
            255,
        );
        let label = short(value);
        let left = x.saturating_sub(Font::SMALL.width(&label) / 2);
        canvas.text(left, part.bottom() + 6, &label, Font::SMALL, GRAY);
    }
    let labels = ["100%", "10%", "1%", "0.1%", "0.01%"];
    for (share, label) in [1.0, 0.1, 1e-2, 1e-3, 1e-4].into_iter().zip(labels) {
        let y = part.bottom() - height(share);
        canvas.fill(
            Rect {
                y,
                height: 1,
                ..part
            },
            FAINT,
            255,
        );
        if labelled {
            canvas.text_left_of(part.x - 8, y.saturating_sub(8), label);
        }
    }
    let y = part.bottom();
    canvas.fill(
        Rect {
            y,
            height: 1,
            ..part
        },
        GRAY,
        255,
    );
}

fn draw_channels(canvas: &mut Canvas, part: Rect, range: (f64, f64), panel: &Panel) {
    let width = part.width / BINS;
    // A bar of a bin, of some height, whose top is so far above the axis.
    let bar = |bin: usize, width, top: usize, height| {
        Rect::new(
            part.x + bin * (part.width / BINS),
            part.bottom() - top,
            width,
            height,
        )
    };
    let tops = panel.channels.iter().map(|(_, _, values)| {
        let values = values.iter().flat_map(|values| values.iter().copied());
        shares(values, range, BINS)
            .into_iter()
            .map(height)
            .collect()
    });
    let tops: Vec<Vec<usize>> = tops.collect();
    // Many areas over one another would be mud.
    for (i, tops) in tops.iter().enumerate().take_while(|_| tops.len() <= 4) {
        for (bin, &top) in tops.iter().enumerate() {
            canvas.fill(bar(bin, width, top, top), colour(i), 16);
        }
    }
    // Outlines over all areas, so that none is tinted by another: two pixels thick at least, and nothing on
    // the axis itself.
    for (i, tops) in tops.iter().enumerate() {
        // Open at the ends: values may go on beyond them.
        let mut before = tops[0];
        for (bin, &top) in tops.iter().enumerate() {
            for (from, width) in [(top, width), (before, 2)] {
                let high = from.max(top);
                let thick = from.abs_diff(top).max(2).min(high);
                canvas.fill(bar(bin, width, high, thick), colour(i), 255);
            }
            before = top;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::canvas::WHITE;
    use super::*;

    #[test]
    fn every_value_is_counted_once() {
        let values: Vec<f32> = (0..1000).map(|i| (i as f32 * 0.37).sin() * 5.0).collect();
        let outside = values.iter().filter(|v| v.abs() > 4.0).count();
        let sum: f64 = shares(values.into_iter(), (-4.0, 4.0), 17).iter().sum();
        assert!((sum - (1000 - outside) as f64 / 1000.0).abs() < 1e-12);
    }

    #[test]
    fn the_ends_belong_to_the_range_and_nan_to_none() {
        let values = [0.0, 0.99, 1.0, 2.0, 2.01, f32::NAN, f32::INFINITY];
        // Two each of seven: three are outside.
        assert_eq!(shares(values.into_iter(), (0.0, 2.0), 2), [2.0 / 7.0; 2]);
    }

    #[test]
    fn a_range_of_one_value_and_no_values_at_all_are_fine() {
        let one = shares([3.0; 4].into_iter(), (3.0, 3.0), 5);
        assert_eq!(one.iter().sum::<f64>(), 1.0);
        assert_eq!(shares([].into_iter(), (0.0, 1.0), 2), [0.0; 2]);
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
            let channel = || ("channel", "1 ± 2".into(), vec![&values[..]]);
            let panel = |g| Panel {
                title: format!("group {g}"),
                channels: (0..channels).map(|_| channel()).collect(),
            };
            let canvas = histograms(&Plot {
                title: "title",
                note: "note",
                range: (-1.0, 3.0),
                panels: (0..groups).map(panel).collect(),
            });
            // The lowest line is white: nothing was cut.
            let picture = image::load_from_memory(&canvas.clone().png().unwrap()).unwrap();
            let (width, height) = (picture.width() as usize, picture.height() as usize);
            assert!((0..width).all(|x| canvas.get(x, height - 1) == WHITE));
            assert!((1300..2600).contains(&width), "{groups}: {width}");
        }
    }
}
