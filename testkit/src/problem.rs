//! One normalization to compute: from a golden file, or drawn at random.

use crate::failure::Failure;
use crate::names::{input_name, parameter_len};
use crate::oracle;
use crate::random::Random;
use crate::storage::{encode, round_all};
use bcnorm::{
    Activation, BackwardOptions, ChannelStats, DType, Error, ForwardOptions, Fusion, Layout, Mode,
    NormDesc, NormKind, Plan, Role, TensorDesc, Tuning,
};

/// One call of a norm with all its data. Tensors are in row-major order with channels first, whatever
/// the layout, and hold values of the type: both matter in memory only.
///
/// What the norm or the call does without is empty.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// (N, C, *spatial); Weight Standardization: (O, 1, *rest).
    pub dims: Vec<usize>,
    /// The norm.
    pub norm: NormDesc,
    /// How tensors are stored.
    pub dtype: DType,
    /// Their order in memory.
    pub layout: Layout,
    /// Training or inference.
    pub mode: Mode,
    /// What is applied after the norm.
    pub fusion: Fusion,
    /// Whether backward is computed, too.
    pub backward: bool,
    /// The input.
    pub x: Vec<f32>,
    /// What is added before the activation.
    pub residual: Vec<f32>,
    /// The gradient of the loss with respect to y.
    pub grad_y: Vec<f32>,
    /// `bn.weight`, (C).
    pub bn_weight: Vec<f32>,
    /// `bn.bias`, (C).
    pub bn_bias: Vec<f32>,
    /// `weight`, (G) or (C).
    pub weight: Vec<f32>,
    /// `bias`, as `weight`.
    pub bias: Vec<f32>,
    /// The running mean before the call, (C).
    pub running_mean: Vec<f32>,
    /// The running variance before the call, (C).
    pub running_var: Vec<f32>,
    /// How many batches were tracked before the call.
    pub num_batches_tracked: u32,
}

impl Problem {
    /// The first forward pass of a new layer in training, on f32 with channels first.
    pub fn new(norm: NormDesc, dims: &[usize], x: Vec<f32>) -> Self {
        let problem = Self {
            dims: dims.to_vec(),
            norm,
            dtype: DType::F32,
            layout: Layout::ChannelsFirst,
            mode: Mode::Train,
            fusion: Fusion::default(),
            backward: false,
            x,
            residual: Vec::new(),
            grad_y: Vec::new(),
            bn_weight: Vec::new(),
            bn_bias: Vec::new(),
            weight: Vec::new(),
            bias: Vec::new(),
            running_mean: Vec::new(),
            running_var: Vec::new(),
            num_batches_tracked: 0,
        };
        problem.with_fresh_state()
    }

    /// BCNorm in training on f32, channels first: x with mean 3 and deviation 2, random parameters and
    /// running statistics.
    pub fn random(dims: &[usize], num_groups: usize, seed: u64) -> Self {
        Self::random_of(NormDesc::bc_norm(dims[1], num_groups), dims, seed)
    }

    /// The same of any norm.
    pub fn random_of(norm: NormDesc, dims: &[usize], seed: u64) -> Self {
        let mut random = Random::new(seed);
        let len = dims.iter().product();
        let len_of = |role| parameter_len(&norm, role);
        // In this order: another draws other data.
        let x = random.normals(len, 3.0, 2.0);
        Self {
            backward: true,
            grad_y: random.normals(len, 0.0, 1.0),
            bn_weight: random.normals(len_of(Role::BnWeight), 1.0, 0.3),
            bn_bias: random.normals(len_of(Role::BnBias), 0.0, 0.3),
            weight: random.normals(len_of(Role::Weight), 1.0, 0.3),
            bias: random.normals(len_of(Role::Bias), 0.0, 0.3),
            running_mean: random.normals(len_of(Role::RunningMean), 3.0, 0.5),
            running_var: (0..len_of(Role::RunningVar))
                .map(|_| 1.0 + 4.0 * random.uniform())
                .collect(),
            num_batches_tracked: 3,
            ..Self::new(norm, dims, x)
        }
    }

