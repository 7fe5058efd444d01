//! Tensors on the host: f32 values to and from the u32s in which a buffer holds them.

use crate::desc::DType;
use half::{bf16, f16};

/// The u32s of a tensor's buffer with these values, rounded to its type (16-bit values to the nearest, ties
/// to even; two a u32, the first in the lower half; an odd number is followed by a 0).
pub fn pack(dtype: DType, values: &[f32]) -> Vec<u32> {
    let pairs = |bits: fn(f32) -> u16| {
        let u32s = values.chunks(2).map(|pair| {
            let high = pair.get(1).map_or(0, |&value| bits(value));
            u32::from(bits(pair[0])) | u32::from(high) << 16
        });
        u32s.collect()
    };
    match dtype {
        DType::F32 => values.iter().map(|value| value.to_bits()).collect(),
        DType::F16 => pairs(|value| f16::from_f32(value).to_bits()),
        DType::BF16 => pairs(|value| bf16::from_f32(value).to_bits()),
    }
}

/// The first `len` values of such u32s (fewer where there are fewer).
pub fn unpack(dtype: DType, u32s: &[u32], len: usize) -> Vec<f32> {
    let halves = |value: fn(u16) -> f32| {
        let all = u32s
            .iter()
            .flat_map(|&bits| [bits as u16, (bits >> 16) as u16]);
        all.take(len).map(value).collect()
    };
    match dtype {
        DType::F32 => u32s
            .iter()
            .take(len)
            .map(|&bits| f32::from_bits(bits))
            .collect(),
        DType::F16 => halves(|bits| f16::from_bits(bits).to_f32()),
        DType::BF16 => halves(|bits| bf16::from_bits(bits).to_f32()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_return_rounded() {
        let values = [1.5, -0.0, 65504.0, 1.0 + f32::EPSILON, -3.0e-8];
        assert_eq!(unpack(DType::F32, &pack(DType::F32, &values), 5), values);
        let f16s = unpack(DType::F16, &pack(DType::F16, &values), 5);
        assert_eq!(f16s, [1.5, -0.0, 65504.0, 1.0, -5.9604645e-8]);
        let bf16s = unpack(DType::BF16, &pack(DType::BF16, &values), 5);
        assert_eq!(bf16s, [1.5, -0.0, 65536.0, 1.0, -3.0035153e-8]);
    }

    #[test]
    fn pairs_share_a_u32() {
        assert_eq!(pack(DType::F16, &[1.0, 2.0, 3.0]), [0x4000_3c00, 0x4200]);
        assert_eq!(pack(DType::BF16, &[1.0, 2.0, 3.0]), [0x4000_3f80, 0x4040]);
        assert_eq!(
            unpack(DType::F16, &[0x4000_3c00, 0x4200], 3),
            [1.0, 2.0, 3.0]
        );
        assert_eq!(unpack(DType::F16, &[0x4000_3c00], 9), [1.0, 2.0]);
    }
}
