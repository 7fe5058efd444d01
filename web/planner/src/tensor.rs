//! Tensors, and their values on the host.

use crate::error::Failure;
use bcnorm::{DType, Layout, TensorDesc, host};
use wasm_bindgen::prelude::*;

/// `bcnorm::TensorDesc`.
#[wasm_bindgen]
#[derive(Clone)]
pub struct TensorShape {
    pub(crate) desc: TensorDesc,
}

#[wasm_bindgen]
impl TensorShape {
    /// (N, C, *spatial) as `f32`, `f16` or `bf16`, `channels_first` or `channels_last`.
    #[wasm_bindgen(constructor)]
    pub fn new(dims: &[u32], dtype: &str, layout: &str) -> Result<TensorShape, Failure> {
        Self::of(TensorDesc::new(&usizes(dims))?, dtype, layout)
    }

    /// The filters of a convolution, (O, *rest): what Weight Standardization takes.
    pub fn filters(dims: &[u32], dtype: &str, layout: &str) -> Result<TensorShape, Failure> {
        Self::of(TensorDesc::filters(&usizes(dims))?, dtype, layout)
    }

    /// Number of elements.
    pub fn elements(&self) -> f64 {
        self.desc.elements() as f64
    }

    /// Bytes that a buffer of it must have.
    #[wasm_bindgen(js_name = bufferBytes)]
    pub fn buffer_bytes(&self) -> f64 {
        self.desc.buffer_bytes() as f64
    }
}

impl TensorShape {
    fn of(desc: TensorDesc, dtype: &str, layout: &str) -> Result<TensorShape, Failure> {
        let desc = desc
            .with_dtype(self::dtype(dtype)?)
            .with_layout(match layout {
                "channels_first" => Layout::ChannelsFirst,
                "channels_last" => Layout::ChannelsLast,
                _ => return Err(Failure::unknown("tensor", "layout", layout)),
            });
        Ok(TensorShape { desc })
    }
}

fn usizes(dims: &[u32]) -> Vec<usize> {
    dims.iter().map(|&size| size as usize).collect()
}

fn dtype(name: &str) -> Result<DType, Failure> {
    let all = [DType::F32, DType::F16, DType::BF16];
    all.into_iter()
        .find(|known| known.name() == name)
        .ok_or_else(|| Failure::unknown("tensor", "type", name))
}

/// f32 values as the words of a tensor's buffer.
#[wasm_bindgen]
pub fn pack(dtype: &str, values: &[f32]) -> Result<Vec<u32>, Failure> {
    Ok(host::pack(self::dtype(dtype)?, values))
}

/// The first `len` values of such words.
#[wasm_bindgen]
pub fn unpack(dtype: &str, words: &[u32], len: usize) -> Result<Vec<f32>, Failure> {
    Ok(host::unpack(self::dtype(dtype)?, words, len))
}