    /// The parameters and the state of a new layer.
    #[must_use]
    pub fn with_fresh_state(self) -> Self {
        let len_of = |role| parameter_len(&self.norm, role);
        Self {
            bn_weight: vec![1.0; len_of(Role::BnWeight)],
            bn_bias: vec![0.0; len_of(Role::BnBias)],
            weight: vec![1.0; len_of(Role::Weight)],
            bias: vec![0.0; len_of(Role::Bias)],
            running_mean: vec![0.0; len_of(Role::RunningMean)],
            running_var: vec![1.0; len_of(Role::RunningVar)],
            num_batches_tracked: 0,
            ..self
        }
    }

    /// Sets the mode.
    #[must_use]
    pub fn with_mode(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }

    /// Sets where channel statistics come from.
    #[must_use]
    pub fn with_stats(mut self, stats: ChannelStats) -> Self {
        self.norm.stats = stats;
        self
    }

    /// Rounds the tensors to a type.
    #[must_use]
    pub fn with_dtype(mut self, dtype: DType) -> Self {
        self.dtype = dtype;
        for values in [&mut self.x, &mut self.residual, &mut self.grad_y] {
            round_all(values, dtype);
        }
        self
    }

    /// Sets the order in memory.
    #[must_use]
    pub fn with_layout(self, layout: Layout) -> Self {
        Self { layout, ..self }
    }

    /// Sets what is applied after the norm, and draws a residual, of mean 0 and deviation 1, where there
    /// is one.
    #[must_use]
    pub fn with_fusion(mut self, fusion: Fusion) -> Self {
        let len = if fusion.residual { self.x.len() } else { 0 };
        self.residual = Random::new(len as u64 ^ 0x5eed).normals(len, 0.0, 1.0);
        round_all(&mut self.residual, self.dtype);
        Self { fusion, ..self }
    }

    /// With a backward pass from this gradient of y.
    #[must_use]
    pub fn with_grad_y(self, grad_y: Vec<f32>) -> Self {
        Self {
            backward: true,
            grad_y,
            ..self
        }
    }

    /// Without a backward pass.
    #[must_use]
    pub fn forward_only(self) -> Self {
        Self {
            backward: false,
            grad_y: Vec::new(),
            ..self
        }
    }

    /// C.
    pub fn num_channels(&self) -> usize {
        self.dims.get(1).copied().unwrap_or(0)
    }

    /// The tensor's description.
    ///
    /// # Panics
    /// Where there is no such tensor; [`check`](Self::check) says why.
    pub fn tensor(&self) -> TensorDesc {
        self.try_tensor().expect("a tensor that the library takes")
    }

    fn try_tensor(&self) -> Result<TensorDesc, Error> {
        let tensor = TensorDesc::new(&self.dims)?;
        Ok(tensor.with_dtype(self.dtype).with_layout(self.layout))
    }

    /// Checks the norm, the tensor, and what no plan can see: the lengths of the data.
    ///
    /// # Errors
    /// The library's, or which data have a wrong length.
    pub fn check(&self) -> Result<TensorDesc, Failure> {
        let tensor = self.try_tensor()?;
        self.norm.validate_for(&tensor, self.mode)?;
        let elements = tensor.elements() as usize;
        let where_set = |set: bool| if set { elements } else { 0 };
        let tensors = [
            (Role::X, &self.x, elements),
            (
                Role::Residual,
                &self.residual,
                where_set(self.fusion.residual),
            ),
            (Role::GradY, &self.grad_y, where_set(self.backward)),
        ];
        let parameters = self.parameters();
        let parameters =
            parameters.map(|(role, values)| (role, values, parameter_len(&self.norm, role)));
        for (role, values, expected) in tensors.into_iter().chain(parameters) {
            let found = values.len();
            if found != expected {
                let name = input_name(&self.norm, role).unwrap_or(role.name());
                return Err(Failure::Data(format!(
                    "{name} has {found} values, expected {expected} for shape {:?} and {} groups",
                    self.dims, self.norm.num_groups
                )));
            }
        }
        Ok(tensor)
    }

