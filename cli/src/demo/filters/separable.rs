//! Convolution by filters that are sums of products of a row filter and a column filter. Every
//! linear filter of the bank is one, so its cost grows with its radius, not with its area.

use super::plane::{Plane, reflect};

/// A filter along a line: an odd number of taps around the middle one.
#[derive(Debug, Clone, PartialEq)]
pub struct Taps(Vec<f32>);

impl Taps {
    /// Samples a function at -radius..=radius.
    pub fn sample(radius: usize, f: impl Fn(f64) -> f64) -> Self {
        let radius = radius as isize;
        Self((-radius..=radius).map(|i| f(i as f64) as f32).collect())
    }

    /// A Gaussian, cut at three standard deviations, with sum 1.
    pub fn gaussian(sigma: f64) -> Self {
        Self::sample(radius(sigma), |x| bell(x, sigma)).scaled_to_one()
    }

    /// The taps divided by their sum.
    fn scaled_to_one(mut self) -> Self {
        let sum: f32 = self.0.iter().sum();
        self.0.iter_mut().for_each(|tap| *tap /= sum);
        self
    }

    /// The taps times a factor.
    pub fn scaled(mut self, factor: f64) -> Self {
        self.0.iter_mut().for_each(|tap| *tap *= factor as f32);
        self
    }

    /// Their sum.
    pub fn sum(&self) -> f64 {
        self.0.iter().map(|&tap| f64::from(tap)).sum()
    }

    fn radius(&self) -> usize {
        self.0.len() / 2
    }
}

impl<const N: usize> From<[f32; N]> for Taps {
    fn from(taps: [f32; N]) -> Self {
        Self(taps.to_vec())
    }
}

/// Where a Gaussian is cut.
pub fn radius(sigma: f64) -> usize {
    (3.0 * sigma).ceil() as usize
}

/// exp(-x^2 / (2 sigma^2)).
pub fn bell(x: f64, sigma: f64) -> f64 {
    (-0.5 * (x / sigma).powi(2)).exp()
}

/// A row filter times a column filter.
#[derive(Debug, Clone, PartialEq)]
pub struct Term {
    /// Along x.
    pub row: Taps,
    /// Along y.
    pub column: Taps,
}

impl Term {
    /// Adds the filtered plane to `sum`.
    fn add_to(&self, sum: &mut Plane, plane: &Plane) {
        let rows = along_rows(plane, &self.row);
        let radius = self.column.radius() as isize;
        let width = plane.width;
        for (y, line) in sum.values.chunks_exact_mut(width).enumerate() {
            for (k, &tap) in self.column.0.iter().enumerate() {
                if tap != 0.0 {
                    let source = reflect(y as isize + k as isize - radius, plane.height);
                    add_scaled(line, rows.row(source), tap);
                }
            }
        }
    }
}

/// Filters a plane by a sum of terms: each output is the sum of tap times the pixel that lies as
/// far from it as the tap from the middle one.
pub fn filter(plane: &Plane, terms: &[Term]) -> Plane {
    let mut sum = Plane::zeros(plane.width, plane.height);
    for term in terms {
        term.add_to(&mut sum, plane);
    }
    sum
}

/// A Gaussian blur.
pub fn blur(plane: &Plane, sigma: f64) -> Plane {
    let taps = Taps::gaussian(sigma);
    let term = Term {
        row: taps.clone(),
        column: taps,
    };
    filter(plane, &[term])
}

fn along_rows(plane: &Plane, taps: &Taps) -> Plane {
    let radius = taps.radius() as isize;
    let width = plane.width;
    let mut result = Plane::zeros(width, plane.height);
    let mut padded = vec![0.0; width + taps.0.len() - 1];
    for (y, line) in result.values.chunks_exact_mut(width).enumerate() {
        let row = plane.row(y);
        for (i, value) in padded.iter_mut().enumerate() {
            *value = row[reflect(i as isize - radius, width)];
        }
        for (k, &tap) in taps.0.iter().enumerate() {
            if tap != 0.0 {
                add_scaled(line, &padded[k..k + width], tap);
            }
        }
    }
    result
}

fn add_scaled(sum: &mut [f32], values: &[f32], factor: f32) {
    for (sum, value) in sum.iter_mut().zip(values) {
        *sum += factor * value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn impulse(size: usize) -> Plane {
        let mut plane = Plane::zeros(size, size);
        plane.values[size / 2 * size + size / 2] = 1.0;
        plane
    }

    #[test]
    fn a_blur_spreads_an_impulse_without_loss() {
        for sigma in [0.7, 1.0, 3.0] {
            let blurred = blur(&impulse(41), sigma);
            let sum: f32 = blurred.values.iter().sum();
            assert!((sum - 1.0).abs() < 1e-5, "sigma {sigma}: {sum}");
            let variance: f64 = (0..41)
                .map(|x| {
                    let column: f32 = (0..41).map(|y| blurred.row(y)[x]).sum();
                    f64::from(column) * (x as f64 - 20.0).powi(2)
                })
                .sum();
            // What is cut beyond three standard deviations is missing from the variance.
            assert!(
                (variance.sqrt() / sigma - 1.0).abs() < 0.03,
                "sigma {sigma}: {}",
                variance.sqrt()
            );
        }
    }

    #[test]
    fn a_flat_plane_stays_flat_up_to_its_edges() {
        let flat = Plane {
            width: 5,
            height: 2,
            values: vec![3.0; 10],
        };
        // The filter is far wider than the plane.
        for value in blur(&flat, 8.0).values {
            assert!((value - 3.0).abs() < 1e-5, "{value}");
        }
    }

    #[test]
    fn taps_apply_in_their_order() {
        let plane = Plane {
            width: 3,
            height: 1,
            values: vec![1.0, 2.0, 4.0],
        };
        let next = Term {
            row: [0.0, 0.0, 1.0].into(),
            column: [1.0].into(),
        };
        assert_eq!(filter(&plane, &[next]).values, [2.0, 4.0, 4.0]);
    }
}
