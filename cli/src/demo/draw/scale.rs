//! Numbers for people, as short as a few digits allow, and numbers as colours.

use super::canvas::Colour;

/// Three significant digits: `0.0123`, `1.2`, `112`, `5304`, `1.2e-6`, `3.4e7`.
pub fn short(value: f64) -> String {
    let size = value.abs();
    if size == 0.0 || !size.is_finite() {
        return if size == 0.0 { 0.0 } else { value }.to_string();
    }
    if !(1e-3..1e6).contains(&size) {
        return format!("{value:.1e}");
    }
    // Digits after the point, from those that three significant ones leave.
    let digits = (2 - size.log10().floor() as i32).clamp(0, 5) as usize;
    let text = format!("{value:.digits$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// A mean and a standard deviation, both to the deviation's second digit: `148 ± 33`, `0.38 ± 0.85`.
pub fn measured(mean: f64, deviation: f64) -> String {
    if !(1e-3..1e6).contains(&deviation) {
        return format!("{} ± {}", short(mean), short(deviation));
    }
    let digits = (1 - deviation.log10().floor() as i32).max(0) as usize;
    let mean = format!("{mean:.digits$}");
    // Rounding leaves "-0.0" of a small negative mean.
    let zero = mean.chars().all(|c| "-0.".contains(c));
    let mean = mean.trim_start_matches(|c| zero && c == '-');
    format!("{mean} ± {deviation:.digits$}")
}

/// A round step (1, 2 or 5 times a power of ten) that divides a range into about `parts`.
pub fn step(range: f64, parts: f64) -> f64 {
    let rough = range / parts;
    if !(rough.is_finite() && rough > 0.0) {
        return 1.0;
    }
    let power = 10f64.powf(rough.log10().floor());
    let factor = match rough / power {
        ratio if ratio < 1.5 => 1.0,
        ratio if ratio < 3.5 => 2.0,
        ratio if ratio < 7.5 => 5.0,
        _ => 10.0,
    };
    factor * power
}

/// How a value is shown.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Tone {
    /// Black at `low` and below it, white at `high` and above it.
    Gray { low: f32, high: f32 },
    /// White at 0, blue at `-limit`, red at `limit`.
    Signed { limit: f32 },
}

const NOT_A_NUMBER: Colour = [255, 0, 255];
const RED: Colour = [178, 24, 43];
const BLUE: Colour = [33, 102, 172];

impl Tone {
    /// The colour of a value. NaN is magenta, which nothing else is.
    pub fn colour(self, value: f32) -> Colour {
        let wide = f64::from(value);
        // Part of the whole, 0 to 1; 0 of an empty whole.
        let share = |part: f64, whole: f64| match whole > 0.0 {
            true => (part / whole).clamp(0.0, 1.0),
            false => 0.0,
        };
        match self {
            _ if value.is_nan() => NOT_A_NUMBER,
            Tone::Gray { low, high } => {
                let share = share(wide - f64::from(low), f64::from(high) - f64::from(low));
                [(255.0 * share).round() as u8; 3]
            }
            Tone::Signed { limit } => {
                let share = share(wide.abs(), limit.into());
                let full = if value < 0.0 { BLUE } else { RED };
                full.map(|full| (255.0 + share * (f64::from(full) - 255.0)).round() as u8)
            }
        }
    }

    /// The values at the two ends.
    pub fn ends(self) -> (f32, f32) {
        match self {
            Tone::Gray { low, high } => (low, high),
            Tone::Signed { limit } => (-limit, limit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::canvas::WHITE;
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (1.0, "1"),
            (-1.5, "-1.5"),
            (0.012_345, "0.0123"),
            (112.4, "112"),
            (5304.2, "5304"),
            (1.23e-6, "1.2e-6"),
            (3.44e7, "3.4e7"),
            (9.999, "10"),
            (100.0, "100"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(short(value), text, "{value}");
        }
    }

    #[test]
    fn means_are_as_exact_as_their_deviations() {
        for (mean, deviation, text) in [
            (147.6, 32.8, "148 ± 33"),
            (-0.248, 80.0, "0 ± 80"),
            (-0.0371, 7.39, "0.0 ± 7.4"),
            (0.381, 0.845, "0.38 ± 0.84"),
            (-1.07, 0.0123, "-1.070 ± 0.012"),
            (117.0, 0.0, "117 ± 0"),
            (f64::NAN, f64::NAN, "NaN ± NaN"),
            (f64::INFINITY, 2.0, "inf ± 2.0"),
            (2e7, 3e6, "2.0e7 ± 3.0e6"),
        ] {
            assert_eq!(measured(mean, deviation), text);
        }
    }

    #[test]
    fn steps_are_round() {
        for (range, parts, expected) in [
            (8.0, 4.0, 2.0),
            (1000.0, 4.0, 200.0),
            (0.31, 5.0, 0.05),
            (0.0, 4.0, 1.0),
            (f64::INFINITY, 4.0, 1.0),
        ] {
            let error = step(range, parts) / expected - 1.0;
            assert!(error.abs() < 1e-12, "{range}");
        }
    }

    #[test]
    fn gray_runs_from_low_to_high() {
        let (low, high) = (-3.0, 3.0);
        let gray = |value| Tone::Gray { low, high }.colour(value)[0];
        let values = [-9.0, -3.0, 0.0, 3.0, f32::INFINITY];
        assert_eq!(values.map(gray), [0, 0, 128, 255, 255]);
    }

    #[test]
    fn signs_have_their_colours() {
        let tone = Tone::Signed { limit: 2.0 };
        assert_eq!([0.0, -2.0, 5.0].map(|v| tone.colour(v)), [WHITE, BLUE, RED]);
    }

    #[test]
    fn an_empty_scale_and_a_nan_have_a_colour() {
        let (low, high) = (1.0, 1.0);
        let empty = Tone::Gray { low, high };
        assert_eq!(empty.colour(1.0), [0; 3]);
        assert_eq!(Tone::Signed { limit: 0.0 }.colour(0.0), WHITE);
        assert_eq!(empty.colour(f32::NAN), NOT_A_NUMBER);
    }
}