    /// Plans forward, and backward where it is computed.
    ///
    /// # Errors
    /// Those of [`check`](Self::check) and of the planner.
    pub fn plans(&self, tuning: &Tuning) -> Result<(Plan, Option<Plan>), Failure> {
        self.check()?;
        let backward = match self.backward {
            true => Some(self.backward_plan(BackwardOptions::default(), tuning)?),
            false => None,
        };
        let forward = self.forward_plan(ForwardOptions::default(), tuning)?;
        Ok((forward, backward))
    }

    /// Plans forward. The fusion is the problem's; in evaluation without a backward it is for inference.
    ///
    /// # Errors
    /// Those of the planner.
    pub fn forward_plan(&self, options: ForwardOptions, tuning: &Tuning) -> Result<Plan, Error> {
        let fusion = self.fusion;
        let options = options
            .with_fusion(fusion)
            .with_inference(options.inference || (self.mode == Mode::Eval && !self.backward));
        Plan::forward(&self.norm, &self.try_tensor()?, self.mode, options, tuning)
    }

    /// Plans backward. The fusion is the problem's.
    ///
    /// # Errors
    /// Those of the planner.
    pub fn backward_plan(&self, options: BackwardOptions, tuning: &Tuning) -> Result<Plan, Error> {
        let fusion = self.fusion;
        let options = options.with_fusion(fusion);
        Plan::backward(&self.norm, &self.try_tensor()?, self.mode, options, tuning)
    }

    /// Parameters and running statistics by role.
    fn parameters(&self) -> [(Role, &Vec<f32>); 6] {
        [
            (Role::BnWeight, &self.bn_weight),
            (Role::BnBias, &self.bn_bias),
            (Role::Weight, &self.weight),
            (Role::Bias, &self.bias),
            (Role::RunningMean, &self.running_mean),
            (Role::RunningVar, &self.running_var),
        ]
    }

    /// The float inputs that are there, by role.
    pub fn inputs(&self) -> Vec<(Role, &[f32])> {
        let mut inputs: Vec<(Role, &[f32])> = vec![(Role::X, &self.x)];
        if self.fusion.residual {
            inputs.push((Role::Residual, &self.residual));
        }
        if self.backward {
            inputs.push((Role::GradY, &self.grad_y));
        }
        let parameters = self.parameters().into_iter();
        let there = parameters.filter(|(_, values)| !values.is_empty());
        inputs.extend(there.map(|(role, values)| (role, &values[..])));
        inputs
    }

    /// The words of an input's buffer.
    pub fn words(&self, role: Role, values: &[f32]) -> Vec<u32> {
        match role.is_tensor() {
            true => encode(values, &self.tensor()),
            false => bytemuck::pod_collect_to_vec(values),
        }
    }

    /// The oracle's answer. Call [`check`](Self::check) first where the data may not fit.
    pub fn oracle(&self) -> oracle::Output {
        oracle::normalize(&self.oracle_input())
    }

    /// The oracle's answer, calculated in this type of number: in f64 for tensors that would take
    /// too long otherwise.
    pub fn oracle_in<T: oracle::Number>(&self) -> oracle::Output {
        oracle::normalize_in::<T>(&self.oracle_input())
    }

