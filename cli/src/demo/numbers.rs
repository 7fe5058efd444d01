//! What is said of values: means, shares, and numbers as short as a few digits allow.

/// Mean and standard deviation, and the least and largest finite value.
pub struct Summary {
    pub mean: f64,
    pub deviation: f64,
    pub range: (f32, f32),
}

impl Summary {
    pub fn new(values: &[&[f32]]) -> Self {
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

    pub fn caption(&self) -> String {
        measured(self.mean, self.deviation)
    }
}

/// The share of all values in each of some bins of equal width, from `low` to `high`, both included. The
/// others, NaN too, are in none.
pub fn shares(values: impl Iterator<Item = f32>, (low, high): (f64, f64), bins: usize) -> Vec<f64> {
    let mut counts = vec![0u64; bins];
    let mut total = 0;
    let scale = bins as f64 / (high - low);
    for value in values.map(f64::from) {
        total += 1;
        if (low..=high).contains(&value) {
            // Rounding may take the upper end to one bin too many; an empty range gives NaN, which is bin 0.
            let bin = ((value - low) * scale) as usize;
            counts[bin.min(bins - 1)] += 1;
        }
    }
    let share = |count| count as f64 / total.max(1) as f64;
    counts.into_iter().map(share).collect()
}

/// The magnitude that 99 of 100 values do not exceed: outliers would leave the others pale.
pub fn high_magnitude(values: &[f32]) -> f32 {
    let sizes = values.iter().map(|value| value.abs());
    let mut sizes: Vec<f32> = sizes.filter(|size| size.is_finite()).collect();
    let Some(last) = sizes.len().checked_sub(1) else {
        return 1.0;
    };
    *sizes
        .select_nth_unstable_by(last * 99 / 100, f32::total_cmp)
        .1
}

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
        let wild = Summary::new(&[&[1.0, f32::NAN, 2.0, f32::INFINITY]]);
        assert_eq!(wild.range, (1.0, 2.0));
    }

    #[test]
    fn one_outlier_does_not_set_the_scale() {
        let mut values = vec![-2.0; 200];
        values[7] = 1e9;
        assert_eq!(high_magnitude(&values), 2.0);
        assert_eq!(high_magnitude(&[f32::NAN]), 1.0);
        assert_eq!(high_magnitude(&[]), 1.0);
    }

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.0, "0"),
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
    fn every_value_is_counted_once() {
        let values: Vec<f32> = (0..1000).map(|i| (i as f32 * 0.37).sin() * 5.0).collect();
        let outside = values.iter().filter(|v| v.abs() > 4.0).count();
        let sum: f64 = shares(values.into_iter(), (-4.0, 4.0), 17).iter().sum();
        assert!((sum - (1000 - outside) as f64 / 1000.0).abs() < 1e-12);
        // The ends belong to the range: two each of seven, three are outside.
        let values = [0.0, 0.99, 1.0, 2.0, 2.01, f32::NAN, f32::INFINITY];
        assert_eq!(shares(values.into_iter(), (0.0, 2.0), 2), [2.0 / 7.0; 2]);
        let one = shares([3.0; 4].into_iter(), (3.0, 3.0), 5);
        assert_eq!(one.iter().sum::<f64>(), 1.0);
        assert_eq!(shares([].into_iter(), (0.0, 1.0), 2), [0.0; 2]);
    }
}
