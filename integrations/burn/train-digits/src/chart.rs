//! Learning curves as SVG and PNG, for light and for dark pages.

use crate::checkpoint::replace;
use crate::compare::{Curve, mean};
use crate::log::Row;
use crate::training::Settings;
use anyhow::{Context as _, Result, anyhow};
use image::imageops::{FilterType, resize};
use image::{ImageFormat, RgbImage};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::io::Cursor;
use std::ops::Range;
use std::path::{Path, PathBuf};

const SIZE: (u32, u32) = (1100, 760);
/// Pixels of the PNG for a unit of the drawing; it is drawn at twice that and reduced, so that edges are smooth.
const DENSITY: u32 = 2;
/// Rows of which a smoothed loss is the mean.
const SMOOTHED: usize = 5;

/// Colors of a page.
struct Theme {
    name: &'static str,
    paper: RGBColor,
    ink: RGBColor,
    faint: RGBColor,
    grid: RGBColor,
    /// bn, gn, bcn, bcn-est.
    norms: [RGBColor; 4],
}

const LIGHT: Theme = Theme {
    name: "light",
    paper: RGBColor(0xff, 0xff, 0xff),
    ink: RGBColor(0x22, 0x22, 0x22),
    faint: RGBColor(0x66, 0x66, 0x66),
    grid: RGBColor(0xe2, 0xe2, 0xe2),
    norms: [
        RGBColor(0x1f, 0x6f, 0xb4),
        RGBColor(0xd9, 0x8c, 0x00),
        RGBColor(0x0b, 0x8a, 0x62),
        RGBColor(0xc8, 0x3a, 0x2a),
    ],
};

const DARK: Theme = Theme {
    name: "dark",
    paper: RGBColor(0x0d, 0x11, 0x17),
    ink: RGBColor(0xe6, 0xed, 0xf3),
    faint: RGBColor(0x9a, 0xa4, 0xae),
    grid: RGBColor(0x2a, 0x31, 0x3a),
    norms: [
        RGBColor(0x58, 0xa6, 0xff),
        RGBColor(0xf2, 0xb1, 0x34),
        RGBColor(0x3f, 0xc9, 0x98),
        RGBColor(0xff, 0x7b, 0x6b),
    ],
};

/// Draws curves into a folder, and says which files it wrote.
///
/// # Errors
/// Files that cannot be written.
pub fn draw(curves: &[Curve], settings: &Settings, folder: &Path) -> Result<Vec<PathBuf>> {
    let font = epaint_default_fonts::UBUNTU_LIGHT;
    plotters::style::register_font("sans-serif", FontStyle::Normal, font)
        .map_err(|_| anyhow!("the font of the charts is none"))?;
    let mut written = Vec::new();
    for theme in [LIGHT, DARK] {
        let mut svg = String::new();
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        page(&root, &theme, curves, settings, 1)?;
        drop(root);

        let scale = 2 * DENSITY;
        let [width, height] = [SIZE.0, SIZE.1].map(|side| side * scale);
        let mut pixels = vec![0; (3 * width * height) as usize];
        let root = BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area();
        page(&root, &theme, curves, settings, scale as i32)?;
        drop(root);
        let drawn = RgbImage::from_raw(width, height, pixels).context("too few pixels")?;
        let reduced = resize(&drawn, width / 2, height / 2, FilterType::Triangle);
        let mut png = Cursor::new(Vec::new());
        reduced.write_to(&mut png, ImageFormat::Png)?;

        for (ending, bytes) in [("svg", svg.into_bytes()), ("png", png.into_inner())] {
            let path = folder.join(format!("curves-{}.{ending}", theme.name));
            replace(&path, &bytes).with_context(|| format!("cannot write {}", path.display()))?;
            written.push(path);
        }
    }
    Ok(written)
}

type Area<B> = DrawingArea<B, Shift>;

/// Lines of one curve in a chart.
struct Lines {
    /// The mean of the seeds.
    mean: Vec<(f64, f64)>,
    /// Each seed.
    each: Vec<Vec<(f64, f64)>>,
}

