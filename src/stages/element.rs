//! How elements are stored: the twin of `shaders/parts/bits_f16.wgsl` and `bits_bf16.wgsl`.

use bytemuck::Pod;
use half::{bf16, f16};

/// What a tensor's element is stored as. All arithmetic is in f32.
pub trait Element: Pod + Send + Sync {
    /// Its value, which is exact.
    fn to_f32(self) -> f32;

    /// The nearest one, to even where two are as near; a NaN stays a NaN.
    fn from_f32(value: f32) -> Self;
}

/// Many at once.
#[inline(always)]
pub(crate) fn to_f32<T: Element>(values: &[T], out: &mut [f32]) {
    for (out, value) in out.iter_mut().zip(values) {
        *out = value.to_f32();
    }
}

impl Element for f32 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }

    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        value
    }
}

// Without branches, unlike the conversions of `half`, so that loops become vector instructions.
impl Element for f16 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        let bits = u32::from(self.to_bits());
        let magnitude = ((bits & 0x7fff) << 13) + 0x3800_0000;
        let normal = f32::from_bits(magnitude);
        let subnormal = (normal + normal) - 1.0 / 16_384.0;
        let finite = if magnitude < 0x3880_0000 {
            subnormal
        } else {
            normal
        };
        let any = if magnitude >= 0x4780_0000 {
            magnitude | 0x7f80_0000
        } else {
            finite.to_bits()
        };
        f32::from_bits(any | (bits & 0x8000) << 16)
    }

    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        let bits = value.to_bits();
        let magnitude = (bits & 0x7fff_ffff) as i32;
        let odd = (magnitude >> 13) & 1;
        let normal = (magnitude - 0x37ff_f001 + odd).min(0x0f80_0000);
        // Sums in [0.5, 1) have the subnormals' unit in their last place.
        let subnormal = ((value.abs() + 0.5).to_bits() << 13) as i32;
        let number = if magnitude < 0x3880_0000 {
            subnormal
        } else {
            normal
        };
        let any = if magnitude > 0x7f80_0000 {
            0x0fc0_0000
        } else {
            number
        };
        f16::from_bits((any >> 13) as u16 | (bits >> 16) as u16 & 0x8000)
    }
}

impl Element for bf16 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        let bits = value.to_bits();
        let odd = (bits >> 16) & 1;
        let rounded = bits.wrapping_add(odd + 0x7fff);
        let any = if value.is_nan() {
            bits | 0x0040_0000
        } else {
            rounded
        };
        bf16::from_bits((any >> 16) as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A value and its neighbours, as bits.
    fn around(bits: u32) -> impl Iterator<Item = f32> {
        (bits.wrapping_sub(2)..=bits.wrapping_add(2)).map(f32::from_bits)
    }

    #[test]
    fn every_pattern_of_16_bits_is_read_exactly() {
        for bits in 0..=u16::MAX {
            let (short, brain) = (f16::from_bits(bits), bf16::from_bits(bits));
            for (found, expected) in [
                (Element::to_f32(short), short.to_f32()),
                (Element::to_f32(brain), brain.to_f32()),
            ] {
                if expected.is_nan() {
                    assert!(found.is_nan(), "{bits:#x}");
                } else {
                    assert_eq!(found.to_bits(), expected.to_bits(), "{bits:#x}");
                }
            }
        }
    }

    #[test]
    fn values_are_stored_as_the_nearest_of_16_bits() {
        // Every place where the rounding changes: the values themselves and the ties between them.
        let ties = (0..=u16::MAX).flat_map(|upper| {
            let brain = u32::from(upper) << 16;
            let short = Element::to_f32(f16::from_bits(upper)).to_bits();
            let next = Element::to_f32(f16::from_bits(upper.wrapping_add(1)));
            let tie = (f32::from_bits(short) + next) / 2.0;
            [brain, brain + 0x8000, short, tie.to_bits()]
        });
        for value in ties
            .filter(|&bits| bits > 2 && bits < u32::MAX - 2)
            .flat_map(around)
        {
            let (short, brain) = (f16::from_f32(value), bf16::from_f32(value));
            let (found_short, found_brain): (f16, bf16) =
                (Element::from_f32(value), Element::from_f32(value));
            if value.is_nan() {
                assert!(found_short.is_nan() && found_brain.is_nan());
                continue;
            }
            assert_eq!(found_short.to_bits(), short.to_bits(), "{value:e}");
            assert_eq!(found_brain.to_bits(), brain.to_bits(), "{value:e}");
        }
    }
}
