//! Charts of what was measured, as SVG.

use super::cliffs::{self, Part};
use super::report::{Measurement, size};
use crate::store::Destination;
use anyhow::{Context as _, Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::path::{Path, PathBuf};

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const FORWARD: RGBColor = RGBColor(0x1f, 0x6f, 0xb4);
const BACKWARD: RGBColor = RGBColor(0xd6, 0x5a, 0x0f);
const EVAL: RGBColor = RGBColor(0x2b, 0x8f, 0x4b);
const COPY: RGBColor = RGBColor(0x55, 0x55, 0x55);
const READ: RGBColor = RGBColor(0xa0, 0x40, 0xa0);
const GRID: RGBColor = RGBColor(0xdd, 0xdd, 0xdd);
const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);

/// Pixels of a dot's radius.
const DOT: i32 = 5;

/// Draws what there is to draw of one machine's measurements, and says which files it wrote.
///
/// `taken` are the files of other machines, which may be of the same name.
pub fn draw(folder: &Path, measured: &[&Measurement], taken: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut written = Vec::new();
    let Some(first) = measured.first() else {
        return Ok(written);
    };
    let of_part = |part: Option<Part>| -> Vec<&Measurement> {
        let name = part.map(Part::name);
        let of = measured.iter().copied().filter(|m| m.part == name);
        of.collect()
    };
    let (cases, scan, random) = (
        of_part(None),
        of_part(Some(Part::Scan)),
        of_part(Some(Part::Random)),
    );
    for (name, measured, chart) in [
        ("roofline", &cases, roofline as Chart),
        ("ratio", &cases, ratio),
        ("scan", &scan, scan_chart),
        ("random", &random, random_chart),
    ] {
        if measured.is_empty() {
            continue;
        }
        let file = format!(
            "{}-{}-{}-{}-{}-{name}",
            slug(&first.adapter),
            slug(&first.backend),
            slug(first.norm),
            first.dtype,
            first.layout
        );
        let names = (1..).map(|copy| match copy {
            1 => folder.join(format!("{file}.svg")),
            _ => folder.join(format!("{file}-{copy}.svg")),
        });
        let path = names.into_iter().find(|path| !taken.contains(path));
        let path = path.context("no name for a chart")?;
        let text = chart(measured)?;
        Destination::new(&path, true, &[])?.write(text.as_bytes())?;
        written.push(path);
    }
    Ok(written)
}

type Chart = fn(&[&Measurement]) -> Result<String>;

/// An adapter's name as part of a file's: what is in brackets is left out.
fn slug(name: &str) -> String {
    let name = name.split('(').next().unwrap_or_default().trim();
    let kept = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    name.to_lowercase().chars().map(kept).collect()
}

/// Where a value lies along an axis.
#[derive(Clone)]
struct Axis {
    title: String,
    range: [f64; 2],
    log: bool,
    ticks: Vec<f64>,
    pixels: [i32; 2],
}

impl Axis {
    /// From 0, linear.
    fn linear(title: &str, most: f64) -> Self {
        let rough = most.max(1e-9) / 6.0;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .into_iter()
            .map(|factor| factor * power)
            .find(|step| *step >= rough)
            .unwrap_or(10.0 * power);
        let end = (most / step).ceil().max(1.0);
        Self {
            title: title.into(),
            range: [0.0, end * step],
            log: false,
            ticks: (0..=end as u32).map(|i| f64::from(i) * step).collect(),
            pixels: [0, 0],
        }
    }

    /// Logarithmic, from one of 1, 2, 5, 10, ... to another.
    fn log(title: &str, least: f64, most: f64) -> Self {
        let mut ticks = Vec::new();
        for power in -9..=9 {
            ticks.extend([1.0, 2.0, 5.0].map(|factor| factor * 10f64.powi(power)));
        }
        let low = ticks.iter().rposition(|&tick| tick <= least).unwrap_or(0);
        let high = ticks.iter().position(|&tick| tick >= most);
        let high = high.unwrap_or(ticks.len() - 1).max(low + 1);
        let ticks = ticks[low..=high].to_vec();
        Self {
            title: title.into(),
            range: [ticks[0], ticks[ticks.len() - 1]],
            log: true,
            ticks,
            pixels: [0, 0],
        }
    }