/// Three charts, and what their lines are.
fn page<B: DrawingBackend<ErrorType: 'static>>(
    root: &Area<B>,
    theme: &Theme,
    curves: &[Curve],
    settings: &Settings,
    scale: i32,
) -> Result<()> {
    let pen = Pen { theme, scale };
    root.fill(&theme.paper)?;
    let Settings {
        batch, epochs, lr, ..
    } = settings;
    let seeds = curves
        .iter()
        .map(|curve| curve.runs.len())
        .max()
        .unwrap_or(0);
    let title = format!("A residual network learns handwritten digits at batch size {batch}");
    pen.text(root, &title, (20, 26), 22, theme.ink)?;
    let note = format!(
        "{epochs} epochs, learning rate {lr} at first; lines: mean of {seeds} seeds, thin: each of them; loss: \
         mean of {SMOOTHED} rows"
    );
    pen.text(root, &note, (20, 50), 14, theme.faint)?;
    let (_, below) = root.split_vertically(66 * scale);
    let panels = below.split_evenly((2, 2));

    let loss = |along: fn(&Row) -> f64| {
        let of = |curve: &Curve| {
            let each = curve.runs.iter().map(|log| {
                let point = |rows: &[Row]| {
                    let losses: Vec<f64> = rows.iter().map(|row| row.loss).collect();
                    Some((along(rows.last()?), mean(&losses)?))
                };
                let ends = 1..=log.rows.len();
                let rows = ends.map(|end| &log.rows[end.saturating_sub(SMOOTHED)..end]);
                rows.filter_map(point).collect::<Vec<_>>()
            });
            lines(each.collect())
        };
        curves.iter().map(of).collect::<Vec<_>>()
    };
    let accuracy = curves.iter().map(|curve| {
        let each = curve.runs.iter().map(|log| {
            let known = log.rows.iter();
            let point = |row: &Row| Some((row.step as f64, row.accuracy?));
            known.filter_map(point).collect::<Vec<_>>()
        });
        lines(each.collect())
    });
    let accuracy: Vec<Lines> = accuracy.collect();
    let least = accuracy
        .iter()
        .flat_map(|lines| lines.each.iter().flatten());
    let least = least.fold(1.0, |least: f64, (_, y)| least.min(*y));
    let accuracies = (20.0 * least).floor() / 20.0..1.0;

    let by_step = loss(|row| row.step as f64);
    // How long a step took depends on what else the machine did: the mean alone.
    let mut by_second = loss(|row| row.seconds);
    by_second.iter_mut().for_each(|lines| lines.each.clear());
    let losses = 0.0..2.4;
    let marks = |lines: &[Lines]| lines.iter().all(|lines| lines.mean.len() < 20);
    let charts = [
        (
            "training loss (cross entropy, nats)",
            "steps",
            losses.clone(),
            by_step,
        ),
        ("test accuracy", "steps", accuracies, accuracy),
        (
            "training loss (cross entropy, nats)",
            "seconds of training",
            losses,
            by_second,
        ),
    ];
    for (panel, (title, along, y, lines)) in panels.iter().zip(charts) {
        pen.chart(panel, [title, along], y, curves, &lines, marks(&lines))?;
    }
    if let Some(panel) = panels.last() {
        pen.legend(panel, curves)?;
    }
    root.present()?;
    Ok(())
}

/// Lines of seeds, and their mean as far as all go.
fn lines(each: Vec<Vec<(f64, f64)>>) -> Lines {
    let len = each.iter().map(Vec::len).min().unwrap_or(0);
    let point = |i: usize| {
        let of = |coordinate: fn(&(f64, f64)) -> f64| {
            let values: Vec<f64> = each.iter().map(|line| coordinate(&line[i])).collect();
            mean(&values).unwrap_or_default()
        };
        (of(|(x, _)| *x), of(|(_, y)| *y))
    };
    Lines {
        mean: (0..len).map(point).collect(),
        each,
    }
}

/// 0.05, 2, 1,000: as few digits as tell ticks apart.
fn label(tick: &f64) -> String {
    let text = format!("{tick:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    match text.strip_suffix("000") {
        Some(thousands) if !thousands.is_empty() && !text.contains('.') => {
            format!("{thousands},000")
        }
        _ => text.to_owned(),
    }
}

/// What draws in the colors of a theme, at a scale.
struct Pen<'a> {
    theme: &'a Theme,
    scale: i32,
}

