//! Filters with a direction. Their angle is that of the line along which brightness varies, from
//! the x axis towards the lower right: 0° answers to vertical edges, 90° to horizontal ones.

use super::plane::Plane;
use super::separable::{Taps, Term, bell, filter, radius};

/// Sobel's derivative, weights 1 2 1 across it, turned to any angle.
pub fn sobel(plane: &Plane, degrees: f64) -> Plane {
    let derivative = Taps::from([-1.0, 0.0, 1.0]);
    let smooth = Taps::from([1.0, 2.0, 1.0]);
    let (sin, cos) = degrees.to_radians().sin_cos();
    let along_x = Term {
        row: derivative.clone().scaled(cos),
        column: smooth.clone(),
    };
    let along_y = Term {
        row: smooth,
        column: derivative.scaled(sin),
    };
    filter(plane, &[along_x, along_y])
}

/// The length of Sobel's gradient.
pub fn gradient(plane: &Plane) -> Plane {
    sobel(plane, 0.0).zip(&sobel(plane, 90.0), f32::hypot)
}

/// Which wave a Gabor filter matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// A cosine: lines.
    Line,
    /// A sine: edges.
    Edge,
}

/// A Gabor filter: a wave of the given length under a Gaussian of half that length, blind to
/// constant brightness, with gain 1 for the wave that it matches.
pub fn gabor(plane: &Plane, wavelength: f64, degrees: f64, phase: Phase) -> Plane {
    let sigma = 0.5 * wavelength;
    let radius = radius(sigma);
    let (sin, cos) = degrees.to_radians().sin_cos();
    let frequency = std::f64::consts::TAU / wavelength;
    let envelope = Taps::gaussian(sigma);
    // With sum 1 over the plane, half of the envelope's weight meets a wave of its own length.
    let norm = 2.0
        / (0..=2 * radius)
            .map(|i| bell(i as f64 - radius as f64, sigma))
            .sum::<f64>()
            .powi(2);
    let wave_x =
        |f: fn(f64) -> f64| Taps::sample(radius, |x| bell(x, sigma) * f(frequency * cos * x));
    let wave_y =
        |f: fn(f64) -> f64| Taps::sample(radius, |y| bell(y, sigma) * f(frequency * sin * y));
    let term = |row: Taps, column: Taps, factor: f64| Term {
        row: row.scaled(factor),
        column,
    };
    let terms = match phase {
        Phase::Line => {
            // cos(a + b) = cos a cos b - sin a sin b
            let (row, column) = (wave_x(f64::cos), wave_y(f64::cos));
            // The sines sum to 0.
            let mean = norm * row.sum() * column.sum();
            vec![
                term(row, column, norm),
                term(wave_x(f64::sin), wave_y(f64::sin), -norm),
                term(envelope.clone(), envelope, -mean),
            ]
        }
        // sin(a + b) = sin a cos b + cos a sin b, which sums to 0.
        Phase::Edge => vec![
            term(wave_x(f64::sin), wave_y(f64::cos), norm),
            term(wave_x(f64::cos), wave_y(f64::sin), norm),
        ],
    };
    filter(plane, &terms)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANGLES: [f64; 4] = [0.0, 45.0, 90.0, 135.0];

    /// A grating whose brightness varies along the given angle.
    fn grating(wavelength: f64, degrees: f64) -> Plane {
        let (sin, cos) = degrees.to_radians().sin_cos();
        let frequency = std::f64::consts::TAU / wavelength;
        let mut plane = Plane::zeros(96, 96);
        for (i, value) in plane.values.iter_mut().enumerate() {
            let (x, y) = ((i % 96) as f64, (i / 96) as f64);
            *value = (100.0 + (frequency * (cos * x + sin * y)).cos()) as f32;
        }
        plane
    }

    /// Root mean square away from the edges, where a mirrored grating is none.
    fn energy(plane: &Plane) -> f64 {
        let inner = 32..64;
        let sum: f64 = inner
            .clone()
            .flat_map(|y| plane.row(y)[inner.clone()].iter())
            .map(|&value| f64::from(value).powi(2))
            .sum();
        (sum / 1024.0).sqrt()
    }

    #[test]
    fn oriented_filters_answer_to_their_own_angle_most() {
        type Filter = fn(&Plane, f64) -> Plane;
        let filters: [(&str, f64, f64, Filter); 4] = [
            // Turned by 45°, a derivative still sees cos 45° of the grating.
            ("sobel", 8.0, 0.72, sobel),
            ("line, 6 px", 6.0, 0.3, |p, a| gabor(p, 6.0, a, Phase::Line)),
            ("edge, 6 px", 6.0, 0.3, |p, a| gabor(p, 6.0, a, Phase::Edge)),
            ("edge, 14 px", 14.0, 0.3, |p, a| {
                gabor(p, 14.0, a, Phase::Edge)
            }),
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
        for phase in [Phase::Line, Phase::Edge] {
            for angle in ANGLES {
                let gain = energy(&gabor(&grating(9.0, angle), 9.0, angle, phase)) * 2f64.sqrt();
                assert!((gain - 1.0).abs() < 0.02, "{phase:?} {angle}°: {gain}");
            }
        }
    }

    #[test]
    fn oriented_filters_are_blind_to_constant_brightness() {
        let flat = Plane::zeros(20, 7).map(|_| 255.0);
        let mut results = vec![gradient(&flat)];
        for angle in ANGLES {
            results.push(sobel(&flat, angle));
            results.push(gabor(&flat, 6.0, angle, Phase::Line));
            results.push(gabor(&flat, 14.0, angle, Phase::Edge));
        }
        for plane in results {
            assert!(plane.values.iter().all(|value| value.abs() < 1e-3));
        }
    }

    #[test]
    fn sobel_has_its_textbook_weights() {
        let mut plane = Plane::zeros(5, 5);
        plane.values[12] = 1.0;
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
}