    fn at(&self, value: f64) -> i32 {
        let scale = |v: f64| if self.log { v.ln() } else { v };
        let [low, high] = self.range.map(scale);
        let share = (scale(value.clamp(self.range[0], self.range[1])) - low) / (high - low);
        let [from, to] = self.pixels.map(f64::from);
        (from + share * (to - from)).round() as i32
    }
}

/// 0.05, 2, 1000: as few digits as tell ticks apart.
fn label(tick: f64) -> String {
    let text = format!("{tick:.6}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    text.to_owned()
}

/// A chart's frame: title, axes, grid.
struct Frame<'a> {
    root: Area<'a>,
    x: Axis,
    y: Option<Axis>,
    top: i32,
    bottom: i32,
    left: i32,
    right: i32,
}

fn drawn<T, E: std::fmt::Display>(result: Result<T, E>) -> Result<T> {
    result.map_err(|error| anyhow!("a chart cannot be drawn: {error}"))
}

impl<'a> Frame<'a> {
    /// The frame of a chart; without a y axis the caller labels rows.
    fn new(
        svg: &'a mut String,
        size: [i32; 2],
        left: i32,
        title: &str,
        subtitle: &str,
        x: Axis,
        y: Option<Axis>,
    ) -> Result<Self> {
        let [width, height] = size;
        let root = SVGBackend::with_string(svg, (width as u32, height as u32)).into_drawing_area();
        drawn(root.fill(&WHITE))?;
        let (top, bottom, right) = (88, height - 58, width - 24);
        let mut frame = Self {
            root,
            x: Axis {
                pixels: [left, right],
                ..x
            },
            y: y.map(|y| Axis {
                pixels: [bottom, top],
                ..y
            }),
            top,
            bottom,
            left,
            right,
        };
        frame.text(title, [16, 12], 20, HPos::Left, INK)?;
        frame.text(subtitle, [16, 38], 13, HPos::Left, COPY)?;
        frame.grid()?;
        Ok(frame)
    }

    fn text(&self, text: &str, at: [i32; 2], size: i32, h: HPos, color: RGBColor) -> Result<()> {
        let v = if size > 12 { VPos::Top } else { VPos::Center };
        let style = ("sans-serif", size).into_font().color(&color);
        let style = style.pos(Pos::new(h, v));
        drawn(
            self.root
                .draw(&Text::new(text.to_owned(), (at[0], at[1]), style)),
        )
    }

    fn line(&self, points: &[[i32; 2]], color: RGBColor, width: u32) -> Result<()> {
        let points: Vec<(i32, i32)> = points.iter().map(|p| (p[0], p[1])).collect();
        let style = ShapeStyle::from(&color).stroke_width(width);
        drawn(self.root.draw(&PathElement::new(points, style)))
    }

    fn dot(&self, at: [i32; 2], color: RGBColor, filled: bool, radius: i32) -> Result<()> {
        let style = match filled {
            true => color.mix(0.85).filled(),
            false => ShapeStyle::from(&color).stroke_width(2),
        };
        drawn(self.root.draw(&Circle::new((at[0], at[1]), radius, style)))
    }

    /// A short vertical stroke in a row.
    fn stroke(&self, at: [i32; 2], color: RGBColor) -> Result<()> {
        self.line(&[[at[0], at[1] - 9], [at[0], at[1] + 9]], color, 3)
    }

