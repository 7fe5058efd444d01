//! Plans.

use crate::error::Failure;
use crate::json;
use crate::norm::Norm;
use crate::role;
use crate::tensor::TensorShape;
use crate::tuning::{Limits, Tuning};
use bcnorm::kernels::{Access, browser_wgsl};
use bcnorm::plan::{BoundBuffer, Step};
use bcnorm::role::RoleKind;
use bcnorm::{Activation, BackwardOptions, ForwardOptions, Fusion, GradientMode, Mode};
use std::fmt;
use wasm_bindgen::prelude::*;

/// `GPUBufferUsage.STORAGE`.
const STORAGE: u32 = 0x80;

/// What is fused.
#[wasm_bindgen]
#[derive(Clone, Copy)]
pub struct Options {
    pub(crate) mode: Mode,
    pub(crate) fusion: Fusion,
}

#[wasm_bindgen]
impl Options {
    /// `activation`: `none`, `relu` or `silu`; `residual`: whether one is added before it.
    #[wasm_bindgen(constructor)]
    pub fn new(training: bool, activation: &str, residual: bool) -> Result<Options, Failure> {
        let activation = match activation {
            "none" => Activation::None,
            "relu" => Activation::Relu,
            "silu" => Activation::Silu,
            _ => return Err(Failure::unknown("norm", "activation", activation)),
        };
        let mode = if training { Mode::Train } else { Mode::Eval };
        let fusion = Fusion::NONE
            .with_activation(activation)
            .with_residual(residual);
        Ok(Options { mode, fusion })
    }
}

/// `bcnorm::Plan`.
#[wasm_bindgen]
pub struct Plan {
    pub(crate) plan: bcnorm::Plan,
}

#[wasm_bindgen]
impl Plan {
    /// y from x.
    pub fn forward(
        norm: &Norm,
        tensor: &TensorShape,
        options: &Options,
        in_place: bool,
        inference: bool,
        tuning: &Tuning,
    ) -> Result<Plan, Failure> {
        let forward = ForwardOptions::default()
            .with_fusion(options.fusion)
            .with_in_place(in_place)
            .with_inference(inference);
        let plan = bcnorm::Plan::forward(
            &norm.desc,
            &tensor.desc,
            options.mode,
            forward,
            &tuning.tuning,
        )?;
        Ok(Plan { plan })
    }

    /// The gradients; those of the parameters are added to what is there, or replace it.
    pub fn backward(
        norm: &Norm,
        tensor: &TensorShape,
        options: &Options,
        accumulate: bool,
        tuning: &Tuning,
    ) -> Result<Plan, Failure> {
        let parameters = if accumulate {
            GradientMode::Accumulate
        } else {
            GradientMode::Replace
        };
        let backward = BackwardOptions::default()
            .with_parameters(parameters)
            .with_fusion(options.fusion);
        let plan = bcnorm::Plan::backward(
            &norm.desc,
            &tensor.desc,
            options.mode,
            backward,
            &tuning.tuning,
        )?;
        Ok(Plan { plan })
    }

    /// The plan as JSON: `PlanData` in `web/src/planner.ts`.
    pub fn describe(&self) -> String {
        let needs = self.plan.needs().iter().map(|need| {
            let kind = match need.role.kind() {
                RoleKind::Caller => "caller",
                RoleKind::Saved => "saved",
                _ => "scratch",
            };
            json::object([
                ("role", json::string(need.role.name())),
                ("bytes", need.bytes.to_string()),
                ("kind", json::string(kind)),
            ])
        });
        json::object([
            ("steps", json::array(self.plan.steps().iter().map(step))),
            ("needs", json::array(needs)),
            ("tensorBytes", self.plan.tensor_bytes().to_string()),
        ])
    }

    /// The WGSL of a step's kernel.
    pub fn wgsl(&self, step: usize) -> Option<String> {
        let step = self.plan.steps().get(step)?;
        Some(browser_wgsl(&step.spec))
    }

    /// The uniforms of all steps, one every `stride` bytes.
    pub fn uniforms(&self, stride: usize) -> Result<Vec<u8>, Failure> {
        Ok(self.plan.uniforms(stride)?)
    }

    /// Whether a device grants what the plan needs.
    #[wasm_bindgen(js_name = checkLimits)]
    pub fn check_limits(&self, limits: &Limits) -> Result<(), Failure> {
        Ok(self.plan.check_limits(&limits.limits)?)
    }

    /// Checks buffers to be bound: of each its role, a number that is equal where the buffer is, its offset, size
    /// and usage.
    #[wasm_bindgen(js_name = checkBuffers)]
    pub fn check_buffers(
        &self,
        roles: Vec<String>,
        ids: &[u32],
        offsets: &[f64],
        sizes: &[f64],
        usages: &[u32],
        limits: &Limits,
    ) -> Result<(), Failure> {
        let named: Vec<Usage> = usages.iter().map(|&usage| Usage(usage)).collect();
        let mut buffers = Vec::new();
        for (index, name) in roles.iter().enumerate() {
            buffers.push(BoundBuffer {
                role: role(name)?,
                id: ids[index] as usize,
                offset: offsets[index] as u64,
                size: sizes[index] as u64,
                storage: usages[index] & STORAGE != 0,
                usage: &named[index],
            });
        }
        Ok(self.plan.check_buffers(&buffers, false, &limits.limits)?)
    }
}

/// GPUBufferUsage flags.
struct Usage(u32);

impl fmt::Debug for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:x}", self.0)
    }
}

fn step(step: &Step) -> String {
    let bindings = step
        .spec
        .bindings()
        .zip(&step.bindings)
        .map(|((number, declared), role)| {
            json::object([
                ("binding", number.to_string()),
                ("role", json::string(role.name())),
                ("write", (declared.access == Access::ReadWrite).to_string()),
                ("tensor", role.is_tensor().to_string()),
                ("minBytes", declared.element.bytes(&step.spec).to_string()),
            ])
        });
    let window = step
        .window
        .map(|window| format!("[{},{}]", window.offset, window.bytes));
    let [x, y] = step.workgroups;
    json::object([
        ("kernel", json::string(step.spec.kernel.name())),
        // Every field of it: equal keys, equal text and layout.
        ("key", json::string(&step.spec.key())),
        ("bindings", json::array(bindings)),
        ("window", json::option(window)),
        ("workgroups", format!("[{x},{y}]")),
    ])
}
