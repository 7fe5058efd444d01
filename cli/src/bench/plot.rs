//! Charts of what was measured, as SVG.

use super::Suite;
use super::report::Measurement;
use crate::store::Destination;
use crate::table::size;
use anyhow::Result;
use plotters::coord::combinators::LogCoord;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::path::{Path, PathBuf};

const COPY: RGBColor = RGBColor(0x55, 0x55, 0x55);
const READ: RGBColor = RGBColor(0xa0, 0x40, 0xa0);
const GRID: RGBColor = RGBColor(0xdd, 0xdd, 0xdd);
const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);
const DIRECTIONS: [(&str, RGBColor); 3] = [
    ("forward", RGBColor(0x1f, 0x6f, 0xb4)),
    ("backward", RGBColor(0xd6, 0x5a, 0x0f)),
    ("eval", RGBColor(0x2b, 0x8f, 0x4b)),
];

/// Draws the measurements of a machine of this number, and says which files it wrote.
pub fn draw(folder: &Path, machine: usize, measured: &[Measurement]) -> Result<Vec<PathBuf>> {
    type Draw = fn(&[&Measurement]) -> Result<String>;
    // Suites of hundreds of shapes have a chart of their own.
    let many = |m: &Measurement| m.suite.filter(|suite| suite.has_many_shapes());
    let mut written = Vec::new();
    for (name, suite, chart) in [
        ("roofline", None, roofline as Draw),
        ("ratio", None, ratio),
        ("lengths", Some(Suite::Lengths), lengths),
        ("random", Some(Suite::Random), lengths),
    ] {
        let of_suite = measured.iter().filter(|m| many(m) == suite);
        let measured: Vec<&Measurement> = of_suite.collect();
        let Some(first) = measured.first() else {
            continue;
        };
        let [adapter, backend, norm] =
            [&first.adapter, &first.backend, first.norm].map(|name: &str| slug(name));
        // Machines may be of one name.
        let number = if machine == 0 {
            String::new()
        } else {
            format!("-{}", machine + 1)
        };
        let Measurement { dtype, layout, .. } = first;
        let file = format!("{adapter}-{backend}-{norm}-{dtype}-{layout}-{name}{number}.svg");
        let path = folder.join(file);
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

/// 0.05, 2, 1000: as few digits as tell ticks apart.
fn label(tick: &f64) -> String {
    let text = format!("{tick:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

type Chart<'a, X, Y> = ChartContext<
    'a,
    SVGBackend<'a>,
    Cartesian2d<<X as AsRangedCoord>::CoordDescType, <Y as AsRangedCoord>::CoordDescType>,
>;

/// What a chart has besides its data.
struct Frame<'a> {
    size: (u32, u32),
    /// Pixels left of the data.
    left: i32,
    title: &'a str,
    /// What is said below the title after how things were measured.
    note: &'a str,
    legend: Vec<(&'static str, RGBColor)>,
    x_title: &'a str,
    y_title: &'a str,
    y_label: &'a dyn Fn(&f64) -> String,
    /// Most of them.
    y_labels: usize,
}

/// Draws a frame with axes and grid, and `data` in it.
fn chart<X, Y>(
    measured: &[&Measurement],
    frame: Frame,
    x: X,
    y: Y,
    data: impl FnOnce(&mut Chart<X, Y>) -> Result<()>,
) -> Result<String>
where
    X: AsRangedCoord<Value = f64, CoordDescType: ValueFormatter<f64>>,
    Y: AsRangedCoord<Value = f64, CoordDescType: ValueFormatter<f64>>,
{
    const TOP: i32 = 88;
    const RIGHT: i32 = 24;
    let first = measured[0];
    let title = format!("{}: {} ({})", frame.title, first.adapter, first.backend);
    let what = [first.norm, first.dtype, first.layout].join(" ");
    let subtitle = format!("{what}, medians, clock: {}{}", first.clock, frame.note);
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
    text(frame.y_title, (16, TOP - 14), 12, &INK)?;
    // Marks and what they stand for, from the right end of the line above the chart.
    let mut right = frame.size.0 as i32 - RIGHT;
    for (name, color) in frame.legend.iter().rev() {
        right -= 7 * name.len() as i32;
        text(name, (right, TOP - 14), 12, &INK)?;
        let corners = [(right - 16, TOP - 19), (right - 6, TOP - 9)];
        root.draw(&Rectangle::new(corners, color.filled()))?;
        right -= 30;
    }
    let mut chart = ChartBuilder::on(&root)
        .margin_top(TOP)
        .margin_right(RIGHT)
        .y_label_area_size(frame.left)
        .x_label_area_size(40)
        .margin_bottom(18)
        .build_cartesian_2d(x, y)?;
    let mut mesh = chart.configure_mesh();
    mesh.bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(INK)
        .label_style(font(12, &INK))
        .x_label_formatter(&label)
        .y_label_formatter(frame.y_label)
        .y_labels(frame.y_labels)
        .x_desc(frame.x_title)
        .axis_desc_style(font(14, &INK))
        .set_all_tick_mark_size(6);
    mesh.draw()?;
    data(&mut chart)?;
    drop(chart);
    root.present()?;
    drop(root);
    Ok(svg)
}

fn color(direction: &str) -> RGBColor {
    let known = DIRECTIONS.iter().find(|(name, _)| *name == direction);
    known.map_or(INK, |(_, color)| *color)
}

/// A chart with a row for each shape. `marks` says where strokes stand in a row and of what color, `dots` which dots
/// (and rings) a direction has.
fn row_chart<X>(
    measured: &[&Measurement],
    [title, note, x_title]: [&str; 3],
    more: &[(&'static str, RGBColor)],
    x: X,
    strokes: impl Fn(&Measurement) -> Vec<(f64, RGBColor)>,
    dots: impl Fn(&Measurement) -> Vec<(f64, bool)>,
) -> Result<String>
where
    X: AsRangedCoord<Value = f64, CoordDescType: ValueFormatter<f64>>,
{
    let same = |a: &&Measurement, b: &&Measurement| (&a.shape, a.suite) == (&b.shape, b.suite);
    let rows: Vec<&[&Measurement]> = measured.chunk_by(same).collect();
    // From the top to the bottom, each from a whole number to the next and named in its middle.
    let y = rows.len() as f64..0.0;
    let y_label = |y: &f64| match rows.get(*y as usize) {
        Some(row) if y.fract() > 0.0 => {
            let sizes: Vec<String> = row[0].shape.iter().map(usize::to_string).collect();
            format!("{} ({})", sizes.join(" x "), size(row[0].tensor_bytes))
        }
        _ => String::new(),
    };
    let frame = Frame {
        size: (1000, 88 + 58 + 28 * rows.len().max(3) as u32),
        left: 230,
        title,
        note,
        legend: DIRECTIONS.iter().chain(more).copied().collect(),
        x_title,
        y_title: "",
        y_label: &y_label,
        y_labels: 2 * rows.len() + 1,
    };
    chart(measured, frame, x, y, |chart| {
        for (row, of) in rows.iter().enumerate() {
            let y = row as f64 + 0.5;
            chart.draw_series(strokes(of[0]).into_iter().map(|(x, color)| {
                let style = ShapeStyle::from(&color).stroke_width(3);
                EmptyElement::at((x, y)) + PathElement::new(vec![(0, -9), (0, 9)], style)
            }))?;
            for one in *of {
                let color = color(one.direction);
                chart.draw_series(dots(one).into_iter().map(|(x, filled)| {
                    let style = match filled {
                        true => color.mix(0.85).filled(),
                        false => color.stroke_width(2),
                    };
                    Circle::new((x, y), 5, style)
                }))?;
            }
        }
        Ok(())
    })
}

/// GB/s of every direction of every shape, between those of a copy and of a read.
fn roofline(measured: &[&Measurement]) -> Result<String> {
    let strokes = |m: &Measurement| {
        let copy = (m.copy_bytes as f64 / m.copy_ms / 1e6, COPY);
        let read = (m.tensor_bytes as f64 / m.read_ms / 1e6, READ);
        vec![copy, read]
    };
    let rates = measured.iter().flat_map(|m| {
        let strokes = strokes(m).into_iter().map(|(rate, _)| rate);
        strokes.chain([m.gb_per_s])
    });
    let most = 1.05 * rates.fold(0.0, f64::max);
    let more = [("copy", COPY), ("read", READ)];
    let titles = ["Bandwidth", "", "GB/s of tensor-sized data"];
    row_chart(measured, titles, &more, 0.0..most, strokes, |m| {
        vec![(m.gb_per_s, true)]
    })
}

/// Time in copies of every direction of every shape, and of the same work op by op.
fn ratio(measured: &[&Measurement]) -> Result<String> {
    let dots = |m: &Measurement| {
        let composed = m.composition_ms.map(|ms| (ms / m.copy_ms, false));
        composed
            .into_iter()
            .chain([(m.ratio_to_copy, true)])
            .collect::<Vec<_>>()
    };
    let ratios = || {
        measured
            .iter()
            .flat_map(|m| dots(m))
            .map(|(ratio, _)| ratio)
    };
    let axis = octaves(ratios().fold(1.0, f64::min), ratios().fold(2.0, f64::max));
    let titles = [
        "Time in copies of the same tensor",
        "; rings: the same work op by op",
        "copies (log scale)",
    ];
    let more = [("one copy", COPY)];
    row_chart(measured, titles, &more, axis, |_| vec![(1.0, COPY)], dots)
}

/// A logarithmic axis from one power of two to another.
fn octaves(least: f64, most: f64) -> LogCoord<f64> {
    let [low, high] = [least.log2().floor(), most.log2().ceil()];
    (low.exp2()..high.max(low + 1.0).exp2())
        .log_scale()
        .base(2.0)
        .into()
}

/// Time per byte over the length of rows.
fn lengths(measured: &[&Measurement]) -> Result<String> {
    let copy = |m: &Measurement| 1e6 * m.copy_ms / m.copy_bytes as f64;
    let length = |m: &Measurement| m.shape[2..].iter().product::<usize>() as f64;
    let times = || measured.iter().flat_map(|m| [ns_per_byte(m), copy(m)]);
    let y = octaves(
        times().fold(f64::MAX, f64::min),
        times().fold(0.0, f64::max),
    );
    let x = octaves(1.0, measured.iter().map(|m| length(m)).fold(2.0, f64::max));
    let frame = Frame {
        size: (1000, 560),
        left: 64,
        title: "Time per byte by the length of rows",
        note: "",
        legend: DIRECTIONS.into_iter().chain([("copy", COPY)]).collect(),
        x_title: "elements of a row (log scale)",
        y_title: "ns a byte that must move (log scale)",
        y_label: &label,
        y_labels: 10,
    };
    chart(measured, frame, x, y, |chart| {
        let dots = measured.iter().flat_map(|m| {
            let at = |ns| (length(m), ns);
            [
                (at(copy(m)), COPY),
                (at(ns_per_byte(m)), color(m.direction)),
            ]
        });
        chart.draw_series(dots.map(|(at, color)| Circle::new(at, 2, color.mix(0.85).filled())))?;
        Ok(())
    })
}

/// Nanoseconds a byte that must move: 3 transfers forward and in eval, 5 backward, whatever the plan makes of it.
fn ns_per_byte(m: &Measurement) -> f64 {
    let transfers = if m.direction == "backward" { 5 } else { 3 };
    1e6 * m.ms / (transfers * m.tensor_bytes) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_file_names() {
        assert_eq!(slug("llvmpipe (LLVM 15.0.6, 256 bits)"), "llvmpipe");
        assert_eq!(slug("NVIDIA H100/80"), "nvidia-h100-80");
        assert_eq!([0.2, 5.0, 1000.0].map(|v| label(&v)), ["0.2", "5", "1000"]);
    }
}
