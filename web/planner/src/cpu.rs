//! The CPU executor.

use crate::error::Failure;
use crate::norm::Norm;
use crate::plan::Options;
use crate::role;
use crate::state::State;
use crate::tensor::TensorShape;
use bcnorm::cpu::{Buffers, Executor};
use bcnorm::layer::state;
use bcnorm::{BackwardOptions, DType, Error, ForwardOptions, Plan, Role, host};
use wasm_bindgen::prelude::*;

/// One call of a norm on the CPU.
#[wasm_bindgen]
pub struct CpuCall {
    norm: Norm,
    tensor: TensorShape,
    options: Options,
    buffers: Buffers,
}

#[wasm_bindgen]
impl CpuCall {
    /// With the parameters of a state dict; without one, a new layer's.
    #[wasm_bindgen(constructor)]
    pub fn new(
        norm: &Norm,
        tensor: &TensorShape,
        options: &Options,
        state: Option<State>,
    ) -> Result<CpuCall, Failure> {
        let mut call = CpuCall {
            norm: norm.clone(),
            tensor: tensor.clone(),
            options: *options,
            buffers: Buffers::new(),
        };
        for entry in state::entries(&norm.desc) {
            let len = entry.dims.iter().product();
            call.buffers.set(entry.role, vec![entry.initial; len]);
        }
        call.buffers.set_u32(Role::NumBatchesTracked, vec![0]);
        if let Some(state) = state {
            let fit = state::fit(&norm.desc, &state.dict)?;
            for (role, values) in fit.values {
                call.buffers.set(role, values.to_vec());
            }
            let count = fit.batch_count.unwrap_or(0);
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            call.buffers.set_u32(Role::NumBatchesTracked, vec![count]);
            call.norm.desc = fit.norm;
        }
        Ok(call)
    }

    /// Gives a tensor.
    pub fn set(&mut self, name: &str, values: &[f32]) -> Result<(), Failure> {
        let expected = self.tensor.desc.elements() as usize;
        if values.len() != expected {
            return Err(Error::Length {
                what: name.to_owned(),
                found: values.len(),
                expected,
            }
            .into());
        }
        let words = host::pack(self.tensor.desc.dtype(), values);
        self.buffers.set_u32(role(name)?, words);
        Ok(())
    }

    /// Runs forward and, if asked, backward.
    pub fn run(&mut self, backward: bool) -> Result<(), Failure> {
        let Options { mode, fusion } = self.options;
        let (norm, tensor) = (&self.norm.desc, &self.tensor.desc);
        let executor = Executor::with_threads(1);
        let tuning = executor.tuning();
        let forward = ForwardOptions::default().with_fusion(fusion);
        let plan = Plan::forward(norm, tensor, mode, forward, &tuning)?;
        executor.run(&plan, &mut self.buffers)?;
        if backward {
            let backward = BackwardOptions::default().with_fusion(fusion);
            let plan = Plan::backward(norm, tensor, mode, backward, &tuning)?;
            executor.run(&plan, &mut self.buffers)?;
        }
        Ok(())
    }

    /// What is in a buffer now, as f32.
    pub fn get(&self, name: &str) -> Result<Option<Vec<f32>>, Failure> {
        let role = role(name)?;
        let words = self.buffers.get_u32(role);
        Ok(words.map(|words| match role.is_tensor() {
            true => {
                let len = self.tensor.desc.elements() as usize;
                host::unpack(self.tensor.desc.dtype(), words, len)
            }
            false => host::unpack(DType::F32, words, words.len()),
        }))
    }
}
