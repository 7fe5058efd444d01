//! The pictures of a run.

use super::draw::{
    Block, Canvas, Panel, Plot, Sheet, Tile, Tone, histograms, measured, mosaic, photographs, short,
};
use super::filters::{CHANNELS, GROUPS, channel_names};
use super::norm::LOSS;
use super::photos::Photo;
use crate::case::{Problem, Run};
use anyhow::Result;
use rayon::prelude::*;

/// Photographs whose maps are drawn; more would make sheets that no one can view.
const SHOWN: usize = 4;

/// How to read histograms.
const AXES: &str = "Share of the pixels of all photographs, on a logarithmic scale, by value. All \
                    panels have the same axes. Right of each name: mean ± standard deviation.";

/// Draws all pictures: name and contents of each file. `done` is called after each.
pub fn draw(
    photos: &[Photo],
    case: &Problem,
    outputs: &Run,
    done: &(dyn Fn() + Sync),
) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let (x, y, gradient) = (&case.x, outputs.get("y"), outputs.get("grad_x"));
    let maps = Maps {
        photos,
        area: photos.first().map_or(1, |photo| photo.width * photo.height),
        groups: case.norm.num_groups,
    };
    type Draw<'a> = &'a (dyn Fn() -> Canvas + Sync);
    let pictures: [(&str, Draw); 6] = [
        ("input.png", &|| photographs(photos)),
        ("features-before.png", &|| maps.before(x)),
        ("features-after.png", &|| maps.after(y)),
        ("gradient.png", &|| maps.gradients(gradient)),
        ("histograms-before.png", &|| maps.histograms_before(x)),
        ("histograms-after.png", &|| maps.histograms_after(y)),
    ];
    let drawn = pictures.into_par_iter().map(|(name, picture)| {
        let file = picture().png()?;
        done();
        Ok((name, file))
    });
    drawn.collect()
}

/// Mean and standard deviation, and the least and largest finite value.
struct Summary {
    mean: f64,
    deviation: f64,
    range: (f32, f32),
}

impl Summary {
    fn new(values: &[&[f32]]) -> Self {
        let all = || values.iter().copied().flatten().copied();
        let count = all().count().max(1) as f64;
        let mean = all().map(f64::from).sum::<f64>() / count;
        let squares = all().map(|value| (f64::from(value) - mean).powi(2));
        let finite = all().filter(|value| value.is_finite());
        Self {
            mean,
            deviation: (squares.sum::<f64>() / count).sqrt(),
            range: finite.fold((f32::MAX, f32::MIN), |(low, high), value| {
                (low.min(value), high.max(value))
            }),
        }
    }

    fn caption(&self) -> String {
        measured(self.mean, self.deviation)
    }

    /// The range of several; from 0 to 1 where nothing is finite.
    fn range<'a>(summaries: impl IntoIterator<Item = &'a Summary>) -> (f32, f32) {
        let ranges = summaries.into_iter().map(|summary| summary.range);
        let (low, high) = ranges.fold((f32::MAX, f32::MIN), |all, one| {
            (all.0.min(one.0), all.1.max(one.1))
        });
        if low <= high { (low, high) } else { (0.0, 1.0) }
    }
}

/// Where maps are in a tensor, and what they are called.
struct Maps<'a> {
    photos: &'a [Photo],
    area: usize,
    groups: usize,
}

