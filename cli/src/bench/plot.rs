//! Charts of what was measured, as SVG: one frame, in which four charts draw what is theirs.

use super::cliffs::{self, Part};
use super::report::Measurement;
use crate::store::Destination;
use crate::table::size;
use anyhow::{Context as _, Result};
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::ops::Range;
use std::path::{Path, PathBuf};

const FORWARD: RGBColor = RGBColor(0x1f, 0x6f, 0xb4);
const BACKWARD: RGBColor = RGBColor(0xd6, 0x5a, 0x0f);
const EVAL: RGBColor = RGBColor(0x2b, 0x8f, 0x4b);
const COPY: RGBColor = RGBColor(0x55, 0x55, 0x55);
const READ: RGBColor = RGBColor(0xa0, 0x40, 0xa0);
const GRID: RGBColor = RGBColor(0xdd, 0xdd, 0xdd);
const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);

/// Draws what there is to draw of one machine's measurements, and says which files it wrote.
///
/// `taken` are the files of other machines, which may be of the same name.
pub fn draw(folder: &Path, measured: &[&Measurement], taken: &[PathBuf]) -> Result<Vec<PathBuf>> {
    type Draw = fn(&[&Measurement]) -> Result<String>;
    let mut written = Vec::new();
    for (name, part, chart) in [
        ("roofline", None, roofline as Draw),
        ("ratio", None, ratio),
        ("scan", Some(Part::Scan), scan),
        ("random", Some(Part::Random), random),
    ] {
        let of_part = measured
            .iter()
            .copied()
            .filter(|m| m.part == part.map(Part::name));
        let measured: Vec<&Measurement> = of_part.collect();
        let Some(first) = measured.first() else {
            continue;
        };
        let [adapter, backend, norm] =
            [&first.adapter, &first.backend, first.norm].map(|name: &str| slug(name));
        let file = format!(
            "{adapter}-{backend}-{norm}-{}-{}-{name}",
            first.dtype, first.layout
        );
        let names = (1..).map(|copy| match copy {
            1 => folder.join(format!("{file}.svg")),
            _ => folder.join(format!("{file}-{copy}.svg")),
        });
        let path = names.into_iter().find(|path| !taken.contains(path));
        let path = path.context("no name for a chart")?;
        Destination::new(&path, true, &[])?.write(chart(&measured)?.as_bytes())?;
        written.push(path);
    }
    Ok(written)
}

/// An adapter's name as part of a file's: what is in brackets is left out.
fn slug(name: &str) -> String {
    let name = name.split('(').next().unwrap_or_default().trim();
    let kept = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    name.to_lowercase().chars().map(kept).collect()
}

/// Where values lie along an axis, and at which of them something is written.
struct Axis {
    title: String,
    range: [f64; 2],
    log: bool,
    ticks: Vec<(f64, String)>,
}

impl Axis {
    fn new(title: &str, log: bool, ticks: Vec<f64>) -> Self {
        let range = [ticks[0], ticks[ticks.len() - 1]];
        let ticks = ticks.into_iter().map(|tick| (tick, label(tick))).collect();
        Self {
            title: title.into(),
            range,
            log,
            ticks,
        }
    }

    /// From 0, linear.
    fn linear(title: &str, most: f64) -> Self {
        let rough = most.max(1e-9) / 6.0;
        let power = 10f64.powf(rough.log10().floor());
        let mut steps = [1.0, 2.0, 5.0, 10.0]
            .into_iter()
            .map(|factor| factor * power);
        let step = steps.find(|step| *step >= rough).unwrap_or(10.0 * power);
        let end = (most / step).ceil().max(1.0) as u32;
        Self::new(
            title,
            false,
            (0..=end).map(|i| f64::from(i) * step).collect(),
        )
    }

    /// Logarithmic, from one of 1, 2, 5, 10, ... to another.
    fn log(title: &str, least: f64, most: f64) -> Self {
        let power = |power| [1.0, 2.0, 5.0].map(|factor| factor * 10f64.powi(power));
        let ticks: Vec<f64> = (-9..=9).flat_map(power).collect();
        let low = ticks.iter().rposition(|&tick| tick <= least).unwrap_or(0);
        let high = ticks.iter().position(|&tick| tick >= most);
        let high = high.unwrap_or(ticks.len() - 1).max(low + 1);
        Self::new(title, true, ticks[low..=high].to_vec())
    }

