//! How a tensor's values lie in memory: rounded to the tensor's type, in the order of its layout, 16-bit
//! values two to a word. Everywhere else a tensor is f32, in row-major order with channels first.

use bcnorm::{DType, Layout, TensorDesc};
use half::{bf16, f16};
use std::borrow::Cow;

/// What outputs, tables and scratch hold before a run: a NaN that no arithmetic makes, in f32 as in
/// either half of a word.
pub const POISON: u32 = 0x7fd5_7fd5;

/// Either half of [`POISON`].
pub const POISON_HALF: u16 = 0x7fd5;

/// A floating-point format with an implicit leading bit.
struct Format {
    /// Stored bits of the significand.
    bits: i32,
    /// Exponent of the smallest normal value.
    min_exponent: i32,
    /// Largest finite value.
    max: f64,
}

impl Format {
    fn of(dtype: DType) -> Self {
        let (bits, min_exponent, max_exponent) = match dtype {
            DType::F32 => (23, -126, 127),
            DType::F16 => (10, -14, 15),
            DType::BF16 => (7, -126, 127),
            other => unimplemented!("the type {}", other.name()),
        };
        Self {
            bits,
            min_exponent,
            max: 2f64.powi(max_exponent + 1) - 2f64.powi(max_exponent - bits),
        }
    }

    /// The distance of the values next to `value`: its unit in the last place.
    fn ulp(&self, value: f64) -> f64 {
        let exponent = ((value.to_bits() >> 52 & 0x7ff) as i32 - 1023).max(self.min_exponent);
        2f64.powi(exponent - self.bits)
    }
}

/// The value of a type that is nearest to `value`, of two the even one; what overflows is infinite.
///
/// From the f64 in one step: `half` and a detour through f32 round twice.
pub fn round(value: f64, dtype: DType) -> f32 {
    let format = Format::of(dtype);
    if !value.is_finite() || value == 0.0 {
        return value as f32;
    }
    // Both are exact: an ulp is a power of two, and its neighbours are no subnormals of f64.
    let ulp = format.ulp(value);
    let rounded = (value / ulp).round_ties_even() * ulp;
    if rounded.abs() > format.max {
        return f32::INFINITY.copysign(value as f32);
    }
    // -0 where a negative value vanishes.
    (rounded as f32).copysign(value as f32)
}

/// Rounds values to a type.
pub fn round_all(values: &mut [f32], dtype: DType) {
    if dtype != DType::F32 {
        values
            .iter_mut()
            .for_each(|value| *value = round(f64::from(*value), dtype));
    }
}

/// The unit in the last place of a finite value of a type.
pub fn ulp(value: f32, dtype: DType) -> f64 {
    Format::of(dtype).ulp(f64::from(value))
}

/// How many values of the type lie between two of them, one of them counted: 0 for equal ones (-0 and 0
/// are, and any two NaN), 1 for neighbours, `u32::MAX` between a NaN and a number.
pub fn ulps(a: f32, b: f32, dtype: DType) -> u32 {
    if a.is_nan() || b.is_nan() {
        return if a.is_nan() && b.is_nan() {
            0
        } else {
            u32::MAX
        };
    }
    // The bits of positive numbers are in their order; those of negative ones in the reverse of it.
    let order = |value: f32| {
        let magnitude = match dtype {
            DType::F32 => i64::from(value.abs().to_bits()),
            _ => i64::from(half_bits(value.abs(), dtype)),
        };
        if value.is_sign_negative() {
            -magnitude
        } else {
            magnitude
        }
    };
    u32::try_from((order(a) - order(b)).abs()).unwrap_or(u32::MAX)
}

/// The 16 bits of a value of a 16-bit type.
fn half_bits(value: f32, dtype: DType) -> u16 {
    match dtype {
        DType::F16 => f16::from_f32(value).to_bits(),
        DType::BF16 => bf16::from_f32(value).to_bits(),
        other => unimplemented!("{} has no 16 bits", other.name()),
    }
}

fn half_value(bits: u16, dtype: DType) -> f32 {
    match dtype {
        DType::F16 => f16::from_bits(bits).to_f32(),
        DType::BF16 => bf16::from_bits(bits).to_f32(),
        other => unimplemented!("{} has no 16 bits", other.name()),
    }
}

