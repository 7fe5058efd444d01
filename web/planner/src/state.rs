//! State dicts.

use crate::error::Failure;
use crate::norm::Norm;
use bcnorm::layer::StateDict;
use bcnorm::layer::state::{self, StateValue};
use wasm_bindgen::prelude::*;

/// `bcnorm::layer::StateDict`.
#[wasm_bindgen]
#[derive(Default)]
pub struct State {
    pub(crate) dict: StateDict,
}

#[wasm_bindgen]
impl State {
    /// An empty one.
    #[wasm_bindgen(constructor)]
    pub fn new() -> State {
        State::default()
    }

    /// Adds f32 values.
    pub fn set(&mut self, name: String, dims: &[u32], values: Vec<f32>) {
        let dims = dims.iter().map(|&size| size as usize).collect();
        self.dict.insert(name, StateValue::F32 { dims, values });
    }

    /// Adds a count.
    #[wasm_bindgen(js_name = setCount)]
    pub fn set_count(&mut self, name: String, count: i64) {
        self.dict.insert(name, StateValue::I64(count));
    }

    /// What goes into which buffer of a layer of this norm, as JSON: `{values: [{role, name}], batchCount,
    /// movingSpeed}`. The names are this dict's.
    pub fn fit(&self, norm: &Norm) -> Result<Fit, Failure> {
        let fit = state::fit(&norm.desc, &self.dict)?;
        let values = fit.values.iter();
        Ok(Fit {
            values: values
                .map(|(role, values)| (role.name(), values.to_vec()))
                .collect(),
            batch_count: fit.batch_count,
            moving_speed: state::moving_speed(&fit.norm).map(|(_, speed)| speed),
        })
    }
}

/// A state dict that fits a norm.
#[wasm_bindgen]
pub struct Fit {
    values: Vec<(&'static str, Vec<f32>)>,
    batch_count: Option<i64>,
    moving_speed: Option<f32>,
}

#[wasm_bindgen]
impl Fit {
    /// Number of buffers to fill.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// The role of one.
    pub fn role(&self, index: usize) -> String {
        self.values[index].0.to_owned()
    }

    /// The values of one.
    pub fn values(&self, index: usize) -> Vec<f32> {
        self.values[index].1.clone()
    }

    /// `num_batches_tracked`, where the norm has it: what fits the kernels' counter.
    #[wasm_bindgen(getter, js_name = batchCount)]
    pub fn batch_count(&self) -> Option<u32> {
        self.batch_count
            .map(|count| u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// `estbn_moving_speed`, where the norm has it.
    #[wasm_bindgen(getter, js_name = movingSpeed)]
    pub fn moving_speed(&self) -> Option<f32> {
        self.moving_speed
    }
}