    fn grid(&mut self) -> Result<()> {
        let (top, bottom, left, right) = (self.top, self.bottom, self.left, self.right);
        for &tick in &self.x.ticks {
            let x = self.x.at(tick);
            self.line(&[[x, top], [x, bottom]], GRID, 1)?;
            self.text(&label(tick), [x, bottom + 14], 12, HPos::Center, INK)?;
        }
        let middle = i32::midpoint(left, right);
        self.text(&self.x.title, [middle, bottom + 28], 14, HPos::Center, INK)?;
        if let Some(y) = &self.y {
            for &tick in &y.ticks {
                let at = y.at(tick);
                self.line(&[[left, at], [right, at]], GRID, 1)?;
                self.text(&label(tick), [left - 8, at], 12, HPos::Right, INK)?;
            }
            // Above the axis rather than along it, so that nobody has to tilt the head.
            self.text(&y.title, [16, top - 14], 12, HPos::Left, INK)?;
        }
        self.line(&[[left, top], [left, bottom], [right, bottom]], INK, 1)
    }

    /// Marks and what they stand for, from the right end of the line above the chart.
    fn legend(&self, entries: &[(&str, RGBColor)]) -> Result<()> {
        let mut x = self.right;
        for (text, color) in entries.iter().rev() {
            x -= 7 * text.len() as i32;
            self.text(text, [x, self.top - 14], 12, HPos::Left, INK)?;
            let style = color.filled();
            let corners = [(x - 16, self.top - 19), (x - 6, self.top - 9)];
            drawn(self.root.draw(&Rectangle::new(corners, style)))?;
            x -= 30;
        }
        Ok(())
    }

    fn finish(self) -> Result<()> {
        drawn(self.root.present())
    }
}

fn color(direction: &str) -> RGBColor {
    match direction {
        "forward" => FORWARD,
        "backward" => BACKWARD,
        _ => EVAL,
    }
}

/// The adapter, and how it was measured.
fn titles(what: &str, measured: &[&Measurement]) -> (String, String) {
    let first = measured[0];
    let title = format!("{what}: {} ({})", first.adapter, first.backend);
    let clock = match first.clock {
        "wall" => "wall clock",
        clock => clock,
    };
    let subtitle = format!(
        "{} {} {}, medians, by {clock}",
        first.norm, first.dtype, first.layout
    );
    (title, subtitle)
}

/// A shape's row.
fn rows<'m>(measured: &[&'m Measurement]) -> Vec<Vec<&'m Measurement>> {
    let mut rows: Vec<Vec<&Measurement>> = Vec::new();
    for &one in measured {
        match rows.last_mut() {
            Some(row) if row[0].shape == one.shape && row[0].suite == one.suite => row.push(one),
            _ => rows.push(vec![one]),
        }
    }
    rows
}

/// One row a shape: labels, and the height at which its marks lie.
fn shape_rows(frame: &Frame, rows: &[Vec<&Measurement>]) -> Result<Vec<i32>> {
    let height = f64::from(frame.bottom - frame.top) / rows.len() as f64;
    let at = |index: usize| frame.top + ((index as f64 + 0.5) * height) as i32;
    for (index, row) in rows.iter().enumerate() {
        let sizes: Vec<String> = row[0].shape.iter().map(usize::to_string).collect();
        let text = format!("{} ({})", sizes.join(" x "), size(row[0].tensor_bytes));
        let y = at(index);
        frame.text(&text, [frame.left - 10, y], 12, HPos::Right, INK)?;
        frame.line(&[[frame.left, y], [frame.right, y]], GRID, 1)?;
    }
    Ok((0..rows.len()).map(at).collect())
}

fn rows_size(rows: usize) -> [i32; 2] {
    [1000, 88 + 58 + 28 * rows.max(3) as i32]
}

