//! The pictures of a run: sheets of maps, and pages of histograms with a panel for each group.

use super::filters::{CHANNELS, GROUPS, channel_names};
use super::norm::LOSS;
use super::numbers::{Summary, high_magnitude, shares, short};
use super::paper::{Area, fit, page};
use super::photos::Photo;
use crate::case::{Problem, Run};
use anyhow::Result;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use rayon::prelude::*;

const INK: RGBColor = RGBColor(32, 33, 36);
/// Text of less weight.
const GRAY: RGBColor = RGBColor(105, 108, 114);
/// Lines behind the data.
const FAINT: RGBColor = RGBColor(226, 228, 232);
const MARGIN: usize = 28;
const GAP: usize = 10;

/// Draws all pictures: name and contents of each file.
pub fn draw(
    photos: &[Photo],
    case: &Problem,
    outputs: &Run,
) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let (x, y, gradient) = (&case.x, outputs.get("y"), outputs.get("grad_x"));
    let groups = case.norm.num_groups;
    let maps = Maps { photos, groups };
    type Draw<'a> = &'a (dyn Fn() -> Result<Vec<u8>> + Sync);
    let pictures: [(&str, Draw); 6] = [
        ("input.png", &|| photographs(photos)),
        ("features-before.png", &|| maps.before(x)),
        ("features-after.png", &|| maps.after(y)),
        ("gradient.png", &|| maps.gradients(gradient)),
        ("histograms-before.png", &|| maps.histograms_before(x)),
        ("histograms-after.png", &|| maps.histograms_after(y)),
    ];
    let drawn = pictures.into_par_iter();
    drawn
        .map(|(name, picture)| Ok((name, picture()?)))
        .collect()
}

fn small(color: RGBColor) -> TextStyle<'static> {
    ("mono", 16).into_font().color(&color)
}

fn bold(size: i32) -> TextStyle<'static> {
    ("mono", size, FontStyle::Bold).into_font().color(&INK)
}

/// What is left of an area inside margins: above, below, left, right.
fn inset<'a>(area: &Area<'a>, margins: [usize; 4]) -> Area<'a> {
    let [above, below, left, right] = margins.map(|margin| margin as u32);
    area.margin(above, below, left, right)
}

fn text(area: &Area, style: TextStyle, (x, y): (usize, usize), text: &str) -> Result<()> {
    Ok(area.draw_text(text, &style, (x as i32, y as i32))?)
}

/// A text in gray that ends at `right`.
fn text_left_of(area: &Area, right: usize, y: usize, shown: &str) -> Result<()> {
    let style = small(GRAY).pos(Pos::new(HPos::Right, VPos::Top));
    text(area, style, (right, y), shown)
}

/// What a page shows, and below it how to read that.
fn heading(area: &Area, title: &str, note: &str) -> Result<()> {
    text(area, bold(24), (MARGIN, 18), title)?;
    let room = area.dim_in_pixel().0 as usize - 2 * MARGIN;
    text(area, small(GRAY), (MARGIN, 48), &fit(note, room))
}

/// Colours of numbers: a gradient from `low` to `high`.
struct Tone {
    colours: &'static [RGBColor],
    gradient: DerivedColorMap<RGBColor>,
    low: f32,
    high: f32,
}

const RED: RGBColor = RGBColor(178, 24, 43);
const BLUE: RGBColor = RGBColor(33, 102, 172);

impl Tone {
    fn new(colours: &'static [RGBColor], low: f32, high: f32) -> Self {
        let gradient = DerivedColorMap::new(colours);
        Self {
            colours,
            gradient,
            low,
            high,
        }
    }

    /// Black at `low` and below it, white at `high` and above it.
    fn gray(low: f32, high: f32) -> Self {
        Self::new(&[BLACK, WHITE], low, high)
    }

    /// White at 0, blue at `-limit`, red at `limit`.
    fn signed(limit: f32) -> Self {
        Self::new(&[BLUE, WHITE, RED], -limit, limit)
    }

    /// The colour of a value. NaN is magenta, which nothing else is.
    fn colour(&self, value: f32) -> RGBColor {
        match value {
            _ if value.is_nan() => MAGENTA,
            _ if self.low < self.high => self
                .gradient
                .get_color_normalized(value, self.low, self.high),
            // The scale is empty.
            _ => self.colours[(self.colours.len() - 1) / 2],
        }
    }
}

/// Where maps are in a tensor, and what they are called.
struct Maps<'a> {
    photos: &'a [Photo],
    groups: usize,
}

