//! The bank: eight groups of four filters, in their textbook units, so that the maps' scales
//! differ as much as raw features' do.

use super::oriented::{Phase, gabor, gradient, sobel};
use super::plane::Plane;
use super::separable::blur;
use crate::demo::parallel;
use crate::demo::photos::Photo;

/// Four related filters.
pub struct Group {
    /// What they have in common.
    pub name: &'static str,
    /// The four filters' names.
    pub channels: [&'static str; 4],
    compute: fn(&Pixels) -> [Plane; 4],
}

/// A photograph's planes, 0 to 255.
struct Pixels {
    red: Plane,
    green: Plane,
    blue: Plane,
    luma: Plane,
}

/// Number of feature maps of a photograph.
pub const CHANNELS: usize = 4 * GROUPS.len();

/// The bank.
pub const GROUPS: [Group; 8] = [
    Group {
        name: "colour",
        channels: ["red", "green", "blue", "luma"],
        compute: |p| {
            [
                p.red.clone(),
                p.green.clone(),
                p.blue.clone(),
                p.luma.clone(),
            ]
        },
    },
    Group {
        name: "opponent colours",
        channels: ["red-green", "yellow-blue", "chroma", "colour edge"],
        compute: opponents,
    },
    Group {
        name: "Gaussian blur",
        channels: ["blur 1 px", "blur 2 px", "blur 4 px", "blur 8 px"],
        compute: |p| [1.0, 2.0, 4.0, 8.0].map(|sigma| blur(&p.luma, sigma)),
    },
    Group {
        name: "difference of Gaussians",
        channels: ["band 1-2 px", "band 2-4 px", "band 4-8 px", "band 8-16 px"],
        compute: |p| [1.0, 2.0, 4.0, 8.0].map(|sigma| band(&p.luma, sigma)),
    },
    Group {
        name: "Sobel derivative",
        channels: ["Sobel 0°", "Sobel 45°", "Sobel 90°", "Sobel 135°"],
        compute: |p| ANGLES.map(|angle| sobel(&p.luma, angle)),
    },
    Group {
        name: "Gabor, lines",
        channels: [
            "line 6 px 0°",
            "line 6 px 45°",
            "line 6 px 90°",
            "line 6 px 135°",
        ],
        compute: |p| ANGLES.map(|angle| gabor(&p.luma, 6.0, angle, Phase::Line)),
    },
    Group {
        name: "Gabor, edges",
        channels: [
            "edge 14 px 0°",
            "edge 14 px 45°",
            "edge 14 px 90°",
            "edge 14 px 135°",
        ],
        compute: |p| ANGLES.map(|angle| gabor(&p.luma, 14.0, angle, Phase::Edge)),
    },
    Group {
        name: "texture",
        channels: ["Laplacian", "gradient", "variance 2 px", "variance 6 px"],
        compute: |p| {
            [
                laplacian(&p.luma),
                gradient(&p.luma),
                variance(&p.luma, 2.0),
                variance(&p.luma, 6.0),
            ]
        },
    },
];

const ANGLES: [f64; 4] = [0.0, 45.0, 90.0, 135.0];

/// The names of all channels, in order.
pub fn channel_names() -> [&'static str; CHANNELS] {
    std::array::from_fn(|c| GROUPS[c / 4].channels[c % 4])
}

/// The feature maps of photographs of one size: (N, CHANNELS, height, width). Several threads
/// share the work; `done` is called after each of the [`GROUPS`] of each photograph.
pub fn feature_maps(photos: &[Photo], done: &(dyn Fn() + Sync)) -> Vec<f32> {
    let Some(first) = photos.first() else {
        return Vec::new();
    };
    let area = first.width * first.height;
    let mut maps = vec![0.0; photos.len() * CHANNELS * area];
    let jobs = maps.chunks_exact_mut(4 * area).enumerate();
    parallel::for_each(jobs, |(job, maps)| {
        let pixels = Pixels::of(&photos[job / GROUPS.len()]);
        let planes = (GROUPS[job % GROUPS.len()].compute)(&pixels);
        for (map, plane) in maps.chunks_exact_mut(area).zip(planes) {
            map.copy_from_slice(&plane.values);
        }
        done();
    });
    maps
}

impl Pixels {
    fn of(photo: &Photo) -> Self {
        let [red, green, blue] = [0, 1, 2].map(|channel| Plane {
            width: photo.width,
            height: photo.height,
            values: photo.channel(channel).to_vec(),
        });
        // Rec. 601.
        let luma = red
            .zip(&green, |r, g| 0.299 * r + 0.587 * g)
            .zip(&blue, |rg, b| rg + 0.114 * b);
        Self {
            red,
            green,
            blue,
            luma,
        }
    }
}

fn opponents(p: &Pixels) -> [Plane; 4] {
    let red_green = p.red.zip(&p.green, |r, g| r - g);
    let yellow = p.red.zip(&p.green, |r, g| 0.5 * (r + g));
    let yellow_blue = yellow.zip(&p.blue, |y, b| y - b);
    let chroma = red_green.zip(&yellow_blue, f32::hypot);
    let edge = gradient(&red_green).zip(&gradient(&yellow_blue), f32::hypot);
    [red_green, yellow_blue, chroma, edge]
}

/// What lies between a blur and one twice as wide.
fn band(plane: &Plane, sigma: f64) -> Plane {
    blur(plane, sigma).zip(&blur(plane, 2.0 * sigma), |fine, coarse| fine - coarse)
}

/// The four neighbours less four times the middle.
fn laplacian(plane: &Plane) -> Plane {
    use super::separable::{Term, filter};
    let second = [1.0, -2.0, 1.0];
    let along_x = Term {
        row: second.into(),
        column: [1.0].into(),
    };
    let along_y = Term {
        row: [1.0].into(),
        column: second.into(),
    };
    filter(plane, &[along_x, along_y])
}

/// The variance about a local mean, both under a Gaussian: squares of brightness.
fn variance(plane: &Plane, sigma: f64) -> Plane {
    let square = |value: f32| value * value;
    let deviation = plane.zip(&blur(plane, sigma), |value, mean| value - mean);
    blur(&deviation.map(square), sigma)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn photo(width: usize, height: usize, f: impl Fn(usize, usize) -> [f32; 3]) -> Photo {
        let mut pixels = vec![0.0; 3 * width * height];
        for i in 0..width * height {
            for (channel, value) in f(i % width, i / width).into_iter().enumerate() {
                pixels[channel * width * height + i] = value;
            }
        }
        Photo {
            name: "test".into(),
            width,
            height,
            pixels,
        }
    }

    fn map<'a>(maps: &'a [f32], area: usize, n: usize, name: &str) -> &'a [f32] {
        let c = channel_names()
            .iter()
            .position(|&other| other == name)
            .unwrap();
        &maps[(n * CHANNELS + c) * area..][..area]
    }

    #[test]
    fn there_are_as_many_names_as_maps_and_each_is_its_own() {
        let names = channel_names();
        const { assert!(CHANNELS >= 32) };
        let distinct: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(distinct.len(), CHANNELS);
    }

    #[test]
    fn a_flat_photograph_has_colour_and_nothing_else() {
        let flat = photo(9, 6, |_, _| [200.0, 100.0, 50.0]);
        let maps = feature_maps(&[flat], &|| {});
        assert_eq!(maps.len(), CHANNELS * 54);
        let expected = |name: &str| match name {
            "red" => 200.0,
            "green" | "red-green" | "yellow-blue" => 100.0,
            "blue" => 50.0,
            "chroma" => 100.0 * 2f32.sqrt(),
            "luma" => 124.2,
            blur if blur.starts_with("blur") => 124.2,
            _ => 0.0,
        };
        for name in channel_names() {
            for value in map(&maps, 54, 0, name) {
                let error = (value - expected(name)).abs();
                assert!(error < 1e-3, "{name}: {value}, not {}", expected(name));
            }
        }
    }

    #[test]
    fn maps_lie_where_the_tensor_has_them() {
        let photos = [10.0, 20.0].map(|gray| photo(3, 2, |x, _| [gray + x as f32; 3]));
        let maps = feature_maps(&photos, &|| {});
        assert_eq!(
            map(&maps, 6, 0, "green"),
            [10.0, 11.0, 12.0, 10.0, 11.0, 12.0]
        );
        assert_eq!(
            map(&maps, 6, 1, "green"),
            [20.0, 21.0, 22.0, 20.0, 21.0, 22.0]
        );
    }

    #[test]
    fn a_single_pixel_and_a_line_of_pixels_have_maps() {
        for (width, height) in [(1, 1), (1, 40), (40, 1)] {
            let noise = photo(width, height, |x, y| {
                [(x * 91 % 256) as f32, (y * 57 % 256) as f32, 7.0]
            });
            let maps = feature_maps(&[noise], &|| {});
            assert_eq!(maps.len(), CHANNELS * width * height);
            assert!(maps.iter().all(|value| value.is_finite()));
        }
    }

    #[test]
    fn texture_filters_measure_what_they_say() {
        // Stripes of one pixel, 0 and 200: mean 100, variance 100^2.
        let stripes = photo(64, 64, |x, _| [(x % 2 * 200) as f32; 3]);
        let maps = feature_maps(&[stripes], &|| {});
        let middle = 32 * 64 + 32;
        for name in ["variance 2 px", "variance 6 px"] {
            let value = map(&maps, 4096, 0, name)[middle];
            // Where the Gaussian is cut, one stripe weighs more than its neighbour: by its last
            // tap, 0.2%, in the mean and twice that in squares.
            assert!((value / 1e4 - 1.0).abs() < 5e-3, "{name}: {value}");
        }
        // Brightness 0 with 200 on both sides.
        let laplacian = map(&maps, 4096, 0, "Laplacian")[middle];
        assert!((laplacian - 400.0).abs() < 0.1, "{laplacian}");
        // A ramp of 5 a pixel: Sobel's weights sum to 8.
        let ramp = photo(64, 64, |x, _| [5.0 * x as f32; 3]);
        let maps = feature_maps(&[ramp], &|| {});
        let gradient = map(&maps, 4096, 0, "gradient")[middle];
        assert!((gradient - 40.0).abs() < 1e-3, "{gradient}");
    }

    #[test]
    fn a_band_keeps_nothing_of_an_impulse_s_sum() {
        let mut point = photo(129, 129, |_, _| [0.0; 3]);
        for channel in 0..3 {
            point.pixels[channel * 129 * 129 + 64 * 129 + 64] = 255.0;
        }
        let maps = feature_maps(&[point], &|| {});
        for name in GROUPS[3].channels {
            let sum: f32 = map(&maps, 129 * 129, 0, name).iter().sum();
            assert!(sum.abs() < 0.01, "{name}: {sum}");
        }
    }
}
