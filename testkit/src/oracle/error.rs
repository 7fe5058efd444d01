//! The metric of the golden files: how far a tensor is from what was expected, over its scale.

/// The scale of an output, of its input's gradient or of a running statistic: the largest
/// magnitude among the finite values, 0 if there is none.
///
/// The scale of a parameter's gradient is in [`Gradients`](super::Gradients).
pub fn scale(values: &[f64]) -> f64 {
    let finite = values.iter().filter(|value| value.is_finite());
    finite.fold(0.0, |largest, value| largest.max(value.abs()))
}

/// The error of one value: |got - expected| / scale, never NaN.
///
/// * Where either is NaN or infinite, the error is 0 if both are NaN or both the same infinity,
///   and infinite otherwise.
/// * A scale of 0 says that all that was expected is 0: the error is 0 for equal values and
///   infinite for others. For an absolute error pass a scale of 1.
/// * A negative, infinite or NaN scale is a mistake: the error is infinite whatever the values.
pub fn element_error(got: f64, expected: f64, scale: f64) -> f64 {
    if !scale.is_finite() || scale < 0.0 {
        return f64::INFINITY;
    }
    if got == expected || (got.is_nan() && expected.is_nan()) {
        return 0.0;
    }
    if !got.is_finite() || !expected.is_finite() || scale == 0.0 {
        return f64::INFINITY;
    }
    (got - expected).abs() / scale
}

/// The error of a tensor: the largest [`element_error`], infinite if the lengths differ.
///
/// `got` may be of any type that widens to `f64`: `f32`, `f64` and the 16-bit floats of the
/// `half` crate do.
pub fn error<T: Copy + Into<f64>>(got: &[T], expected: &[f64], scale: f64) -> f64 {
    if got.len() != expected.len() {
        return f64::INFINITY;
    }
    let pairs = got.iter().zip(expected);
    // No element error is NaN, so max hides none.
    pairs.fold(0.0, |largest, (&got, &expected)| {
        largest.max(element_error(got.into(), expected, scale))
    })
}
