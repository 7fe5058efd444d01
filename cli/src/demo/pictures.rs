//! The pictures of a run.

use super::draw::{
    Block, Panel, Plot, Sheet, Tile, Tone, histograms, measured, mosaic, photographs, short,
};
use super::filters::{CHANNELS, GROUPS, channel_names};
use super::norm::LOSS;
use super::parallel;
use super::photos::Photo;
use crate::case::{Problem, Run};
use anyhow::Result;

/// Photographs whose maps are drawn; more would make sheets that no one can view.
const SHOWN: usize = 4;

/// Draws all pictures: name and contents of each file. `done` is called after each.
pub fn draw(
    photos: &[Photo],
    case: &Problem,
    outputs: &Run,
    done: &(dyn Fn() + Sync),
) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let (y, gradient) = (outputs.get("y"), outputs.get("grad_x"));
    let maps = Maps::new(photos, case);
    type Draw<'a> = &'a (dyn Fn() -> Result<Vec<u8>> + Sync);
    let pictures: [(&str, Draw); 6] = [
        ("input.png", &|| photographs(photos).png()),
        ("features-before.png", &|| before(&maps, &case.x)),
        ("features-after.png", &|| after(&maps, y)),
        ("gradient.png", &|| gradients(&maps, gradient)),
        ("histograms-before.png", &|| {
            histograms_before(&maps, &case.x)
        }),
        ("histograms-after.png", &|| histograms_after(&maps, y)),
    ];
    let drawn = parallel::map(pictures.into_iter(), |(name, picture)| {
        let file = picture()?;
        done();
        Ok((name, file))
    });
    drawn.into_iter().collect()
}

/// Where maps are in a tensor, and what they are called.
struct Maps<'a> {
    photos: &'a [Photo],
    size: (usize, usize),
    names: [&'static str; CHANNELS],
    groups: usize,
}

/// Mean and standard deviation, and the least and largest finite value.
struct Summary {
    mean: f64,
    deviation: f64,
    least: f32,
    largest: f32,
}

impl Summary {
    fn new(values: &[&[f32]]) -> Self {
        let all = || values.iter().copied().flatten().copied();
        let count = all().count().max(1) as f64;
        let mean = all().map(f64::from).sum::<f64>() / count;
        let squares = all().map(|value| (f64::from(value) - mean).powi(2));
        let finite = || all().filter(|value| value.is_finite());
        Self {
            mean,
            deviation: (squares.sum::<f64>() / count).sqrt(),
            least: finite().fold(f32::MAX, f32::min),
            largest: finite().fold(f32::MIN, f32::max),
        }
    }

    fn caption(&self) -> String {
        measured(self.mean, self.deviation)
    }

    /// The range of several; from 0 to 1 where nothing is finite.
    fn range<'a>(summaries: impl Iterator<Item = &'a Summary>) -> (f32, f32) {
        let (low, high) = summaries.fold((f32::MAX, f32::MIN), |(low, high), summary| {
            (low.min(summary.least), high.max(summary.largest))
        });
        if low <= high { (low, high) } else { (0.0, 1.0) }
    }
}

impl<'a> Maps<'a> {
    fn new(photos: &'a [Photo], case: &Problem) -> Self {
        Self {
            photos,
            size: photos
                .first()
                .map_or((1, 1), |photo| (photo.width, photo.height)),
            names: channel_names(),
            groups: case.norm.num_groups,
        }
    }

    fn shown(&self) -> usize {
        self.photos.len().min(SHOWN)
    }

    /// One map of a tensor.
    fn get<'t>(&self, tensor: &'t [f32], photo: usize, channel: usize) -> &'t [f32] {
        let area = self.size.0 * self.size.1;
        let start = (photo * CHANNELS + channel) * area;
        tensor.get(start..start + area).unwrap_or_default()
    }

    /// A channel of all photographs.
    fn channel<'t>(&self, tensor: &'t [f32], channel: usize) -> Vec<&'t [f32]> {
        let photos = 0..self.photos.len();
        photos
            .map(|photo| self.get(tensor, photo, channel))
            .collect()
    }

    /// Says something of each map that is shown, photograph by photograph.
    fn of_each<T>(&self, tensor: &[f32], say: impl Fn(&[f32]) -> T) -> Vec<T> {
        let maps = 0..self.shown() * CHANNELS;
        maps.map(|i| say(self.get(tensor, i / CHANNELS, i % CHANNELS)))
            .collect()
    }

    /// Blocks of tiles, with a caption and a tone for each map that is shown.
    fn blocks<'t>(&'t self, tensor: &'t [f32], captions: Vec<(String, Tone)>) -> Vec<Block<'t>> {
        let mut captions = captions.into_iter();
        let mut tiles = |photo: usize| {
            let named = self.names.iter().enumerate().zip(captions.by_ref());
            named
                .map(|((channel, name), (caption, tone))| Tile {
                    name,
                    caption,
                    values: self.get(tensor, photo, channel),
                    tone,
                })
                .collect()
        };
        let photos = self.photos.iter().take(SHOWN).enumerate();
        photos
            .map(|(i, photo)| Block {
                name: &photo.name,
                tiles: tiles(i),
            })
            .collect()
    }

    /// The words that say that not all photographs are shown.
    fn which(&self) -> String {
        match self.photos.len() {
            ..=SHOWN => String::new(),
            all => format!(" First {SHOWN} of {all} photographs."),
        }
    }

    /// One panel for each group.
    fn panels<'t>(&'t self, tensor: &'t [f32], summaries: &[Summary]) -> Vec<Panel<'t>> {
        let per_group = CHANNELS / self.groups;
        let panel = |g: usize| Panel {
            title: match GROUPS.get(g) {
                Some(group) if self.groups == GROUPS.len() => {
                    format!("group {}: {}", g + 1, group.name)
                }
                _ => format!("group {}", g + 1),
            },
            channels: (g * per_group..(g + 1) * per_group)
                .map(|c| {
                    let values = self.channel(tensor, c);
                    (self.names[c], summaries[c].caption(), values)
                })
                .collect(),
        };
        (0..self.groups).map(panel).collect()
    }
}