impl Maps<'_> {
    /// One map of a tensor.
    fn get<'t>(&self, tensor: &'t [f32], photo: usize, channel: usize) -> &'t [f32] {
        let start = (photo * CHANNELS + channel) * self.area;
        tensor.get(start..start + self.area).unwrap_or_default()
    }

    /// What there is to say of each channel, all photographs together, and its maps.
    fn channels<'t>(&self, tensor: &'t [f32]) -> Vec<(Summary, Vec<&'t [f32]>)> {
        let channel = |c| {
            let maps = (0..self.photos.len()).map(|photo| self.get(tensor, photo, c));
            let maps: Vec<&[f32]> = maps.collect();
            (Summary::new(&maps), maps)
        };
        (0..CHANNELS).into_par_iter().map(channel).collect()
    }

    /// A sheet of the maps of a tensor. `tile` says which caption and which tone a map has.
    fn sheet(
        &self,
        tensor: &[f32],
        (title, note): (&str, &str),
        scale: Option<Tone>,
        tile: impl Fn(&[f32]) -> (String, Tone),
    ) -> Canvas {
        let names = channel_names();
        let tile = |photo, channel| {
            let values = self.get(tensor, photo, channel);
            let (caption, tone) = tile(values);
            let name = names[channel];
            Tile {
                name,
                caption,
                values,
                tone,
            }
        };
        let blocks = self.photos.iter().take(SHOWN).enumerate();
        let blocks = blocks.map(|(i, photo)| Block {
            name: &photo.name,
            tiles: (0..CHANNELS).map(|channel| tile(i, channel)).collect(),
        });
        let which = match self.photos.len() {
            ..=SHOWN => String::new(),
            all => format!(" First {SHOWN} of {all} photographs."),
        };
        mosaic(&Sheet {
            title,
            note: &format!("{note}{which}"),
            scale,
            size: self
                .photos
                .first()
                .map_or((1, 1), |photo| (photo.width, photo.height)),
            blocks: blocks.collect(),
        })
    }

    fn before(&self, x: &[f32]) -> Canvas {
        // The rule of the other sheet: three standard deviations either side of the mean.
        let all = Summary::new(&[x]);
        let end = |side: f64| (all.mean + side * 3.0 * all.deviation) as f32;
        let note = format!(
            "{CHANNELS} feature maps of each photograph, all on one linear scale: some saturate, most \
             vanish. Below each: mean ± standard deviation."
        );
        self.gray(
            x,
            ("Before: raw feature maps", &note),
            (end(-1.0), end(1.0)),
        )
    }

    fn after(&self, y: &[f32]) -> Canvas {
        let note = format!(
            "The same maps after Batch-Channel Normalization, {} groups, all on one linear scale. \
             Below each: mean ± standard deviation.",
            self.groups
        );
        self.gray(y, ("After: normalized feature maps", &note), (-3.0, 3.0))
    }

    /// A sheet whose maps share a scale.
    fn gray(&self, tensor: &[f32], titles: (&str, &str), (low, high): (f32, f32)) -> Canvas {
        let tone = Tone::Gray { low, high };
        let tile = |map: &[f32]| (Summary::new(&[map]).caption(), tone);
        self.sheet(tensor, titles, Some(tone), tile)
    }

    fn gradients(&self, dx: &[f32]) -> Canvas {
        let title = "Backward: gradient with respect to the raw feature maps";
        let note = format!(
            "The gradient of {LOSS}. Red: more would raise the loss; blue: lower it. Below each map: \
             its own scale."
        );
        self.sheet(dx, (title, &note), None, |map| {
            let limit = high_magnitude(map);
            (format!("± {}", short(limit.into())), Tone::Signed { limit })
        })
    }

    fn histograms_before(&self, x: &[f32]) -> Canvas {
        let channels = self.channels(x);
        let (low, high) = Summary::range(channels.iter().map(|(summary, _)| summary));
        let range = (low.into(), high.into());
        self.histograms("Before: raw feature maps", AXES, range, channels)
    }

    fn histograms_after(&self, y: &[f32]) -> Canvas {
        const END: f32 = 6.0;
        let beyond = y.iter().filter(|value| !(-END..=END).contains(*value));
        let share = 100.0 * beyond.count() as f64 / y.len().max(1) as f64;
        let note = format!("{AXES} {}% of the values lie beyond.", short(share));
        let range = (-f64::from(END), END.into());
        self.histograms(
            "After: normalized feature maps",
            &note,
            range,
            self.channels(y),
        )
    }

    /// One panel for each group.
    fn histograms(
        &self,
        title: &str,
        note: &str,
        range: (f64, f64),
        channels: Vec<(Summary, Vec<&[f32]>)>,
    ) -> Canvas {
        let channels = channels.into_iter().zip(channel_names());
        let mut channels = channels.map(|((summary, maps), name)| (name, summary.caption(), maps));
        let panel = |g: usize| Panel {
            title: match GROUPS.get(g) {
                Some(group) if self.groups == GROUPS.len() => {
                    format!("group {}: {}", g + 1, group.name)
                }
                _ => format!("group {}", g + 1),
            },
            channels: channels.by_ref().take(CHANNELS / self.groups).collect(),
        };
        let panels = (0..self.groups).map(panel).collect();
        histograms(&Plot {
            title,
            note,
            range,
            panels,
        })
    }
}

/// The magnitude that 99 of 100 values do not exceed: outliers would leave the others pale.
fn high_magnitude(values: &[f32]) -> f32 {
    let sizes = values.iter().map(|value| value.abs());
    let mut sizes: Vec<f32> = sizes.filter(|size| size.is_finite()).collect();
    let Some(last) = sizes.len().checked_sub(1) else {
        return 1.0;
    };
    *sizes
        .select_nth_unstable_by(last * 99 / 100, f32::total_cmp)
        .1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_count_what_they_say() {
        let summary = Summary::new(&[&[1.0, 2.0], &[6.0]]);
        assert_eq!(summary.mean, 3.0);
        assert!((summary.deviation - (14.0f64 / 3.0).sqrt()).abs() < 1e-12);
        assert_eq!(summary.range, (1.0, 6.0));
        assert_eq!(summary.caption(), "3.0 ± 2.2");
    }

    #[test]
    fn ranges_leave_out_what_is_not_finite() {
        let good = Summary::new(&[&[1.0, 2.0, f32::INFINITY]]);
        let bad = Summary::new(&[&[f32::NAN]]);
        assert_eq!(Summary::range([&good, &bad]), (1.0, 2.0));
        assert_eq!(Summary::range([&bad]), (0.0, 1.0));
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
