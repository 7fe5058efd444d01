//! Feature maps of photographs by a fixed bank: eight groups of four filters, in their textbook units, so that
//! the maps' scales differ as much as raw features' do.
//!
//! Every linear filter of the bank is a sum of products of a row filter and a column filter, so its cost grows
//! with its radius, not with its area. The angle of a filter with a direction is that of the line along which
//! brightness varies, from the x axis towards the lower right: 0° answers to vertical edges, 90° to horizontal
//! ones.

use super::photos::Photo;
use rayon::prelude::*;

pub const CHANNELS: usize = 4 * GROUPS.len();

pub const GROUPS: [Group; 8] = [
    Group {
        name: "colour",
        channels: ["red", "green", "blue", "luma"],
        compute: |p| p.clone(),
    },
    Group {
        name: "opponent colours",
        channels: ["red-green", "yellow-blue", "chroma", "colour edge"],
        compute: opponents,
    },
    Group {
        name: "Gaussian blur",
        channels: ["blur 1 px", "blur 2 px", "blur 4 px", "blur 8 px"],
        compute: |[.., luma]| SIGMAS.map(|sigma| blur(luma, sigma)),
    },
    Group {
        name: "difference of Gaussians",
        channels: ["band 1-2 px", "band 2-4 px", "band 4-8 px", "band 8-16 px"],
        compute: |[.., luma]| {
            SIGMAS.map(|sigma| blur(luma, sigma).zip(&blur(luma, 2.0 * sigma), |a, b| a - b))
        },
    },
    Group {
        name: "Sobel derivative",
        channels: ["Sobel 0°", "Sobel 45°", "Sobel 90°", "Sobel 135°"],
        compute: |[.., luma]| ANGLES.map(|angle| sobel(luma, angle)),
    },
    Group {
        name: "Gabor, lines",
        channels: [
            "line 6 px 0°",
            "line 6 px 45°",
            "line 6 px 90°",
            "line 6 px 135°",
        ],
        compute: |[.., luma]| ANGLES.map(|angle| gabor(luma, 6.0, angle, LINE)),
    },
    Group {
        name: "Gabor, edges",
        channels: [
            "edge 14 px 0°",
            "edge 14 px 45°",
            "edge 14 px 90°",
            "edge 14 px 135°",
        ],
        compute: |[.., luma]| ANGLES.map(|angle| gabor(luma, 14.0, angle, EDGE)),
    },
    Group {
        name: "texture",
        channels: ["Laplacian", "gradient", "variance 2 px", "variance 6 px"],
        compute: |[.., p]| {
            [
                laplacian(p),
                gradient(p),
                variance(p, 2.0),
                variance(p, 6.0),
            ]
        },
    },
];

const SIGMAS: [f64; 4] = [1.0, 2.0, 4.0, 8.0];
const ANGLES: [f64; 4] = [0.0, 45.0, 90.0, 135.0];
/// Phases of Gabor filters.
const LINE: f64 = 0.0;
const EDGE: f64 = 90.0;

/// Four related filters.
pub struct Group {
    pub name: &'static str,
    pub channels: [&'static str; 4],
    /// Their maps, of the planes of red, green, blue and luma (0 to 255).
    compute: fn(&[Plane; 4]) -> [Plane; 4],
}

pub fn channel_names() -> [&'static str; CHANNELS] {
    std::array::from_fn(|c| GROUPS[c / 4].channels[c % 4])
}

/// The feature maps of photographs of one size: (N, CHANNELS, height, width).
pub fn feature_maps(photos: &[Photo]) -> Vec<f32> {
    let area = photos.first().map_or(0, |photo| photo.width * photo.height);
    let mut maps = vec![0.0; photos.len() * CHANNELS * area];
    let jobs = maps.par_chunks_exact_mut(4 * area.max(1)).enumerate();
    jobs.for_each(|(job, maps)| {
        let planes = planes(&photos[job / GROUPS.len()]);
        let results = (GROUPS[job % GROUPS.len()].compute)(&planes);
        for (map, plane) in maps.chunks_exact_mut(area).zip(results) {
            map.copy_from_slice(&plane.values);
        }
    });
    maps
}

/// Red, green, blue and luma (Rec. 601) of a photograph.
fn planes(photo: &Photo) -> [Plane; 4] {
    let [red, green, blue] = [0, 1, 2].map(|channel| Plane {
        width: photo.width,
        height: photo.height,
        values: photo.channel(channel).to_vec(),
    });
    let yellow = red.zip(&green, |r, g| 0.299 * r + 0.587 * g);
    let luma = yellow.zip(&blue, |rg, b| rg + 0.114 * b);
    [red, green, blue, luma]
}

fn opponents([red, green, blue, _]: &[Plane; 4]) -> [Plane; 4] {
    let red_green = red.zip(green, |r, g| r - g);
    let yellow = red.zip(green, |r, g| 0.5 * (r + g));
    let yellow_blue = yellow.zip(blue, |y, b| y - b);
    let chroma = red_green.zip(&yellow_blue, f32::hypot);
    let edge = gradient(&red_green).zip(&gradient(&yellow_blue), f32::hypot);
    [red_green, yellow_blue, chroma, edge]
}

/// One value per pixel, row by row.
#[derive(Debug, Clone, PartialEq)]
struct Plane {
    width: usize,
    height: usize,
    values: Vec<f32>,
}

impl Plane {
    fn row(&self, y: usize) -> &[f32] {
        &self.values[y * self.width..(y + 1) * self.width]
    }