impl Maps<'_> {
    /// Pixels per row and rows of a map.
    fn size(&self) -> (usize, usize) {
        self.photos
            .first()
            .map_or((1, 1), |photo| (photo.width, photo.height))
    }

    fn get<'t>(&self, tensor: &'t [f32], photo: usize, channel: usize) -> &'t [f32] {
        let area = self.size().0 * self.size().1;
        let start = (photo * CHANNELS + channel) * area;
        tensor.get(start..start + area).unwrap_or_default()
    }

    fn before(&self, x: &[f32]) -> Result<Vec<u8>> {
        // The rule of the other sheet: three standard deviations either side of the mean.
        let all = Summary::new(&[x]);
        let end = |side: f64| (all.mean + side * 3.0 * all.deviation) as f32;
        let note = format!(
            "{CHANNELS} feature maps of each photograph, all on one linear scale: some saturate, most \
             vanish. Below each: mean ± standard deviation."
        );
        self.gray(x, "Before: raw feature maps", &note, (end(-1.0), end(1.0)))
    }

    fn after(&self, y: &[f32]) -> Result<Vec<u8>> {
        let note = format!(
            "The same maps after Batch-Channel Normalization, {} groups, all on one linear scale. \
             Below each: mean ± standard deviation.",
            self.groups
        );
        self.gray(y, "After: normalized feature maps", &note, (-3.0, 3.0))
    }

    /// A sheet whose maps share a scale.
    fn gray(&self, tensor: &[f32], title: &str, note: &str, ends: (f32, f32)) -> Result<Vec<u8>> {
        let tile = |map: &[f32]| (Summary::new(&[map]).caption(), Tone::gray(ends.0, ends.1));
        self.sheet(tensor, title, note, Some(ends), tile)
    }

    fn gradients(&self, dx: &[f32]) -> Result<Vec<u8>> {
        let title = "Backward: gradient with respect to the raw feature maps";
        let note = format!(
            "The gradient of {LOSS}. Red: more would raise the loss; blue: lower it. Below each map: \
             its own scale."
        );
        self.sheet(dx, title, &note, None, |map| {
            let limit = high_magnitude(map);
            (format!("± {}", short(limit.into())), Tone::signed(limit))
        })
    }

    /// A sheet of the maps of a tensor, a block for each photograph. `tile` says which caption and which tone a
    /// map has, `scale` the ends of the gray one that all share.
    fn sheet(
        &self,
        tensor: &[f32],
        title: &str,
        note: &str,
        scale: Option<(f32, f32)>,
        tile: impl Fn(&[f32]) -> (String, Tone),
    ) -> Result<Vec<u8>> {
        /// More would make sheets that no one can view.
        const SHOWN: usize = 4;
        const HEADER: usize = 84;
        const HEADING: usize = 34;
        const LABEL: usize = 40;
        const PER_ROW: usize = 8;
        let (all, shown) = (self.photos.len(), self.photos.len().min(SHOWN));
        let note = match all > shown {
            true => format!("{note} First {shown} of {all} photographs."),
            false => note.to_owned(),
        };
        let (columns, rows) = (shown.clamp(1, 2), shown.div_ceil(2));
        let map = scaled(self.size(), SHEET_WIDTH / columns / PER_ROW - GAP);
        let cell = (map.0.max(MIN_CELL) + GAP, map.1 + LABEL + GAP);
        let maps = (PER_ROW * cell.0, CHANNELS / PER_ROW * cell.1);
        let width = MARGIN + columns * (maps.0 + MARGIN);
        let height = HEADER + rows * (HEADING + maps.1 + MARGIN);
        page(width, height, |root| {
            heading(root, title, &note)?;
            if let Some(ends) = scale {
                draw_scale(root, width - MARGIN, ends)?;
            }
            let blocks = inset(root, [HEADER, 0, MARGIN, 0]).split_evenly((rows, columns));
            for (n, (block, photo)) in blocks.iter().zip(self.photos).enumerate() {
                text(block, bold(16), (0, 10), &fit(&photo.name, maps.0))?;
                let cells = inset(block, [HEADING, MARGIN, 0, MARGIN]);
                let cells = cells.split_evenly((CHANNELS / PER_ROW, PER_ROW));
                for (c, (area, name)) in cells.iter().zip(channel_names()).enumerate() {
                    let values = self.get(tensor, n, c);
                    let (caption, tone) = tile(values);
                    let pixels = resample(values, self.size(), map);
                    for (i, value) in pixels.into_iter().enumerate() {
                        let at = ((i % map.0) as i32, (i / map.0) as i32);
                        area.draw_pixel(at, &tone.colour(value))?;
                    }
                    let below = [(name, 4, INK), (caption.as_str(), 21, GRAY)];
                    for (shown, below, colour) in below {
                        text(
                            area,
                            small(colour),
                            (0, map.1 + below),
                            &fit(shown, cell.0 - GAP),
                        )?;
                    }
                }
            }
            Ok(())
        })
    }

    fn histograms_before(&self, x: &[f32]) -> Result<Vec<u8>> {
        let (low, high) = Summary::new(&[x]).range;
        self.histograms(x, "Before: raw feature maps", "", (low.into(), high.into()))
    }

    fn histograms_after(&self, y: &[f32]) -> Result<Vec<u8>> {
        const END: f32 = 6.0;
        let beyond = y.iter().filter(|value| !(-END..=END).contains(*value));
        let share = 100.0 * beyond.count() as f64 / y.len().max(1) as f64;
        let note = format!(" {}% of the values lie beyond.", short(share));
        let range = (-f64::from(END), END.into());
        self.histograms(y, "After: normalized feature maps", &note, range)
    }

    /// A page with a panel for each group, its channels over one another, on common axes.
    fn histograms(
        &self,
        tensor: &[f32],
        title: &str,
        note: &str,
        range: (f64, f64),
    ) -> Result<Vec<u8>> {
        const HEADER: usize = 88;
        const LEFT: usize = 56;
        const PLOT_HEIGHT: usize = 250;
        const GAP: usize = 30;
        const TITLE: usize = 26;
        const LINE: usize = 18;
        /// Width of a column of names.
        const NAMES: usize = 340;
        // Few panels are wide, so that pages are about as wide as one another.
        let (columns, bin_width) = match self.groups {
            1 => (1, 11),
            2 => (2, 6),
            ..=16 => (4, 3),
            _ => (5, 3),
        };
        let (width, channels) = (BINS * bin_width, CHANNELS / self.groups);
        let name_columns = (width / NAMES).max(1);
        // Lines of names above each plot.
        let lines = channels.div_ceil(name_columns);
        let above = TITLE + lines * LINE + 8;
        let rows = self.groups.div_ceil(columns);
        let page_width = MARGIN + columns * (LEFT + width + GAP);
        let page_height = HEADER + rows * (above + PLOT_HEIGHT + GAP);
        let names = channel_names();
        page(page_width, page_height, |root| {
            let axes = "Share of the pixels of all photographs, on a logarithmic scale, by value. All panels have \
                        the same axes. Right of each name: mean ± standard deviation.";
            heading(root, title, &format!("{axes}{note}"))?;
            let panels = inset(root, [HEADER, 0, MARGIN, 0]).split_evenly((rows, columns));
            for (g, panel) in panels.iter().take(self.groups).enumerate() {
                let name = match GROUPS.get(g) {
                    Some(group) if self.groups == GROUPS.len() => format!(": {}", group.name),
                    _ => String::new(),
                };
                text(
                    panel,
                    bold(16),
                    (LEFT, 0),
                    &format!("group {}{name}", g + 1),
                )?;
                let mut curves = Vec::new();
                for i in 0..channels {
                    let c = g * channels + i;
                    let maps = (0..self.photos.len()).map(|n| self.get(tensor, n, c));
                    let maps: Vec<&[f32]> = maps.collect();
                    let pitch = (width + GAP) / name_columns;
                    let (x, y) = (LEFT + i / lines * pitch, TITLE + i % lines * LINE);
                    let (left, top) = (x as i32, y as i32 + 4);
                    let corners = [(left, top), (left + 10, top + 10)];
                    panel.draw(&Rectangle::new(corners, colour(i).filled()))?;
                    text(panel, small(INK), (x + 18, y), names[c])?;
                    let caption = Summary::new(&maps).caption();
                    text_left_of(panel, x + pitch - GAP, y, &caption)?;
                    let values = maps.into_iter().flatten().copied();
                    curves.push(shares(values, range, BINS));
                }
                draw_plot(&inset(panel, [above, GAP, 0, GAP]), LEFT, range, &curves)?;
            }
            Ok(())
        })
    }
}