    /// What the oracle is asked.
    pub fn oracle_input(&self) -> oracle::Input<'_> {
        fn given(values: &[f32]) -> Option<&[f32]> {
            (!values.is_empty()).then_some(values)
        }
        oracle::Input {
            residual: self.fusion.residual.then_some(&self.residual[..]),
            activation: self.fusion.activation,
            grad_y: self.backward.then_some(&self.grad_y[..]),
            bn_weight: given(&self.bn_weight),
            bn_bias: given(&self.bn_bias),
            weight: given(&self.weight),
            bias: given(&self.bias),
            running_mean: given(&self.running_mean),
            running_var: given(&self.running_var),
            num_batches_tracked: u64::from(self.num_batches_tracked),
            ..oracle::Input::new(&self.norm, &self.tensor(), self.mode, &self.x)
        }
    }

    /// Batches tracked after the call: training with tracked batch statistics counts, but with
    /// InstanceNorm, and a batch without elements.
    pub fn num_batches_tracked_after(&self) -> u32 {
        let counts = self.mode == Mode::Train
            && matches!(self.norm.kind, NormKind::BatchNorm | NormKind::BcNorm)
            && matches!(self.norm.stats, ChannelStats::Batch { .. })
            && self.norm.has_running_stats()
            && !self.dims.contains(&0);
        self.num_batches_tracked.saturating_add(u32::from(counts))
    }

    /// Whether backward has a mask that rounding can flip.
    pub(crate) fn has_mask(&self) -> bool {
        self.backward && self.fusion.activation == Activation::Relu
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every kind, in its plainest form, for 6 channels.
    fn norms() -> Vec<NormDesc> {
        vec![
            NormDesc::batch_norm(6),
            NormDesc::est_bn(6),
            NormDesc::group_norm(3, 6),
            NormDesc::instance_norm(6),
            NormDesc::instance_norm(6).with_track_running_stats(true),
            NormDesc::layer_norm(6),
            NormDesc::bc_norm(6, 2),
            NormDesc::bc_norm(6, 2).with_per_channel_affine(true),
            NormDesc::weight_standardization(),
        ]
    }

    #[test]
    fn every_norm_has_data_that_fit() {
        for norm in norms() {
            let dims = [4, norm.num_channels, 5];
            let problem = Problem::random_of(norm, &dims, 1);
            problem.check().unwrap();
            problem.clone().with_fresh_state().check().unwrap();
            let fusion = Fusion::default().with_residual(true);
            let mut fused = problem.clone().with_fusion(fusion);
            fused.check().unwrap();
            fused.residual.pop();
            let error = fused.check().unwrap_err().to_string();
            assert!(error.contains("residual has"), "{error}");
            let forward = problem.clone().forward_only();
            forward.check().unwrap();
            assert!(
                forward
                    .inputs()
                    .iter()
                    .all(|(role, _)| *role != Role::GradY)
            );
            let mut short = problem;
            short.x.pop();
            short.check().unwrap_err();
        }
        let mut problem = Problem::random(&[2, 4, 3], 2, 1);
        problem.running_var.pop();
        let error = problem.check().unwrap_err().to_string();
        assert!(error.contains("bn.running_var has 3 values"), "{error}");
    }

    #[test]
    fn batches_are_counted_as_the_oracle_does() {
        for norm in norms() {
            for (samples, mode) in [(4, Mode::Train), (4, Mode::Eval), (0, Mode::Train)] {
                for norm in [norm, norm.with_track_running_stats(false)] {
                    let dims = [samples, norm.num_channels, 5];
                    let problem = Problem::random_of(norm, &dims, 1).with_mode(mode);
                    let count = problem.oracle().num_batches_tracked;
                    assert_eq!(u64::from(problem.num_batches_tracked_after()), count);
                }
            }
        }
    }

    #[test]
    fn a_type_rounds_the_tensors_and_nothing_else() {
        let problem = Problem::random(&[2, 4, 3], 2, 1);
        let rounded = problem.clone().with_dtype(DType::BF16);
        assert_ne!(rounded.x, problem.x);
        assert_eq!(rounded.weight, problem.weight);
        assert_eq!(rounded.clone().with_dtype(DType::BF16), rounded);
        rounded.words(Role::X, &rounded.x);
    }
}
