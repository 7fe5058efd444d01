//! A plan is data: which kernels to run on which buffers. Making one needs no GPU.
//!
//! [`Plan::forward`] and [`Plan::backward`] turn a norm, a tensor and a [`Tuning`] into a list of
//! [`Step`]s. Executors run them ([`gpu`](crate::gpu), [`cpu`](crate::cpu)); they know nothing of
//! norms, and the planner nothing of devices.

mod backward;
mod forward;
mod geometry;

use crate::desc::{BcNormDesc, Mode, TensorDesc, Write};
use crate::error::Error;
use crate::kernels::{Access, Spec};
use crate::params::Params;
use crate::role::{Role, RoleKind};
use crate::tuning::Tuning;
use geometry::Geometry;

/// One dispatch.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The kernel and what its text depends on.
    pub spec: Spec,
    /// Its uniform.
    pub params: Params,
    /// The buffers of the kernel's bindings, in their order.
    pub bindings: Vec<Role>,
    /// Workgroups in x and y (more than a dimension holds are folded into two).
    pub workgroups: [u32; 2],
}

/// A buffer that a plan uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// Which.
    pub role: Role,
    /// Its size in bytes.
    pub bytes: u64,
    /// `ReadWrite` where any step writes it.
    pub access: Access,
}

/// Which way a plan goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// x to y.
    Forward,
    /// dy to dx and the parameters' gradients.
    Backward,
}

/// What backward does with its outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct BackwardOptions {
    /// How the gradient of x is written.
    pub x: Write,
    /// How the gradients of bn.weight, bn.bias, weight and bias are written.
    pub parameters: Write,
}

/// A list of dispatches over named buffers.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    direction: Direction,
    mode: Mode,
    norm: BcNormDesc,
    tensor: TensorDesc,
    steps: Vec<Step>,
    needs: Vec<Need>,
}

impl Plan {
    /// Plans y = BCNorm(x): two tensor-sized steps (row_moments, row_affine; 3 transfers), the
    /// others on tables. In training the running statistics are updated. An empty batch makes an
    /// empty plan.
    ///
    /// # Errors
    /// Those of [`BcNormDesc::validate_for`]; [`Error::Limit`] where the tuning cannot bound a loop
    /// or a dispatch.
    pub fn forward(
        norm: &BcNormDesc,
        tensor: &TensorDesc,
        mode: Mode,
        tuning: &Tuning,
    ) -> Result<Plan, Error> {
        norm.validate_for(tensor, mode)?;
        let mut builder = Builder::new(norm, tensor, mode, tuning)?;
        forward::plan(&mut builder)?;
        Ok(builder.finish(Direction::Forward))
    }

    /// Plans the gradients of x and of all parameters from x, dy and the tables that the forward
    /// plan of the same norm, tensor and mode saved: two tensor-sized steps (row_products,
    /// row_affine_backward; 5 transfers). An empty batch yields parameter gradients of zero.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn backward(
        norm: &BcNormDesc,
        tensor: &TensorDesc,
        mode: Mode,
        options: BackwardOptions,
        tuning: &Tuning,
    ) -> Result<Plan, Error> {
        norm.validate_for(tensor, mode)?;
        let mut builder = Builder::new(norm, tensor, mode, tuning)?;
        backward::plan(&mut builder, options)?;
        Ok(builder.finish(Direction::Backward))
    }

    /// The dispatches, in order.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Every buffer, each role once.
    pub fn needs(&self) -> &[Need] {
        &self.needs
    }

    /// The buffers of one kind.
    pub fn needs_of(&self, kind: RoleKind) -> impl Iterator<Item = &Need> {
        self.needs
            .iter()
            .filter(move |need| need.role.kind() == kind)
    }

    /// What the plan needs of one buffer, if anything.
    pub fn need(&self, role: Role) -> Option<&Need> {
        self.needs.iter().find(|need| need.role == role)
    }

    /// Which way it goes.
    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// Training or inference.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The norm it computes.
    pub fn norm(&self) -> &BcNormDesc {
        &self.norm
    }

    /// The shape it computes it for.
    pub fn tensor(&self) -> &TensorDesc {
        &self.tensor
    }

    /// Bytes of tensor-sized data that the plan moves: 3 transfers forward, 5 backward (6 where dx
    /// is accumulated, and so read).
    pub fn tensor_bytes(&self) -> u64 {
        let bound = self.steps.iter().flat_map(|step| &step.bindings);
        let transfers = bound
            .filter(|role| matches!(role, Role::X | Role::Y | Role::GradY | Role::GradX))
            .count();
        let reread = self
            .steps
            .iter()
            .filter(|step| step.spec.accumulate)
            .count();
        (transfers + reread) as u64 * self.tensor.bytes()
    }
}

/// Collects the steps of a plan.
struct Builder<'a> {
    norm: &'a BcNormDesc,
    tensor: &'a TensorDesc,
    mode: Mode,
    tuning: &'a Tuning,
    geometry: Geometry,
    params: Params,
    steps: Vec<Step>,
    needs: Vec<Need>,
}

impl<'a> Builder<'a> {
    fn new(
        norm: &'a BcNormDesc,
        tensor: &'a TensorDesc,
        mode: Mode,
        tuning: &'a Tuning,
    ) -> Result<Self, Error> {
        let geometry = Geometry::new(tensor, tuning)?;
        Ok(Self {
            params: geometry::base_params(norm, tensor, mode, &geometry),
            norm,
            tensor,
            mode,
            tuning,
            geometry,
            steps: Vec::new(),
            needs: Vec::new(),
        })
    }

    /// Adds a dispatch, and what it needs of its buffers.
    fn push(&mut self, spec: Spec, params: Params, bindings: &[(Role, u64)]) -> Result<(), Error> {
        let kernel = spec.kernel.kernel();
        debug_assert_eq!(kernel.bindings.len(), bindings.len(), "{}", kernel.name);
        for (declared, &(role, count)) in kernel.bindings.iter().zip(bindings) {
            let bytes = count * declared.element.bytes(spec.width);
            self.need(role, bytes, declared.access);
        }
        let workgroups = geometry::workgroups(&spec, params.items, self.tuning)?;
        self.steps.push(Step {
            spec,
            params,
            bindings: bindings.iter().map(|&(role, _)| role).collect(),
            workgroups,
        });
        Ok(())
    }

    fn need(&mut self, role: Role, bytes: u64, access: Access) {
        match self.needs.iter_mut().find(|need| need.role == role) {
            Some(need) => {
                need.bytes = need.bytes.max(bytes);
                if access == Access::ReadWrite {
                    need.access = access;
                }
            }
            None => self.needs.push(Need {
                role,
                bytes,
                access,
            }),
        }
    }

    fn finish(self, direction: Direction) -> Plan {
        Plan {
            direction,
            mode: self.mode,
            norm: *self.norm,
            tensor: self.tensor.clone(),
            steps: self.steps,
            needs: self.needs,
        }
    }
}