const BINS: usize = 120;

/// Distinct, also for the colour-blind (Okabe and Ito).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(90, 90, 90),
];

/// The colour of a channel: after the first seven, the same ones darker and paler.
fn colour(channel: usize) -> RGBColor {
    let (end, share) = [(0, 0), (0, 5), (255, 5), (0, 7)][channel / COLOURS.len() % 4];
    let mix = |part: u8| ((u16::from(part) * (10 - share) + end * share) / 10) as u8;
    let RGBColor(r, g, b) = COLOURS[channel % COLOURS.len()];
    RGBColor(mix(r), mix(g), mix(b))
}

/// Draws the shares of each bin, of several channels.
fn draw_plot(area: &Area, left: usize, (low, high): (f64, f64), curves: &[Vec<f64>]) -> Result<()> {
    /// Least share that is drawn.
    const LEAST: f64 = 1e-5;
    let high = if low < high { high } else { low + 1.0 };
    let mut chart = ChartBuilder::on(area)
        .y_label_area_size(left as u32)
        .x_label_area_size(30)
        .build_cartesian_2d(low..high, (LEAST..1.0).log_scale())?;
    let mut mesh = chart.configure_mesh();
    mesh.bold_line_style(FAINT)
        .max_light_lines(0)
        .axis_style(GRAY);
    mesh.label_style(small(GRAY)).x_labels(8).y_labels(6);
    mesh.x_label_formatter(&|value| short(*value));
    mesh.y_label_formatter(&|share| format!("{}%", short(100.0 * share)));
    mesh.draw()?;
    let outline = |shares: &Vec<f64>| {
        let width = (high - low) / shares.len() as f64;
        let bins = shares.iter().enumerate().flat_map(|(bin, share)| {
            [bin, bin + 1].map(|end| (low + end as f64 * width, share.max(LEAST)))
        });
        bins.collect::<Vec<(f64, f64)>>()
    };
    // Many areas over one another would be mud.
    for (i, shares) in curves.iter().enumerate().take_while(|_| curves.len() <= 4) {
        let mut area = outline(shares);
        area.extend([(high, LEAST), (low, LEAST)]);
        chart.draw_series([Polygon::new(area, colour(i).mix(0.06))])?;
    }
    // Outlines over all areas, so that none is tinted by another.
    for (i, shares) in curves.iter().enumerate() {
        chart.draw_series([PathElement::new(outline(shares), colour(i).stroke_width(2))])?;
    }
    let axis = vec![(low, LEAST), (high, LEAST)];
    chart.draw_series([PathElement::new(axis, GRAY.stroke_width(2))])?;
    Ok(())
}