/// GB/s of every direction of every shape, between those of a copy and of a read.
fn roofline(measured: &[&Measurement]) -> Result<String> {
    let rows = rows(measured);
    let copy = |m: &Measurement| m.copy_bytes as f64 / m.copy_ms / 1e6;
    let read = |m: &Measurement| m.read_ms.map(|ms| m.tensor_bytes as f64 / ms / 1e6);
    let rates = measured
        .iter()
        .flat_map(|m| [m.gb_per_s, copy(m), read(m).unwrap_or(0.0)]);
    let most = rates.fold(0.0, f64::max);
    let mut svg = String::new();
    let (title, subtitle) = titles("Bandwidth", measured);
    let axis = Axis::linear("GB/s of tensor-sized data", most);
    let extent = rows_size(rows.len());
    let frame = Frame::new(&mut svg, extent, 230, &title, &subtitle, axis, None)?;
    for (row, y) in rows.iter().zip(shape_rows(&frame, &rows)?) {
        frame.stroke([frame.x.at(copy(row[0])), y], COPY)?;
        if let Some(read) = read(row[0]) {
            frame.stroke([frame.x.at(read), y], READ)?;
        }
        for one in row {
            frame.dot(
                [frame.x.at(one.gb_per_s), y],
                color(one.direction),
                true,
                DOT,
            )?;
        }
    }
    frame.legend(&[
        ("forward", FORWARD),
        ("backward", BACKWARD),
        ("eval", EVAL),
        ("copy", COPY),
        ("read", READ),
    ])?;
    frame.finish()?;
    Ok(svg)
}

/// Time in copies of every direction of every shape, and of the same work op by op.
fn ratio(measured: &[&Measurement]) -> Result<String> {
    let rows = rows(measured);
    let composed = |m: &Measurement| m.composition_ms.map(|ms| ms / m.copy_ms);
    let all: Vec<f64> = measured
        .iter()
        .flat_map(|m| [m.ratio_to_copy, composed(m).unwrap_or(m.ratio_to_copy)])
        .collect();
    let least = all.iter().copied().fold(1.0, f64::min);
    let most = all.iter().copied().fold(2.0, f64::max);
    let mut svg = String::new();
    let (title, subtitle) = titles("Time in copies of the same tensor", measured);
    let subtitle = format!("{subtitle}; rings: the same work op by op");
    let axis = Axis::log("copies (log scale)", least, most);
    let extent = rows_size(rows.len());
    let frame = Frame::new(&mut svg, extent, 230, &title, &subtitle, axis, None)?;
    let one_copy = frame.x.at(1.0);
    frame.line(&[[one_copy, frame.top], [one_copy, frame.bottom]], COPY, 2)?;
    for (row, y) in rows.iter().zip(shape_rows(&frame, &rows)?) {
        for one in row {
            let color = color(one.direction);
            if let Some(ratio) = composed(one) {
                frame.dot([frame.x.at(ratio), y], color, false, DOT)?;
            }
            frame.dot([frame.x.at(one.ratio_to_copy), y], color, true, DOT)?;
        }
    }
    frame.legend(&[
        ("forward", FORWARD),
        ("backward", BACKWARD),
        ("eval", EVAL),
        ("one copy", COPY),
    ])?;
    frame.finish()?;
    Ok(svg)
}

/// Measurements of each direction that there is.
fn by_direction<'m>(measured: &[&'m Measurement]) -> Vec<Vec<&'m Measurement>> {
    let directions = super::Direction::ALL.map(|direction| {
        let of = measured.iter().copied();
        of.filter(|m| m.direction == direction.name())
            .collect::<Vec<_>>()
    });
    directions.into_iter().filter(|of| !of.is_empty()).collect()
}

/// Which directions a legend lists.
fn direction_legend(measured: &[Vec<&Measurement>]) -> Vec<(&'static str, RGBColor)> {
    let names = measured.iter().map(|of| of[0].direction);
    names.map(|name| (name, color(name))).collect()
}

