//! Numbers for people: as short as three digits allow.

/// Three significant digits: `0.0123`, `1.2`, `112`, `5304`, `1.2e-6`, `3.4e7`.
pub fn short(value: f64) -> String {
    let size = value.abs();
    if size == 0.0 {
        return "0".into();
    }
    if !size.is_finite() {
        return value.to_string();
    }
    if !(1e-3..1e6).contains(&size) {
        return format!("{value:.1e}");
    }
    // Digits after the point, from those that three significant ones leave.
    let magnitude = size.log10().floor() as i32;
    let digits = (2 - magnitude).clamp(0, 5) as usize;
    let text = format!("{value:.digits$}");
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    };
    if text == "-0" { "0".into() } else { text }
}

/// A mean and a standard deviation, both to the deviation's second digit: `148 ± 33`,
/// `0.38 ± 0.85`.
pub fn measured(mean: f64, deviation: f64) -> String {
    if !(1e-3..1e6).contains(&deviation) {
        return format!("{} ± {}", short(mean), short(deviation));
    }
    let digits = (1 - deviation.log10().floor() as i32).max(0) as usize;
    let mean = format!("{mean:.digits$}");
    // Rounding leaves "-0.0" of a small negative mean.
    let zero = mean.chars().all(|c| "-0.".contains(c));
    let mean = if zero {
        mean.trim_start_matches('-')
    } else {
        &mean
    };
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

#[cfg(test)]
mod tests {
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
            assert!(
                (step(range, parts) / expected - 1.0).abs() < 1e-12,
                "{range}"
            );
        }
    }
}