/// The gray scale that all maps share, at the upper right.
fn draw_scale(area: &Area, right: usize, (low, high): (f32, f32)) -> Result<()> {
    const WIDTH: i32 = 256;
    let tone = Tone::gray(low, high);
    let x = right as i32 - 80 - WIDTH;
    let after = (right - 70, 23);
    text(area, small(GRAY), after, &short(high.into()))?;
    for i in 0..WIDTH {
        let value = low + (high - low) * i as f32 / (WIDTH - 1) as f32;
        let line = [(x + i, 20), (x + i, 41)];
        area.draw(&Rectangle::new(line, tone.colour(value).filled()))?;
    }
    area.draw(&Rectangle::new([(x, 20), (x + WIDTH - 1, 41)], GRAY))?;
    text_left_of(area, x as usize - 10, 23, &short(low.into()))
}

/// About as wide as a sheet is made.
const SHEET_WIDTH: usize = 2464;
/// What the longest name and caption take.
const MIN_CELL: usize = 124;

/// Draws photographs side by side, two a row from three on.
fn photographs(photos: &[Photo]) -> Result<Vec<u8>> {
    const LABEL: usize = 26;
    let columns = match photos.len() {
        few @ ..3 => few.max(1),
        many => many.div_ceil(2).min(4),
    };
    let size = photos
        .first()
        .map_or((1, 1), |photo| (photo.width, photo.height));
    // At its own size where there is room: more would show nothing more.
    let longest = size.0.max(size.1).max(128);
    let shown = scaled(size, longest.min(SHEET_WIDTH / columns - GAP));
    let cell = (shown.0.max(MIN_CELL) + GAP, shown.1 + LABEL + GAP);
    let rows = photos.len().div_ceil(columns);
    let (width, height) = (columns * cell.0 - GAP, rows * cell.1);
    page(width + 2 * MARGIN, height + 2 * MARGIN - GAP, |root| {
        let cells = inset(root, [MARGIN, MARGIN - GAP, MARGIN, MARGIN - GAP]);
        for (area, photo) in cells.split_evenly((rows, columns)).iter().zip(photos) {
            let planes = [0, 1, 2].map(|c| resample(photo.channel(c), size, shown));
            for pixel in 0..shown.0 * shown.1 {
                let [r, g, b] = planes.each_ref().map(|plane| plane[pixel].round() as u8);
                let at = ((pixel % shown.0) as i32, (pixel / shown.0) as i32);
                area.draw_pixel(at, &RGBColor(r, g, b))?;
            }
            let name = fit(&photo.name, cell.0 - GAP);
            text(area, small(INK), (0, shown.1 + 5), &name)?;
        }
        Ok(())
    })
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
    use super::*;

    #[test]
    fn numbers_have_colours() {
        let gray = |value| Tone::gray(-3.0, 3.0).colour(value).0;
        let values = [-9.0, -3.0, 0.0, 3.0, f32::INFINITY];
        assert_eq!(values.map(gray), [0, 0, 128, 255, 255]);
        let tone = Tone::signed(2.0);
        assert_eq!([0.0, -2.0, 5.0].map(|v| tone.colour(v)), [WHITE, BLUE, RED]);
        let empty = Tone::gray(1.0, 1.0);
        assert_eq!(empty.colour(1.0), BLACK);
        assert_eq!(empty.colour(f32::NAN), MAGENTA);
        assert_eq!(Tone::signed(0.0).colour(0.0), WHITE);
        let distinct: std::collections::HashSet<_> = (0..28).map(|i| colour(i).rgb()).collect();
        assert_eq!(distinct.len(), 28);
    }

    #[test]
    fn a_map_keeps_its_shape() {
        assert_eq!(scaled((288, 288), 140), (140, 140));
        assert_eq!(scaled((400, 200), 100), (100, 50));
        assert_eq!(scaled((3, 2), 140), (138, 92));
        assert_eq!(scaled((10_000, 1), 100), (100, 1));
        let values = [0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0];
        assert_eq!(resample(&values, (4, 2), (2, 1)), [5.0, 9.0]);
        let line = [1.0, 1.0, 2.0, 2.0];
        assert_eq!(resample(&[1.0, 2.0], (2, 1), (4, 2)), [line, line].concat());
        assert_eq!(resample(&values, (4, 2), (4, 2)), values);
    }

    fn photos(count: usize, (width, height): (usize, usize)) -> Vec<Photo> {
        let pixels = (0..3 * width * height).map(|i| (i % 256) as f32);
        let pixels: Vec<f32> = pixels.collect();
        let photo = Photo {
            name: "a photograph".into(),
            width,
            height,
            pixels,
        };
        vec![photo; count]
    }

    #[test]
    fn pages_have_room_for_any_batch_and_number_of_groups() {
        let size = |file: Vec<u8>| {
            let picture = image::load_from_memory(&file).unwrap().to_rgb8();
            // The lowest line and the last column are white: nothing was cut.
            let (width, height) = picture.dimensions();
            let white = |x, y| picture.get_pixel(x, y).0 == [255; 3];
            assert!((0..width).all(|x| white(x, height - 1)));
            assert!((0..height).all(|y| white(width - 1, y)));
            width
        };
        for shape in [(28, 28), (1, 1), (1, 90), (90, 1), (50, 7)] {
            for count in [1, 2, 3, 5] {
                let photos = photos(count, shape);
                let maps = Maps {
                    photos: &photos,
                    groups: 8,
                };
                let tensor = vec![1.0; count * CHANNELS * shape.0 * shape.1];
                assert!((1000..2600).contains(&size(maps.after(&tensor).unwrap())));
                assert!(size(photographs(&photos).unwrap()) < 2600);
            }
        }
        let photos = photos(1, (2, 2));
        for groups in [1, 2, 4, 8, 16, 32] {
            let maps = Maps {
                photos: &photos,
                groups,
            };
            let tensor: Vec<f32> = (0..CHANNELS * 4).map(|i| (i % 9) as f32).collect();
            let width = size(maps.histograms_before(&tensor).unwrap());
            assert!((1300..2600).contains(&width), "{groups}: {width}");
        }
    }

    #[test]
    fn each_map_is_drawn_in_its_place() {
        let photos = photos(1, (3, 2));
        let maps = Maps {
            photos: &photos,
            groups: 8,
        };
        let tensor: Vec<f32> = (0..CHANNELS * 6).map(|i| (i / 6 % 2) as f32).collect();
        let file = maps.gray(&tensor, "", "", (0.0, 2.0)).unwrap();
        let picture = image::load_from_memory(&file).unwrap().to_rgb8();
        let map = scaled((3, 2), SHEET_WIDTH / 8 - GAP);
        for (tile, gray) in [(0, 0), (1, 128)] {
            let (left, top) = (MARGIN + tile * (map.0 + GAP), 84 + 34);
            for (x, y) in [(left, top), (left + map.0 - 1, top + map.1 - 1)] {
                assert_eq!(picture.get_pixel(x as u32, y as u32).0, [gray; 3]);
            }
            assert_eq!(picture.get_pixel(left as u32, top as u32 - 1).0, [255; 3]);
        }
    }
}