/// Nanoseconds a byte over the length of rows.
fn scan_chart(measured: &[&Measurement]) -> Result<String> {
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
    let mut svg = String::new();
    let (title, subtitle) = titles("Rows of every length", measured);
    let subtitle = format!(
        "{subtitle}; (N, {}, L), N chosen for 2 MB",
        measured[0].shape[1]
    );
    let x = Axis {
        range: [0.0, longest + 7.0],
        ticks: (0..=longest as u32 / 32)
            .map(|i| f64::from(32 * i))
            .collect(),
        ..Axis::linear("L, elements of a row", longest)
    };
    let y = Axis::log("ns a byte that must move (log scale)", least, most);
    let frame = Frame::new(&mut svg, [1000, 520], 64, &title, &subtitle, x, Some(y))?;
    let at = |m: &Measurement, value: f64| {
        let y = frame.y.as_ref().map_or(0, |y| y.at(value));
        [frame.x.at(length(m)), y]
    };
    let copies: Vec<[i32; 2]> = directions[0].iter().map(|m| at(m, copy(m))).collect();
    frame.line(&copies, COPY, 1)?;
    for of in &directions {
        let color = color(of[0].direction);
        let points: Vec<[i32; 2]> = of.iter().map(|m| at(m, cliffs::ns_per_byte(m))).collect();
        frame.line(&points, color, 1)?;
        for &point in &points {
            frame.dot(point, color, true, 2)?;
        }
    }
    let mut legend = direction_legend(&directions);
    legend.push(("copy", COPY));
    frame.legend(&legend)?;
    frame.finish()?;
    Ok(svg)
}

/// Time per byte of random shapes, relative to the median of their direction, over their size.
fn random_chart(measured: &[&Measurement]) -> Result<String> {
    let directions = by_direction(measured);
    let mut points = Vec::new();
    for of in &directions {
        let all: Vec<f64> = of.iter().map(|m| cliffs::ns_per_byte(m)).collect();
        let median = super::timing::median(&all);
        points.extend(of.iter().zip(all).map(|(m, ns)| (*m, ns / median)));
    }
    let least = points.iter().map(|p| p.1).fold(0.5, f64::min);
    let most = points.iter().map(|p| p.1).fold(2.0, f64::max);
    let megabytes = |m: &Measurement| m.tensor_bytes as f64 / 1e6;
    let mut svg = String::new();
    let (title, subtitle) = titles("Random shapes", measured);
    let subtitle = format!("{subtitle}; {} shapes", directions[0].len());
    let sizes = || measured.iter().map(|m| megabytes(m));
    let smallest = sizes().fold(f64::MAX, f64::min);
    let x = Axis::log(
        "MB of the tensor (log scale)",
        smallest,
        sizes().fold(0.0, f64::max),
    );
    let y = Axis::log("time per byte over the median (log scale)", least, most);
    let frame = Frame::new(&mut svg, [1000, 560], 64, &title, &subtitle, x, Some(y))?;
    for bar in [1.0, 2.0] {
        let y = frame.y.as_ref().map_or(0, |y| y.at(bar));
        frame.line(&[[frame.left, y], [frame.right, y]], COPY, 1)?;
    }
    for (one, ratio) in points {
        let y = frame.y.as_ref().map_or(0, |y| y.at(ratio));
        frame.dot(
            [frame.x.at(megabytes(one)), y],
            color(one.direction),
            true,
            3,
        )?;
    }
    frame.legend(&direction_legend(&directions))?;
    frame.finish()?;
    Ok(svg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_hold_their_values() {
        for most in [0.03, 1.0, 7.3, 59.0, 3000.0] {
            let axis = Axis::linear("", most);
            assert!(
                axis.range[1] >= most && axis.range[1] < 2.0 * most,
                "{most}"
            );
            assert!((2..=12).contains(&axis.ticks.len()), "{:?}", axis.ticks);
        }
        let axis = Axis {
            pixels: [0, 100],
            ..Axis::log("", 0.3, 7.0)
        };
        assert_eq!(axis.ticks, [0.2, 0.5, 1.0, 2.0, 5.0, 10.0]);
        assert_eq!([0.2, 10.0, 99.0].map(|v| axis.at(v)), [0, 100, 100]);
        assert_eq!([0.2, 5.0, 1000.0].map(label), ["0.2", "5", "1000"]);
    }

    #[test]
    fn names_are_file_names() {
        assert_eq!(slug("llvmpipe (LLVM 15.0.6, 256 bits)"), "llvmpipe");
        assert_eq!(slug("NVIDIA H100/80"), "nvidia-h100-80");
    }
}