impl Pen<'_> {
    fn font(&self, size: i32, color: RGBColor) -> TextStyle<'static> {
        ("sans-serif", size * self.scale).into_font().color(&color)
    }

    fn text<B: DrawingBackend<ErrorType: 'static>>(
        &self,
        area: &Area<B>,
        text: &str,
        (x, y): (i32, i32),
        size: i32,
        color: RGBColor,
    ) -> Result<()> {
        let style = self
            .font(size, color)
            .pos(Pos::new(HPos::Left, VPos::Center));
        let at = (x * self.scale, y * self.scale);
        area.draw(&Text::new(text.to_owned(), at, style))?;
        Ok(())
    }

    fn color(&self, curve: &Curve) -> RGBColor {
        let norms = ["bn", "gn", "bcn", "bcn-est"];
        let index = norms.iter().position(|norm| *norm == curve.norm);
        index.map_or(self.theme.faint, |index| self.theme.norms[index])
    }

    fn stroke(&self, color: RGBAColor, width: f64) -> ShapeStyle {
        color.stroke_width((width * f64::from(self.scale)).round().max(1.0) as u32)
    }

    /// Dashes, spaces; nothing for a full line. bcnorm's lines are full.
    fn dash(&self, curve: &Curve) -> Option<(i32, i32)> {
        match curve.source.as_str() {
            "bcnorm" => None,
            "burn" => Some((7 * self.scale, 4 * self.scale)),
            _ => Some((2 * self.scale, 4 * self.scale)),
        }
    }

    fn chart<B: DrawingBackend<ErrorType: 'static>>(
        &self,
        area: &Area<B>,
        [title, along]: [&str; 2],
        y: Range<f64>,
        curves: &[Curve],
        lines: &[Lines],
        marks: bool,
    ) -> Result<()> {
        let Self { theme, scale } = self;
        self.text(area, title, (20, 16), 15, theme.ink)?;
        let ends = lines
            .iter()
            .flat_map(|lines| lines.each.iter().chain([&lines.mean]));
        let end = ends
            .filter_map(|line| line.last())
            .fold(1.0, |end: f64, (x, _)| end.max(*x));
        let mut chart = ChartBuilder::on(area)
            .margin_top(34 * scale)
            .margin_right(24 * scale)
            .margin_left(12 * scale)
            .y_label_area_size(40 * scale)
            .x_label_area_size(44 * scale)
            .build_cartesian_2d(0.0..1.02 * end, y)?;
        chart
            .configure_mesh()
            .bold_line_style(self.stroke(theme.grid.to_rgba(), 1.0))
            .light_line_style(TRANSPARENT)
            .axis_style(self.stroke(theme.faint.to_rgba(), 1.0))
            .label_style(self.font(13, theme.faint))
            .x_label_formatter(&label)
            .y_label_formatter(&label)
            .x_labels(7)
            .y_labels(7)
            .x_desc(along)
            .axis_desc_style(self.font(14, theme.ink))
            .set_all_tick_mark_size(4 * scale)
            .draw()?;
        for (curve, lines) in curves.iter().zip(lines) {
            let thin = self.stroke(self.color(curve).mix(0.28), 0.8);
            for line in &lines.each {
                chart.draw_series(LineSeries::new(line.iter().copied(), thin))?;
            }
        }
        for (curve, lines) in curves.iter().zip(lines) {
            let color = self.color(curve);
            let thick = self.stroke(color.to_rgba(), 2.0);
            let mean = lines.mean.iter().copied();
            match self.dash(curve) {
                None => chart.draw_series(LineSeries::new(mean, thick))?,
                Some((dash, space)) => {
                    chart.draw_series(DashedLineSeries::new(mean, dash, space, thick))?
                }
            };
            if marks {
                let dots = lines.mean.iter();
                chart.draw_series(dots.map(|at| Circle::new(*at, 4 * scale, color.filled())))?;
            }
        }
        Ok(())
    }

    fn legend<B: DrawingBackend<ErrorType: 'static>>(
        &self,
        area: &Area<B>,
        curves: &[Curve],
    ) -> Result<()> {
        let Self { theme, scale } = self;
        let right = |text: &str, (x, y): (i32, i32), color| {
            let style = self
                .font(14, color)
                .pos(Pos::new(HPos::Right, VPos::Center));
            area.draw(&Text::new(text.to_owned(), (x * scale, y * scale), style))
        };
        let columns = [385, 500];
        for (title, x) in ["final accuracy", "ms a step"].iter().zip(columns) {
            right(title, (x, 16), theme.faint)?;
        }
        for (index, curve) in curves.iter().enumerate() {
            let y = 46 + 26 * index as i32;
            let line = [(30, y), (66, y)].map(|(x, y)| (x * scale, y * scale));
            let style = self.stroke(self.color(curve).to_rgba(), 2.0);
            match self.dash(curve) {
                None => area.draw(&PathElement::new(line, style))?,
                Some((dash, space)) => {
                    area.draw(&plotters::element::DashedPathElement::new(
                        line, dash, space, style,
                    ))?;
                }
            }
            self.text(area, &curve.name(), (78, y), 14, theme.ink)?;
            let accuracy = mean(&curve.accuracies());
            let accuracy = accuracy.map_or("-".to_owned(), |mean| format!("{:.1} %", 100.0 * mean));
            right(&accuracy, (columns[0], y), theme.ink)?;
            right(
                &format!("{:.1}", curve.milliseconds()),
                (columns[1], y),
                theme.ink,
            )?;
        }
        Ok(())
    }
}