    /// One row a shape, from top to bottom, each named.
    fn rows(rows: &[Vec<&Measurement>]) -> Self {
        let label = |row: &Vec<&Measurement>| {
            let sizes: Vec<String> = row[0].shape.iter().map(usize::to_string).collect();
            format!("{} ({})", sizes.join(" x "), size(row[0].tensor_bytes))
        };
        let ticks = rows
            .iter()
            .enumerate()
            .map(|(i, row)| (height(i), label(row)));
        let range = [rows.len() as f64, 0.0];
        Self {
            title: String::new(),
            range,
            log: false,
            ticks: ticks.collect(),
        }
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    /// Values beyond the ends lie at the ends.
    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        let scale = |v: f64| if self.log { v.ln() } else { v };
        let [low, high] = self.range.map(scale);
        let share = ((scale(*value) - low) / (high - low)).clamp(0.0, 1.0);
        (f64::from(from) + share * f64::from(to - from)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        match hint.weight().allow_light_points() {
            true => Vec::new(),
            false => self.ticks.iter().map(|(value, _)| *value).collect(),
        }
    }

    fn range(&self) -> Range<f64> {
        self.range[0]..self.range[1]
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        let tick = self.ticks.iter().find(|(tick, _)| tick == value);
        tick.map_or_else(String::new, |(_, label)| label.clone())
    }
}

/// 0.05, 2, 1000: as few digits as tell ticks apart.
fn label(tick: f64) -> String {
    let text = format!("{tick:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The middle of a row.
fn height(row: usize) -> f64 {
    row as f64 + 0.5
}

type Chart<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<Axis, Axis>>;

/// What a chart has besides its data.
struct Frame<'a> {
    size: (u32, u32),
    /// Pixels left of the data.
    left: i32,
    title: &'a str,
    /// What is said below the title after how things were measured.
    note: String,
    legend: Vec<(&'static str, RGBColor)>,
}

/// Draws a frame with axes and grid, and `data` in it.
fn chart(
    measured: &[&Measurement],
    frame: Frame,
    x: Axis,
    y: Axis,
    data: impl FnOnce(&mut Chart) -> Result<()>,
) -> Result<String> {
    const TOP: i32 = 88;
    const RIGHT: i32 = 24;
    let first = measured[0];
    let clock = match first.clock {
        "wall" => "wall clock",
        clock => clock,
    };
    let title = format!("{}: {} ({})", frame.title, first.adapter, first.backend);
    let Measurement {
        norm,
        dtype,
        layout,
        ..
    } = first;
    let subtitle = format!("{norm} {dtype} {layout}, medians, by {clock}{}", frame.note);
    let font = |size: i32, color: &RGBColor| ("sans-serif", size).into_font().color(color);
    let mut svg = String::new();
    let root = SVGBackend::with_string(&mut svg, frame.size).into_drawing_area();
    root.fill(&WHITE)?;
    let text = |text: &str, at: (i32, i32), size: i32, color: &RGBColor| {
        let vertical = if size > 12 { VPos::Top } else { VPos::Center };
        let style = font(size, color).pos(Pos::new(HPos::Left, vertical));
        root.draw(&Text::new(text.to_owned(), at, style))
    };
    text(&title, (16, 12), 20, &INK)?;
    text(&subtitle, (16, 38), 13, &COPY)?;
    // Above the axis rather than along it, so that nobody has to tilt the head.
    text(&y.title, (16, TOP - 14), 12, &INK)?;
    // Marks and what they stand for, from the right end of the line above the chart.
    let mut right = frame.size.0 as i32 - RIGHT;
    for (name, color) in frame.legend.iter().rev() {
        right -= 7 * name.len() as i32;
        text(name, (right, TOP - 14), 12, &INK)?;
        let corners = [(right - 16, TOP - 19), (right - 6, TOP - 9)];
        root.draw(&Rectangle::new(corners, color.filled()))?;
        right -= 30;
    }
    let x_title = x.title.clone();
    let mut chart = ChartBuilder::on(&root)
        .margin_top(TOP)
        .margin_right(RIGHT)
        .y_label_area_size(frame.left)
        .x_label_area_size(40)
        .margin_bottom(18)
        .build_cartesian_2d(x, y)?;
    let mut mesh = chart.configure_mesh();
    mesh.bold_line_style(GRID)
        .axis_style(INK)
        .label_style(font(12, &INK));
    mesh.x_desc(x_title)
        .axis_desc_style(font(14, &INK))
        .set_all_tick_mark_size(6);
    mesh.draw()?;
    data(&mut chart)?;
    drop(chart);
    root.present()?;
    drop(root);
    Ok(svg)
}

type Points = Vec<(f64, f64)>;

fn line(chart: &mut Chart, points: Points, color: RGBColor, width: u32) -> Result<()> {
    let style = ShapeStyle::from(&color).stroke_width(width);
    chart.draw_series([PathElement::new(points, style)])?;
    Ok(())
}

fn dots(chart: &mut Chart, points: Points, color: RGBColor, radius: i32) -> Result<()> {
    let style = color.mix(0.85).filled();
    chart.draw_series(points.into_iter().map(|at| Circle::new(at, radius, style)))?;
    Ok(())
}

const DIRECTIONS: [(&str, RGBColor); 3] =
    [("forward", FORWARD), ("backward", BACKWARD), ("eval", EVAL)];

fn color(direction: &str) -> RGBColor {
    let known = DIRECTIONS.iter().find(|(name, _)| *name == direction);
    known.map_or(EVAL, |(_, color)| *color)
}

/// A chart with a row for each shape. `marks` draws those of a row at its height.
fn row_chart(
    measured: &[&Measurement],
    [title, note]: [&str; 2],
    more: &[(&'static str, RGBColor)],
    x: Axis,
    marks: impl Fn(&mut Chart, &[&Measurement], f64) -> Result<()>,
) -> Result<String> {
    let mut rows: Vec<Vec<&Measurement>> = Vec::new();
    for &one in measured {
        match rows.last_mut() {
            Some(row) if row[0].shape == one.shape && row[0].suite == one.suite => row.push(one),
            _ => rows.push(vec![one]),
        }
    }
    let frame = Frame {
        size: (1000, 88 + 58 + 28 * rows.len().max(3) as u32),
        left: 230,
        title,
        note: note.to_owned(),
        legend: DIRECTIONS.iter().chain(more).copied().collect(),
    };
    chart(measured, frame, x, Axis::rows(&rows), |chart| {
        let mut rows = rows.iter().enumerate();
        rows.try_for_each(|(i, row)| marks(chart, row, height(i)))
    })
}

/// GB/s of every direction of every shape, between those of a copy and of a read.
fn roofline(measured: &[&Measurement]) -> Result<String> {
    let copy = |m: &Measurement| m.copy_bytes as f64 / m.copy_ms / 1e6;
    let read = |m: &Measurement| m.read_ms.map(|ms| m.tensor_bytes as f64 / ms / 1e6);
    let rates = measured
        .iter()
        .flat_map(|m| [m.gb_per_s, copy(m), read(m).unwrap_or(0.0)]);
    let axis = Axis::linear("GB/s of tensor-sized data", rates.fold(0.0, f64::max));
    let more = [("copy", COPY), ("read", READ)];
    row_chart(measured, ["Bandwidth", ""], &more, axis, |chart, row, y| {
        let strokes = [(Some(copy(row[0])), COPY), (read(row[0]), READ)];
        for (rate, color) in strokes {
            let style = ShapeStyle::from(&color).stroke_width(3);
            chart.draw_series(rate.map(|rate| {
                EmptyElement::at((rate, y)) + PathElement::new(vec![(0, -9), (0, 9)], style)
            }))?;
        }
        row.iter()
            .try_for_each(|one| dots(chart, vec![(one.gb_per_s, y)], color(one.direction), 5))
    })
}

/// Time in copies of every direction of every shape, and of the same work op by op.
fn ratio(measured: &[&Measurement]) -> Result<String> {
    let composed = |m: &Measurement| m.composition_ms.map(|ms| ms / m.copy_ms);
    let ratios = |m: &&Measurement| [m.ratio_to_copy, composed(m).unwrap_or(m.ratio_to_copy)];
    let all = || measured.iter().flat_map(ratios);
    let axis = Axis::log(
        "copies (log scale)",
        all().fold(1.0, f64::min),
        all().fold(2.0, f64::max),
    );
    let titles = [
        "Time in copies of the same tensor",
        "; rings: the same work op by op",
    ];
    row_chart(
        measured,
        titles,
        &[("one copy", COPY)],
        axis,
        |chart, row, y| {
            line(chart, vec![(1.0, y - 0.5), (1.0, y + 0.5)], COPY, 2)?;
            for one in row {
                let color = color(one.direction);
                let ring = ShapeStyle::from(&color).stroke_width(2);
                chart.draw_series(composed(one).map(|ratio| Circle::new((ratio, y), 5, ring)))?;
                dots(chart, vec![(one.ratio_to_copy, y)], color, 5)?;
            }
            Ok(())
        },
    )
}

/// Measurements of each direction that there is.
fn by_direction<'m>(measured: &[&'m Measurement]) -> Vec<(&'static str, Vec<&'m Measurement>)> {
    let directions = DIRECTIONS.map(|(direction, _)| {
        let of = measured
            .iter()
            .copied()
            .filter(|m| m.direction == direction);
        (direction, of.collect::<Vec<_>>())
    });
    directions
        .into_iter()
        .filter(|(_, of)| !of.is_empty())
        .collect()
}

/// Nanoseconds a byte over the length of rows.
fn scan(measured: &[&Measurement]) -> Result<String> {
    let directions = by_direction(measured);
    let copy = |m: &Measurement| 1e6 * m.copy_ms / m.copy_bytes as f64;
    let all = || {
        measured
            .iter()
            .flat_map(|m| [cliffs::ns_per_byte(m), copy(m)])
    };
    let (least, most) = (all().fold(f64::MAX, f64::min), all().fold(0.0, f64::max));
    let length = |m: &Measurement| m.shape[2..].iter().product::<usize>() as f64;
    let longest = measured.iter().map(|m| length(m)).fold(1.0, f64::max);
    let ticks = (0..=longest as u32 / 32)
        .map(|i| f64::from(32 * i))
        .collect();
    let x = Axis {
        range: [0.0, longest + 7.0],
        ..Axis::new("L, elements of a row", false, ticks)
    };
    let y = Axis::log("ns a byte that must move (log scale)", least, most);
    let legend = directions.iter().map(|&(name, _)| (name, color(name)));
    let frame = Frame {
        size: (1000, 520),
        left: 64,
        title: "Rows of every length",
        note: format!("; (N, {}, L), N chosen for 2 MB", measured[0].shape[1]),
        legend: legend.chain([("copy", COPY)]).collect(),
    };
    chart(measured, frame, x, y, |chart| {
        let copies = directions[0].1.iter().map(|m| (length(m), copy(m)));
        line(chart, copies.collect(), COPY, 1)?;
        for (direction, of) in &directions {
            let points = of.iter().map(|m| (length(m), cliffs::ns_per_byte(m)));
            let points: Points = points.collect();
            line(chart, points.clone(), color(direction), 1)?;
            dots(chart, points, color(direction), 2)?;
        }
        Ok(())
    })
}

/// Time per byte of random shapes, relative to the median of their direction, over their size.
fn random(measured: &[&Measurement]) -> Result<String> {
    let megabytes = |m: &Measurement| m.tensor_bytes as f64 / 1e6;
    let directions = by_direction(measured);
    let relative = |(direction, of): &(&'static str, Vec<&Measurement>)| {
        let all: Vec<f64> = of.iter().map(|m| cliffs::ns_per_byte(m)).collect();
        let median = super::timing::median(&all);
        let points = of
            .iter()
            .zip(all)
            .map(|(m, ns)| (megabytes(m), ns / median));
        (*direction, points.collect::<Points>())
    };
    let relative: Vec<(&'static str, Points)> = directions.iter().map(relative).collect();
    let all = || relative.iter().flat_map(|(_, points)| points);
    let ratios = || all().map(|point| point.1);
    let (least, most) = (ratios().fold(0.5, f64::min), ratios().fold(2.0, f64::max));
    let y = Axis::log("time per byte over the median (log scale)", least, most);
    let sizes = || all().map(|point| point.0);
    let (smallest, largest) = (
        sizes().fold(f64::MAX, f64::min),
        sizes().fold(0.0, f64::max),
    );
    let x = Axis::log("MB of the tensor (log scale)", smallest, largest);
    let [left, right] = x.range;
    let frame = Frame {
        size: (1000, 560),
        left: 64,
        title: "Random shapes",
        note: format!("; {} shapes", relative[0].1.len()),
        legend: relative
            .iter()
            .map(|&(name, _)| (name, color(name)))
            .collect(),
    };
    chart(measured, frame, x, y, |chart| {
        for bar in [1.0, 2.0] {
            line(chart, vec![(left, bar), (right, bar)], COPY, 1)?;
        }
        let mut drawn = relative.into_iter();
        drawn.try_for_each(|(direction, points)| dots(chart, points, color(direction), 3))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_hold_their_values() {
        for most in [0.03, 1.0, 7.3, 59.0, 3000.0] {
            let Axis { range, ticks, .. } = Axis::linear("", most);
            assert!(range[1] >= most && range[1] < 2.0 * most, "{most}");
            assert!((2..=12).contains(&ticks.len()), "{ticks:?}");
        }
        let axis = Axis::log("", 0.3, 7.0);
        let ticks: Vec<f64> = axis.ticks.iter().map(|(tick, _)| *tick).collect();
        assert_eq!(ticks, [0.2, 0.5, 1.0, 2.0, 5.0, 10.0]);
        let at = |value| axis.map(&value, (0, 100));
        assert_eq!([0.2, 10.0, 99.0].map(at), [0, 100, 100]);
        assert_eq!([0.2, 5.0, 1000.0].map(label), ["0.2", "5", "1000"]);
    }

    #[test]
    fn names_are_file_names() {
        assert_eq!(slug("llvmpipe (LLVM 15.0.6, 256 bits)"), "llvmpipe");
        assert_eq!(slug("NVIDIA H100/80"), "nvidia-h100-80");
    }
}