/// The words of a tensor's buffer. Where a 16-bit tensor has an odd number of elements, half of
/// [`POISON`] is behind them: a kernel that took it for an element would spread NaN.
///
/// # Panics
/// Where there are not as many values as the tensor has elements, or where one is none of its type: an
/// oracle that was asked about the value before would be right about something else.
pub fn encode(values: &[f32], tensor: &TensorDesc) -> Vec<u32> {
    assert_eq!(
        values.len() as u64,
        tensor.elements(),
        "values of a tensor {:?}",
        tensor.dims()
    );
    let values = match tensor.layout() {
        Layout::ChannelsLast => Cow::Owned(permuted(values, tensor, |first, last| (last, first))),
        _ => Cow::Borrowed(values),
    };
    let dtype = tensor.dtype();
    if dtype == DType::F32 {
        return bytemuck::pod_collect_to_vec(&values[..]);
    }
    let bits = |value: f32| {
        let bits = half_bits(value, dtype);
        assert!(
            half_value(bits, dtype) == value || value.is_nan(),
            "{value:e} is not rounded to {}",
            dtype.name()
        );
        bits
    };
    values
        .chunks(2)
        .map(|pair| {
            let high = pair.get(1).map_or(POISON_HALF, |&value| bits(value));
            u32::from(bits(pair[0])) | u32::from(high) << 16
        })
        .collect()
}

/// The values of a tensor from the words of its buffer.
///
/// # Panics
/// Where the words are too few.
pub fn decode(words: &[u32], tensor: &TensorDesc) -> Vec<f32> {
    let len = tensor.elements() as usize;
    let dtype = tensor.dtype();
    let values: Vec<f32> = if dtype == DType::F32 {
        bytemuck::pod_collect_to_vec(&words[..len])
    } else {
        let halves = words[..len.div_ceil(2)]
            .iter()
            .flat_map(|&word| [word as u16, (word >> 16) as u16]);
        halves
            .take(len)
            .map(|bits| half_value(bits, dtype))
            .collect()
    };
    match tensor.layout() {
        Layout::ChannelsLast => permuted(&values, tensor, |first, last| (first, last)),
        _ => values,
    }
}

/// The element of padding behind an odd number of 16-bit elements.
pub fn padding(words: &[u32], tensor: &TensorDesc) -> Option<u16> {
    let odd = tensor.dtype() != DType::F32 && !tensor.elements().is_multiple_of(2);
    let last = (tensor.elements() / 2) as usize;
    odd.then(|| (words[last] >> 16) as u16)
}

/// How many elements of a tensor are still [`POISON`].
pub fn unwritten(words: &[u32], dtype: DType) -> usize {
    let of_word = |&word: &u32| match dtype {
        DType::F32 => usize::from(word == POISON),
        _ => {
            usize::from(word as u16 == POISON_HALF)
                + usize::from((word >> 16) as u16 == POISON_HALF)
        }
    };
    words.iter().map(of_word).sum()
}

