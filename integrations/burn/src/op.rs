//! The operation as burn's backends know it: on the cubecl backend, which has wgpu, with autodiff and kernel fusion.

use crate::context::Call;
use bcnorm::Role;
use bcnorm::plan::Access;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, ExtensionType, backend_extension};
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous_aligned;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;

/// What a norm differentiates by, or the gradients of these. A slot that the norm has no use for holds x, which
/// nothing reads there.
#[derive(Debug, Clone, ExtensionType)]
#[extension_type(fusion: cfg(feature = "fusion"))]
pub struct Operands<B: Backend> {
    /// The input.
    pub x: FloatTensor<B>,
    /// `weight`.
    pub weight: FloatTensor<B>,
    /// `bias`.
    pub bias: FloatTensor<B>,
    /// BCNorm's `bn.weight`.
    pub bn_weight: FloatTensor<B>,
    /// BCNorm's `bn.bias`.
    pub bn_bias: FloatTensor<B>,
    /// What is added before the activation.
    pub residual: FloatTensor<B>,
}

impl<B: Backend> Operands<B> {
    fn into_array(self) -> [FloatTensor<B>; 6] {
        let Self {
            x,
            weight,
            bias,
            bn_weight,
            bn_bias,
            residual,
        } = self;
        [x, weight, bias, bn_weight, bn_bias, residual]
    }

    fn from_array(tensors: [FloatTensor<B>; 6]) -> Self {
        let [x, weight, bias, bn_weight, bn_bias, residual] = tensors;
        Self {
            x,
            weight,
            bias,
            bn_weight,
            bn_bias,
            residual,
        }
    }
}

/// The roles of the operands, and of their gradients.
const ROLES: [(Role, Role); 6] = [
    (Role::X, Role::GradX),
    (Role::Weight, Role::GradWeight),
    (Role::Bias, Role::GradBias),
    (Role::BnWeight, Role::GradBnWeight),
    (Role::BnBias, Role::GradBnBias),
    (Role::Residual, Role::GradResidual),
];

/// y, and the running statistics after it: those that were given, where the call moves none.
#[backend_extension(Cube, Autodiff, Fusion: cfg(feature = "fusion"))]
pub trait NormForward: Backend {
    /// Forward.
    #[fusion(meta = |operands, mean, var, _call| (operands.x.clone(), mean.clone(), var.clone()))]
    fn norm_forward(
        #[extension_type] operands: Operands<Self>,
        running_mean: FloatTensor<Self>,
        running_var: FloatTensor<Self>,
        call: Call,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

/// The gradients of a [`NormForward`] by all of its operands.
#[backend_extension(Cube, Fusion: cfg(feature = "fusion"))]
pub trait NormBackward: Backend {
    /// Backward.
    #[fusion(meta = |operands, _grad_y, _call| operands.clone())]
    fn norm_backward(
        #[extension_type] operands: Operands<Self>,
        grad_y: FloatTensor<Self>,
        call: Call,
    ) -> Operands<Self>;
}

/// A tensor of the same shape and type, not written yet.
fn empty_like(tensor: &CubeTensor) -> CubeTensor {
    let (client, device) = (tensor.client.clone(), tensor.device.clone());
    empty_device_contiguous_dtype(client, device, tensor.meta.shape().clone(), tensor.dtype)
}

impl NormForward for CubeBackend {
    fn norm_forward(
        operands: Operands<Self>,
        running_mean: CubeTensor,
        running_var: CubeTensor,
        call: Call,
    ) -> (CubeTensor, CubeTensor, CubeTensor) {
        let operands = operands.into_array().map(into_contiguous_aligned);
        // bcnorm moves running statistics in place, and burn's tensors never change.
        let moved = |tensor, role| {
            let tensor = into_contiguous_aligned(tensor);
            match call.forward().need(role).map(|need| need.access) {
                Some(Access::ReadWrite) => tensor.copy(),
                _ => tensor,
            }
        };
        let running_mean = moved(running_mean, Role::RunningMean);
        let running_var = moved(running_var, Role::RunningVar);
        let y = empty_like(&operands[0]);
        let mut tensors = vec![
            (Role::RunningMean, &running_mean),
            (Role::RunningVar, &running_var),
            (Role::Y, &y),
        ];
        tensors.extend(ROLES.iter().zip(&operands).map(|((role, _), t)| (*role, t)));
        call.run_forward(&tensors);
        (y, running_mean, running_var)
    }
}

impl NormBackward for CubeBackend {
    fn norm_backward(operands: Operands<Self>, grad_y: CubeTensor, call: Call) -> Operands<Self> {
        let operands = operands.into_array().map(into_contiguous_aligned);
        let grad_y = into_contiguous_aligned(grad_y);
        let plan = call.backward();
        let needs = |role| plan.is_some_and(|plan| plan.need(role).is_some());
        let gradients: Vec<_> = ROLES
            .iter()
            .zip(&operands)
            .map(|((_, role), operand)| match role {
                role if needs(*role) => empty_like(operand),
                // Without an activation.
                Role::GradResidual => grad_y.clone(),
                _ => operand.clone(),
            })
            .collect();
        let mut tensors = vec![(Role::GradY, &grad_y)];
        for (((role, gradient_role), operand), gradient) in
            ROLES.iter().zip(&operands).zip(&gradients)
        {
            tensors.extend([(*role, operand), (*gradient_role, gradient)]);
        }
        call.run_backward(&tensors);
        let gradients = gradients.try_into();
        Operands::from_array(gradients.expect("as many as roles"))
    }
}

impl<B: NormForward + NormBackward, C: CheckpointStrategy> NormForward for Autodiff<B, C> {
    fn norm_forward(
        operands: Operands<Self>,
        running_mean: FloatTensor<Self>,
        running_var: FloatTensor<Self>,
        call: Call,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        #[derive(Debug)]
        struct Norm;

        impl<B: NormForward + NormBackward> Backward<B, 6> for Norm {
            type State = (Operands<B>, Call);

            fn backward(
                self,
                ops: Ops<Self::State, 6>,
                grads: &mut Gradients,
                _: &mut Checkpointer,
            ) {
                let grad_y = grads.consume::<B>(&ops.node);
                let (operands, call) = ops.state;
                let gradients = B::norm_backward(operands, grad_y, call).into_array();
                for (node, gradient) in ops.parents.into_iter().zip(gradients) {
                    if let Some(node) = node {
                        grads.register::<B>(node.id, gradient);
                    }
                }
            }
        }

        let operands = operands.into_array();
        let nodes = operands.each_ref().map(|operand| operand.node());
        let operands = Operands::<B>::from_array(operands.map(|operand| operand.into_primitive()));
        let [running_mean, running_var] =
            [running_mean, running_var].map(|tensor| tensor.into_primitive());
        let (y, running_mean, running_var) =
            B::norm_forward(operands.clone(), running_mean, running_var, call.clone());
        let y = match Norm.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let reads = |role| {
                    call.backward()
                        .is_some_and(|plan| plan.need(role).is_some())
                };
                let mut saved = operands;
                if !reads(Role::Residual) {
                    saved.residual = saved.x.clone();
                }
                prep.finish((saved, call), y)
            }
            OpsKind::UnTracked(prep) => prep.finish(y),
        };
        let [running_mean, running_var] = [running_mean, running_var].map(FloatTensor::<Self>::new);
        (y, running_mean, running_var)
    }
}