    fn map(&self, f: impl Fn(f32) -> f32) -> Self {
        let values = self.values.iter().map(|&value| f(value)).collect();
        Self { values, ..*self }
    }

    fn zip(&self, other: &Plane, f: impl Fn(f32, f32) -> f32) -> Self {
        let pairs = self.values.iter().zip(&other.values);
        let values = pairs.map(|(&a, &b)| f(a, b)).collect();
        Self { values, ..*self }
    }
}

/// The index that stands for `index` in a line of `len`: mirrored at the edges, the edge value repeated
/// (`c b a | a b c | c b a`), as often as it takes.
fn reflect(index: isize, len: usize) -> usize {
    let index = index.rem_euclid(2 * len as isize) as usize;
    index.min(2 * len - 1 - index)
}

/// A filter along a line: an odd number of taps around the middle one.
type Taps = Vec<f32>;

/// Samples a function at -radius..=radius.
fn sample(radius: usize, f: impl Fn(f64) -> f64) -> Taps {
    let radius = radius as isize;
    (-radius..=radius).map(|i| f(i as f64) as f32).collect()
}

fn scaled(taps: &[f32], factor: f64) -> Taps {
    taps.iter().map(|tap| tap * factor as f32).collect()
}

/// exp(-x^2 / (2 sigma^2)).
fn bell(x: f64, sigma: f64) -> f64 {
    (-0.5 * (x / sigma).powi(2)).exp()
}

/// Where a Gaussian is cut.
fn radius(sigma: f64) -> usize {
    (3.0 * sigma).ceil() as usize
}

/// A Gaussian with sum 1.
fn gaussian(sigma: f64) -> Taps {
    let taps = sample(radius(sigma), |x| bell(x, sigma));
    let sum: f32 = taps.iter().sum();
    taps.iter().map(|tap| tap / sum).collect()
}

/// Filters a plane by a sum of terms, each a row filter times a column filter: an output is the sum of tap
/// times the pixel that lies as far from it as the tap from the middle one.
fn filter(plane: &Plane, terms: &[(Taps, Taps)]) -> Plane {
    let (width, height) = (plane.width, plane.height);
    let mut sum = plane.map(|_| 0.0);
    for (row, column) in terms {
        let [before, above] = [row, column].map(|taps| taps.len() as isize / 2);
        let mut rows = plane.map(|_| 0.0);
        for (y, line) in rows.values.chunks_exact_mut(width).enumerate() {
            let pixel = |i: usize| plane.row(y)[reflect(i as isize - before, width)];
            let padded: Vec<f32> = (0..width + row.len() - 1).map(pixel).collect();
            for (k, &tap) in row.iter().enumerate() {
                add_scaled(line, &padded[k..k + width], tap);
            }
        }
        for (y, line) in sum.values.chunks_exact_mut(width).enumerate() {
            for (k, &tap) in column.iter().enumerate() {
                let source = reflect((y + k) as isize - above, height);
                add_scaled(line, rows.row(source), tap);
            }
        }
    }
    sum
}

fn add_scaled(sum: &mut [f32], values: &[f32], factor: f32) {
    if factor != 0.0 {
        for (sum, value) in sum.iter_mut().zip(values) {
            *sum += factor * value;
        }
    }
}

fn blur(plane: &Plane, sigma: f64) -> Plane {
    filter(plane, &[(gaussian(sigma), gaussian(sigma))])
}

/// Sobel's derivative, weights 1 2 1 across it, turned to any angle.
fn sobel(plane: &Plane, degrees: f64) -> Plane {
    let (derivative, smooth) = ([-1.0, 0.0, 1.0], vec![1.0, 2.0, 1.0]);
    let (sin, cos) = degrees.to_radians().sin_cos();
    let along_x = (scaled(&derivative, cos), smooth.clone());
    filter(plane, &[along_x, (smooth, scaled(&derivative, sin))])
}

/// The length of Sobel's gradient.
fn gradient(plane: &Plane) -> Plane {
    sobel(plane, 0.0).zip(&sobel(plane, 90.0), f32::hypot)
}

/// The four neighbours less four times the middle.
fn laplacian(plane: &Plane) -> Plane {
    let (second, one) = (vec![1.0, -2.0, 1.0], vec![1.0]);
    filter(plane, &[(second.clone(), one.clone()), (one, second)])
}

/// The variance about a local mean, both under a Gaussian: squares of brightness.
fn variance(plane: &Plane, sigma: f64) -> Plane {
    let deviation = plane.zip(&blur(plane, sigma), |value, mean| value - mean);
    blur(&deviation.map(|value| value * value), sigma)
}

/// A Gabor filter: a wave of the given length under a Gaussian of half that length, blind to constant
/// brightness, with gain 1 for the wave that it matches. Of phase 0 that is a cosine: lines; of 90° a sine: edges.
fn gabor(plane: &Plane, wavelength: f64, degrees: f64, phase: f64) -> Plane {
    let (sigma, phase) = (0.5 * wavelength, phase.to_radians());
    let radius = radius(sigma);
    let (sin, cos) = degrees.to_radians().sin_cos();
    let frequency = std::f64::consts::TAU / wavelength;
    // With sum 1 over the plane, half of the envelope's weight meets a wave of its own length.
    let bells = (0..=2 * radius).map(|i| bell(i as f64 - radius as f64, sigma));
    let norm = 2.0 / bells.sum::<f64>().powi(2);
    let wave = |f: fn(f64) -> f64, along: f64, phase: f64| {
        sample(radius, |x| {
            bell(x, sigma) * f(frequency * along * x - phase)
        })
    };
    let (row_cos, row_sin) = (wave(f64::cos, cos, phase), wave(f64::sin, cos, phase));
    let (column_cos, column_sin) = (wave(f64::cos, sin, 0.0), wave(f64::sin, sin, 0.0));
    let sum = |taps: &[f32]| taps.iter().copied().map(f64::from).sum::<f64>();
    // cos(a + b) = cos a cos b - sin a sin b, less its mean (column_sin sums to 0).
    let mean = norm * sum(&row_cos) * sum(&column_cos);
    let terms = [
        (scaled(&row_cos, norm), column_cos),
        (scaled(&row_sin, -norm), column_sin),
        (scaled(&gaussian(sigma), -mean), gaussian(sigma)),
    ];
    filter(plane, &terms)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plane(width: usize, height: usize, f: impl Fn(usize, usize) -> f32) -> Plane {
        let values = (0..width * height).map(|i| f(i % width, i / width));
        Plane {
            width,
            height,
            values: values.collect(),
        }
    }

    fn impulse(size: usize) -> Plane {
        plane(size, size, |x, y| f32::from(x == size / 2 && y == size / 2))
    }

    fn photo(width: usize, height: usize, f: impl Fn(usize, usize) -> [f32; 3]) -> Photo {
        let of = |channel| plane(width, height, |x, y| f(x, y)[channel]).values;
        let pixels = [0, 1, 2].map(of).concat();
        Photo {
            name: "test".into(),
            width,
            height,
            pixels,
        }
    }

    fn map<'a>(maps: &'a [f32], area: usize, n: usize, name: &str) -> &'a [f32] {
        let c = channel_names().iter().position(|&other| other == name);
        &maps[(n * CHANNELS + c.unwrap()) * area..][..area]
    }

    #[test]
    fn reflection_mirrors_at_both_edges() {
        let line: Vec<usize> = (-7..10).map(|i| reflect(i, 3)).collect();
        assert_eq!(line, [0, 0, 1, 2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0, 1, 2, 2]);
        assert!((-50..50).all(|i| reflect(i, 1) == 0));
    }

    #[test]
    fn a_blur_spreads_an_impulse_without_loss() {
        for sigma in [0.7, 1.0, 3.0] {
            let blurred = blur(&impulse(41), sigma);
            let sum: f32 = blurred.values.iter().sum();
            assert!((sum - 1.0).abs() < 1e-5, "sigma {sigma}: {sum}");
            let column = |x: usize| f64::from((0..41).map(|y| blurred.row(y)[x]).sum::<f32>());
            let variance = (0..41)
                .map(|x| column(x) * (x as f64 - 20.0).powi(2))
                .sum::<f64>();
            // What is cut beyond three standard deviations is missing from the variance.
            let ratio = variance.sqrt() / sigma;
            assert!((ratio - 1.0).abs() < 0.03, "sigma {sigma}: {ratio}");
        }
    }

    #[test]
    fn a_flat_plane_stays_flat_up_to_its_edges() {
        // The filter is far wider than the plane.
        for value in blur(&plane(5, 2, |_, _| 3.0), 8.0).values {
            assert!((value - 3.0).abs() < 1e-5, "{value}");
        }
    }

    #[test]
    fn taps_apply_in_their_order() {
        let next = (vec![0.0, 0.0, 1.0], vec![1.0]);
        let plane = plane(3, 1, |x, _| [1.0, 2.0, 4.0][x]);
        assert_eq!(filter(&plane, &[next]).values, [2.0, 4.0, 4.0]);
    }

    /// A grating whose brightness varies along the given angle.
    fn grating(wavelength: f64, degrees: f64) -> Plane {
        let (sin, cos) = degrees.to_radians().sin_cos();
        let frequency = std::f64::consts::TAU / wavelength;
        let wave = |x, y| (frequency * (cos * x as f64 + sin * y as f64)).cos();
        plane(96, 96, |x, y| (100.0 + wave(x, y)) as f32)
    }

    /// Root mean square away from the edges, where a mirrored grating is none.
    fn energy(plane: &Plane) -> f64 {
        let inner = (32..64).flat_map(|y| plane.row(y)[32..64].iter());
        (inner.map(|&value| f64::from(value).powi(2)).sum::<f64>() / 1024.0).sqrt()
    }

    #[test]
    fn oriented_filters_answer_to_their_own_angle_most() {
        type Filter = fn(&Plane, f64) -> Plane;
        let filters: [(&str, f64, f64, Filter); 4] = [
            // Turned by 45°, a derivative still sees cos 45° of the grating.
            ("sobel", 8.0, 0.72, sobel),
            ("line, 6 px", 6.0, 0.3, |p, a| gabor(p, 6.0, a, LINE)),
            ("edge, 6 px", 6.0, 0.3, |p, a| gabor(p, 6.0, a, EDGE)),
            ("edge, 14 px", 14.0, 0.3, |p, a| gabor(p, 14.0, a, EDGE)),
        ];
        for (name, wavelength, most, filter) in filters {
            for angle in ANGLES {
                let plane = grating(wavelength, angle);
                let own = energy(&filter(&plane, angle));
                for other in ANGLES.into_iter().filter(|&other| other != angle) {
                    let ratio = energy(&filter(&plane, other)) / own;
                    assert!(ratio < most, "{name}: {other}° over {angle}° is {ratio}");
                }
            }
        }
    }

    #[test]
    fn a_gabor_filter_has_gain_one_for_its_wave() {
        for phase in [LINE, EDGE] {
            for angle in ANGLES {
                let gain = energy(&gabor(&grating(9.0, angle), 9.0, angle, phase)) * 2f64.sqrt();
                assert!((gain - 1.0).abs() < 0.02, "{phase}° {angle}°: {gain}");
            }
        }
    }

    #[test]
    fn oriented_filters_are_blind_to_constant_brightness() {
        let flat = plane(20, 7, |_, _| 255.0);
        let mut results = vec![gradient(&flat)];
        for angle in ANGLES {
            results.push(sobel(&flat, angle));
            results.push(gabor(&flat, 6.0, angle, LINE));
            results.push(gabor(&flat, 14.0, angle, EDGE));
        }
        let mut values = results.iter().flat_map(|plane| &plane.values);
        assert!(values.all(|value| value.abs() < 1e-3));
    }

    #[test]
    fn sobel_has_its_textbook_weights() {
        let plane = impulse(5);
        // What an impulse leaves is the filter, turned by 180°.
        let x = sobel(&plane, 0.0);
        assert_eq!(&x.row(1)[1..4], [1.0, 0.0, -1.0]);
        assert_eq!(&x.row(2)[1..4], [2.0, 0.0, -2.0]);
        let y = sobel(&plane, 90.0);
        let expected = [[1.0, 2.0, 1.0], [0.0; 3], [-1.0, -2.0, -1.0]];
        for (row, expected) in (1..4).zip(expected) {
            for (value, expected) in y.row(row)[1..4].iter().zip(expected) {
                assert!((value - expected).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn there_are_as_many_names_as_maps_and_each_is_its_own() {
        const { assert!(CHANNELS >= 32) };
        let distinct: std::collections::BTreeSet<_> = channel_names().into();
        assert_eq!(distinct.len(), CHANNELS);
    }

    #[test]
    fn a_flat_photograph_has_colour_and_nothing_else() {
        let flat = photo(9, 6, |_, _| [200.0, 100.0, 50.0]);
        let maps = feature_maps(&[flat]);
        assert_eq!(maps.len(), CHANNELS * 54);
        for name in channel_names() {
            let expected = match name {
                "red" => 200.0,
                "green" | "red-green" | "yellow-blue" => 100.0,
                "blue" => 50.0,
                "chroma" => 100.0 * 2f32.sqrt(),
                "luma" => 124.2,
                blur if blur.starts_with("blur") => 124.2,
                _ => 0.0,
            };
            for value in map(&maps, 54, 0, name) {
                assert!(
                    (value - expected).abs() < 1e-3,
                    "{name}: {value}, not {expected}"
                );
            }
        }
    }

    #[test]
    fn maps_lie_where_the_tensor_has_them() {
        let photos = [10.0, 20.0].map(|gray| photo(3, 2, |x, _| [gray + x as f32; 3]));
        let maps = feature_maps(&photos);
        for (n, ten) in [(0, 10.0), (1, 20.0)] {
            let line = [ten, ten + 1.0, ten + 2.0];
            assert_eq!(map(&maps, 6, n, "green"), [line, line].concat());
        }
    }

    #[test]
    fn a_single_pixel_and_a_line_of_pixels_have_maps() {
        for (width, height) in [(1, 1), (1, 40), (40, 1)] {
            let noise = |x, y| [(x * 91 % 256) as f32, (y * 57 % 256) as f32, 7.0];
            let maps = feature_maps(&[photo(width, height, noise)]);
            assert_eq!(maps.len(), CHANNELS * width * height);
            assert!(maps.iter().all(|value| value.is_finite()));
        }
    }

    #[test]
    fn texture_filters_measure_what_they_say() {
        let middle = |photo, name| {
            let maps = feature_maps(&[photo]);
            map(&maps, 4096, 0, name)[32 * 64 + 32]
        };
        // Stripes of one pixel, 0 and 200: mean 100, variance 100^2.
        let stripes = photo(64, 64, |x, _| [(x % 2 * 200) as f32; 3]);
        for name in ["variance 2 px", "variance 6 px"] {
            let value = middle(stripes.clone(), name);
            // Where the Gaussian is cut, one stripe weighs more than its neighbour: by its last
            // tap, 0.2%, in the mean and twice that in squares.
            assert!((value / 1e4 - 1.0).abs() < 5e-3, "{name}: {value}");
        }
        // Brightness 0 with 200 on both sides.
        let laplacian = middle(stripes, "Laplacian");
        assert!((laplacian - 400.0).abs() < 0.1, "{laplacian}");
        // A ramp of 5 a pixel: Sobel's weights sum to 8.
        let gradient = middle(photo(64, 64, |x, _| [5.0 * x as f32; 3]), "gradient");
        assert!((gradient - 40.0).abs() < 1e-3, "{gradient}");
    }

    #[test]
    fn a_band_keeps_nothing_of_an_impulse_s_sum() {
        let point = photo(129, 129, |x, y| {
            [if (x, y) == (64, 64) { 255.0 } else { 0.0 }; 3]
        });
        let maps = feature_maps(&[point]);
        for name in GROUPS[3].channels {
            let sum: f32 = map(&maps, 129 * 129, 0, name).iter().sum();
            assert!(sum.abs() < 0.01, "{name}: {sum}");
        }
    }
}