/// Values in another order. `to_from` takes the place of an element with channels first and with
/// channels last, and says where it goes and where it comes from.
fn permuted(
    values: &[f32],
    tensor: &TensorDesc,
    to_from: impl Fn(usize, usize) -> (usize, usize),
) -> Vec<f32> {
    let (channels, len) = (tensor.num_channels() as usize, tensor.row_len() as usize);
    let mut out = vec![0.0; values.len()];
    if values.is_empty() {
        return out;
    }
    for start in (0..values.len()).step_by(channels * len) {
        for c in 0..channels {
            for l in 0..len {
                let (to, from) = to_from(start + c * len + l, start + l * channels + c);
                out[to] = values[from];
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALVES: [DType; 2] = [DType::F16, DType::BF16];

    /// Every finite value of a 16-bit type.
    fn all(dtype: DType) -> impl Iterator<Item = f32> {
        (0..=u16::MAX)
            .map(move |bits| half_value(bits, dtype))
            .filter(|value| value.is_finite())
    }

    #[test]
    fn rounding_is_to_the_nearest_and_of_two_to_the_even_one() {
        for dtype in HALVES {
            for value in all(dtype) {
                assert_eq!(round(value.into(), dtype).to_bits(), value.to_bits());
                let bits = half_bits(value, dtype);
                let next = half_value(bits + 1, dtype);
                if value.is_sign_negative() || next.is_infinite() {
                    continue;
                }
                let middle = (f64::from(value) + f64::from(next)) / 2.0;
                let even = if bits.is_multiple_of(2) { value } else { next };
                for sign in [1.0f32, -1.0] {
                    let rounded = |at: f64| round(at * f64::from(sign), dtype);
                    assert_eq!(rounded(middle), even * sign, "{middle:e}");
                    // Two steps, through f32, would see the middle in these.
                    assert_eq!(rounded(middle.next_up()), next * sign);
                    assert_eq!(rounded(middle.next_down()), value * sign);
                }
            }
        }
        assert_eq!(round(65_519.99, DType::F16), 65_504.0);
        assert_eq!(round(65_520.0, DType::F16), f32::INFINITY);
        assert_eq!(round(-1e300, DType::BF16), f32::NEG_INFINITY);
        assert_eq!(round(1e300, DType::F32), f32::INFINITY);
        assert_eq!(round(0.1, DType::F32), 0.1);
        assert_eq!(round(-1e-300, DType::F16).to_bits(), (-0.0f32).to_bits());
        assert!(round(f64::NAN, DType::F16).is_nan());
    }

    #[test]
    fn ulps_count_values() {
        for dtype in HALVES {
            let values: Vec<f32> = all(dtype).filter(|value| *value > 0.0).collect();
            for (i, pair) in values.windows(2).enumerate() {
                assert_eq!(ulps(pair[0], pair[1], dtype), 1);
                assert_eq!(ulps(-pair[1], -pair[0], dtype), 1);
                assert_eq!(f64::from(pair[1]) - f64::from(pair[0]), ulp(pair[0], dtype));
                // Values from 0 on, counted.
                assert_eq!(ulps(0.0, pair[0], dtype), i as u32 + 1);
                assert_eq!(ulps(-pair[0], pair[0], dtype), 2 * (i as u32 + 1));
            }
            let max = values[values.len() - 1];
            assert_eq!(ulps(max, f32::INFINITY, dtype), 1);
            assert_eq!(ulps(0.0, -0.0, dtype), 0);
            assert_eq!(ulps(f32::NAN, f32::NAN, dtype), 0);
            assert_eq!(ulps(f32::NAN, 1.0, dtype), u32::MAX);
        }
        assert_eq!(ulps(1.0, 1.0 + f32::EPSILON, DType::F32), 1);
        assert_eq!(ulp(1.0, DType::F32), f64::from(f32::EPSILON));
        assert_eq!(ulps(f32::MIN, f32::MAX, DType::F32), 0xfeff_fffe);
    }

    #[test]
    fn words_hold_what_was_put_in() {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            for layout in [Layout::ChannelsFirst, Layout::ChannelsLast] {
                for dims in [&[2, 3, 4][..], &[1, 3, 5], &[3, 5], &[0, 2], &[1, 1, 1]] {
                    let tensor = TensorDesc::new(dims).unwrap();
                    let tensor = tensor.with_dtype(dtype).with_layout(layout);
                    let values: Vec<f32> = (0..tensor.elements()).map(|i| i as f32 - 7.0).collect();
                    let words = encode(&values, &tensor);
                    assert_eq!(words.len() as u64 * 4, tensor.buffer_bytes());
                    assert_eq!(decode(&words, &tensor), values);
                    let odd = dtype != DType::F32 && values.len() % 2 == 1;
                    assert_eq!(padding(&words, &tensor), odd.then_some(POISON_HALF));
                    assert_eq!(unwritten(&words, dtype), usize::from(odd));
                }
            }
        }
        // (1, 2, 3): with channels last the two channels of a position lie together.
        let tensor = TensorDesc::new(&[1, 2, 3]).unwrap();
        let values = [0.0, 1.0, 2.0, 10.0, 11.0, 12.0];
        let last = tensor.clone().with_layout(Layout::ChannelsLast);
        let words = encode(&values, &last);
        let stored: Vec<f32> = words.iter().map(|&word| f32::from_bits(word)).collect();
        assert_eq!(stored, [0.0, 10.0, 1.0, 11.0, 2.0, 12.0]);
        // 1.5 is 0x3e00 in f16 and 0x3fc0 in bf16; the first element is the low half.
        let pair = TensorDesc::new(&[1, 2]).unwrap();
        for (dtype, word) in [(DType::F16, 0x3e00_0000), (DType::BF16, 0x3fc0_0000)] {
            assert_eq!(encode(&[0.0, 1.5], &pair.clone().with_dtype(dtype)), [word]);
        }
    }

    #[test]
    #[should_panic(expected = "not rounded to f16")]
    fn a_value_of_another_type_is_no_element() {
        let tensor = TensorDesc::new(&[1, 2]).unwrap().with_dtype(DType::F16);
        encode(&[1.0, 0.1], &tensor);
    }
}