fn before(maps: &Maps, x: &[f32]) -> Result<Vec<u8>> {
    // The rule of the other sheet: three standard deviations either side of the mean.
    let all = Summary::new(&[x]);
    let tone = Tone::Gray {
        low: (all.mean - 3.0 * all.deviation) as f32,
        high: (all.mean + 3.0 * all.deviation) as f32,
    };
    let captions = maps.of_each(x, |map| (Summary::new(&[map]).caption(), tone));
    let note = format!(
        "{CHANNELS} feature maps of each photograph, all on one linear scale: some saturate, most \
         vanish. Below each: mean ± standard deviation.{}",
        maps.which()
    );
    let sheet = Sheet {
        title: "Before: raw feature maps",
        note: &note,
        scale: Some(tone),
        size: maps.size,
        blocks: maps.blocks(x, captions),
    };
    mosaic(&sheet).png()
}

fn after(maps: &Maps, y: &[f32]) -> Result<Vec<u8>> {
    let tone = Tone::Gray {
        low: -3.0,
        high: 3.0,
    };
    let captions = maps.of_each(y, |map| (Summary::new(&[map]).caption(), tone));
    let note = format!(
        "The same maps after Batch-Channel Normalization, {} groups, all on one linear scale. \
         Below each: mean ± standard deviation.{}",
        maps.groups,
        maps.which()
    );
    let sheet = Sheet {
        title: "After: normalized feature maps",
        note: &note,
        scale: Some(tone),
        size: maps.size,
        blocks: maps.blocks(y, captions),
    };
    mosaic(&sheet).png()
}

fn gradients(maps: &Maps, dx: &[f32]) -> Result<Vec<u8>> {
    let captions = maps.of_each(dx, |map| {
        let limit = high_magnitude(map);
        (format!("± {}", short(limit.into())), Tone::Signed { limit })
    });
    let note = format!(
        "The gradient of {LOSS}. Red: more would raise the loss; blue: lower it. Below each map: \
         its own scale.{}",
        maps.which()
    );
    let sheet = Sheet {
        title: "Backward: gradient with respect to the raw feature maps",
        note: &note,
        scale: None,
        size: maps.size,
        blocks: maps.blocks(dx, captions),
    };
    mosaic(&sheet).png()
}

/// The magnitude that 99 of 100 values do not exceed: outliers would leave the others pale.
fn high_magnitude(values: &[f32]) -> f32 {
    let mut sizes: Vec<f32> = values
        .iter()
        .map(|v| v.abs())
        .filter(|v| v.is_finite())
        .collect();
    let Some(last) = sizes.len().checked_sub(1) else {
        return 1.0;
    };
    let (_, &mut limit, _) = sizes.select_nth_unstable_by(last * 99 / 100, f32::total_cmp);
    limit
}

/// How to read histograms.
const AXES: &str = "Share of the pixels of all photographs, on a logarithmic scale, by value. All \
                    panels have the same axes. Right of each name: mean ± standard deviation.";

fn histograms_before(maps: &Maps, x: &[f32]) -> Result<Vec<u8>> {
    let summaries = of_each_channel(maps, x);
    let (low, high) = Summary::range(summaries.iter());
    let plot = Plot {
        title: "Before: raw feature maps",
        note: AXES,
        range: (low.into(), high.into()),
        panels: maps.panels(x, &summaries),
    };
    histograms(&plot).png()
}

fn histograms_after(maps: &Maps, y: &[f32]) -> Result<Vec<u8>> {
    const END: f32 = 6.0;
    let summaries = of_each_channel(maps, y);
    let beyond = y
        .iter()
        .filter(|value| !(-END..=END).contains(*value))
        .count();
    let note = format!(
        "{AXES} {}% of the values lie beyond.",
        short(100.0 * beyond as f64 / y.len().max(1) as f64)
    );
    let plot = Plot {
        title: "After: normalized feature maps",
        note: &note,
        range: (-f64::from(END), END.into()),
        panels: maps.panels(y, &summaries),
    };
    histograms(&plot).png()
}

fn of_each_channel(maps: &Maps, tensor: &[f32]) -> Vec<Summary> {
    parallel::map(0..CHANNELS, |c| Summary::new(&maps.channel(tensor, c)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_count_what_they_say() {
        let summary = Summary::new(&[&[1.0, 2.0], &[6.0]]);
        assert_eq!(summary.mean, 3.0);
        assert!((summary.deviation - (14.0f64 / 3.0).sqrt()).abs() < 1e-12);
        assert_eq!((summary.least, summary.largest), (1.0, 6.0));
        assert_eq!(summary.caption(), "3.0 ± 2.2");
    }

    #[test]
    fn ranges_leave_out_what_is_not_finite() {
        let good = Summary::new(&[&[1.0, 2.0, f32::INFINITY]]);
        let bad = Summary::new(&[&[f32::NAN]]);
        assert_eq!(Summary::range([&good, &bad].into_iter()), (1.0, 2.0));
        assert_eq!(Summary::range([&bad].into_iter()), (0.0, 1.0));
        assert_eq!(high_magnitude(&[f32::NAN]), 1.0);
        assert_eq!(high_magnitude(&[]), 1.0);
    }

    #[test]
    fn one_outlier_does_not_set_the_scale() {
        let mut values = vec![-2.0; 200];
        values[7] = 1e9;
        assert_eq!(high_magnitude(&values), 2.0);
    }
}
