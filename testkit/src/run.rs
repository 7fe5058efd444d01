//! Runs a problem on a GPU or on the CPU executor, everything poisoned beforehand, and says what the
//! oracle expects.

use crate::Failure;
use crate::problem::{Problem, output_name};
use crate::storage::{decode, padding, unwritten};
use crate::{compare, oracle};
use bcnorm::gpu::headless::Gpu;
use bcnorm::gpu::{Bindings, Pipelines, Prepared, Tables, transfer};
use bcnorm::role::RoleKind;
use bcnorm::{
    Activation, BackwardOptions, Error, Fusion, NormDesc, Plan, Role, TensorDesc, Tuning, cpu,
};
use pollster::block_on;
use std::collections::BTreeMap;
use std::ops::Index;

pub use crate::storage::POISON;

/// The outputs, by the names of the golden files. Tensors are in row-major order with channels first.
pub type Outputs = BTreeMap<&'static str, Vec<f32>>;

/// What the oracle expects of each output, with the scale that an error is divided by.
pub type Expected = BTreeMap<&'static str, (Vec<f64>, f64)>;

/// Roles that a caller reads back.
const OUTPUTS: [Role; 9] = [
    Role::Y,
    Role::RunningMean,
    Role::RunningVar,
    Role::GradX,
    Role::GradResidual,
    Role::GradBnWeight,
    Role::GradBnBias,
    Role::GradWeight,
    Role::GradBias,
];

/// What a run left.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// By name.
    pub outputs: Outputs,
    /// Batches tracked after the call.
    pub num_batches_tracked: u32,
}

impl Run {
    /// An output, empty where there is none.
    pub fn get(&self, name: &str) -> &[f32] {
        self.outputs.get(name).map_or(&[], Vec::as_slice)
    }
}

impl Index<&str> for Run {
    type Output = [f32];

    fn index(&self, name: &str) -> &[f32] {
        &self.outputs[name]
    }
}

/// Forward and backward plans of a problem.
///
/// # Errors
/// Those of the planner.
pub fn plans(
    problem: &Problem,
    options: BackwardOptions,
    tuning: &Tuning,
) -> Result<[Plan; 2], Error> {
    Ok([
        problem.forward_plan(Default::default(), tuning)?,
        problem.backward_plan(options, tuning)?,
    ])
}

/// What of a problem decides how its outputs are read.
#[derive(Debug, Clone)]
struct Shape {
    norm: NormDesc,
    tensor: TensorDesc,
    fusion: Fusion,
}

impl Shape {
    fn of(problem: &Problem) -> Self {
        Self {
            norm: problem.norm,
            tensor: problem.tensor(),
            fusion: problem.fusion,
        }
    }

    /// The outputs of plans. `words` reads as many words of a role's buffer as the plans bind.
    fn outputs<E>(
        &self,
        plans: &[Plan],
        mut words: impl FnMut(Role) -> Result<Vec<u32>, E>,
    ) -> Result<BTreeMap<Role, Vec<u32>>, E> {
        let needed = |role| plans.iter().any(|plan| plan.need(role).is_some());
        let mut found = BTreeMap::new();
        for role in OUTPUTS {
            // Running statistics are there, even where an empty batch needs none.
            let state = matches!(role, Role::RunningMean | Role::RunningVar);
            let from = match role {
                _ if needed(role) || state && self.norm.has_running_stats() => role,
                // No plan asks for tensors without elements.
                Role::Y | Role::GradX if self.tensor.elements() == 0 => {
                    if role == Role::Y || plans.len() > 1 {
                        found.insert(role, Vec::new());
                    }
                    continue;
                }
                // In place.
                Role::Y if !plans.is_empty() && self.writes_x(plans) => Role::X,
                // Without an activation the residual's gradient is dy itself.
                Role::GradResidual
                    if self.fusion.residual
                        && self.fusion.activation == Activation::None
                        && needed(Role::GradX) =>
                {
                    Role::GradY
                }
                _ => continue,
            };
            found.insert(role, words(from)?);
        }
        Ok(found)
    }

    fn writes_x(&self, plans: &[Plan]) -> bool {
        let needs = plans.iter().filter_map(|plan| plan.need(Role::X));
        let mut written = needs.filter(|need| need.access == bcnorm::kernels::Access::ReadWrite);
        written.next().is_some()
    }

    fn values(&self, role: Role, words: &[u32]) -> Vec<f32> {
        match role.is_tensor() {
            true => decode(words, &self.tensor),
            false => bytemuck::pod_collect_to_vec(words),
        }
    }

    fn named(&self, words: &BTreeMap<Role, Vec<u32>>) -> Outputs {
        let named = words.iter().filter_map(|(&role, words)| {
            Some((output_name(&self.norm, role)?, self.values(role, words)))
        });
        named.collect()
    }

    /// Makes sure that each value was written, and 0 behind an odd number of 16-bit elements.
    fn check_written(&self, words: &BTreeMap<Role, Vec<u32>>) -> Result<(), Failure> {
        for (&role, words) in words {
            let tensor = role.is_tensor();
            let dtype = if tensor {
                self.tensor.dtype()
            } else {
                bcnorm::DType::F32
            };
            let behind = tensor.then(|| padding(words, &self.tensor)).flatten();
            // The gradient of the residual may be dy, whose padding is the caller's.
            let is_dy = role == Role::GradResidual && self.fusion.activation == Activation::None;
            if let (Some(bits), false) = (behind, is_dy)
                && bits != 0
            {
                return Err(Failure::Data(format!(
                    "behind the last element of {role} there is {bits:#06x}, not 0"
                )));
            }
            let left = unwritten(words, dtype) - usize::from(is_dy && behind.is_some());
            if left > 0 {
                return Err(Failure::Data(format!(
                    "{left} of {} values of {role} were never written: a kernel did not run, or not \
                     over all of its tensor",
                    self.values(role, words).len()
                )));
            }
        }
        Ok(())
    }
}

/// Buffers for plans on a device: inputs uploaded, all else poisoned.
pub struct Bench<'a> {
    /// The device.
    pub gpu: &'a Gpu,
    /// A buffer for every role that the plans need and that the problem has data for.
    pub buffers: BTreeMap<Role, wgpu::Buffer>,
    /// The plans.
    pub plans: Vec<Plan>,
    shape: Shape,
}

const STORAGE: wgpu::BufferUsages = wgpu::BufferUsages::STORAGE
    .union(wgpu::BufferUsages::COPY_SRC)
    .union(wgpu::BufferUsages::COPY_DST);

impl<'a> Bench<'a> {
    /// As [`try_new`](Self::try_new).
    ///
    /// # Panics
    /// Where that is an error.
    pub fn new(gpu: &'a Gpu, problem: &Problem, plans: &[Plan]) -> Self {
        Self::try_new(gpu, problem, plans).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Uploads a problem, and makes poisoned buffers for what the plans need besides.
    ///
    /// # Errors
    /// Those of [`transfer::buffer_with_bytes`].
    pub fn try_new(gpu: &'a Gpu, problem: &Problem, plans: &[Plan]) -> Result<Self, Error> {
        let upload = |role: Role, words: &[u32]| {
            let bytes = bytemuck::cast_slice(words);
            transfer::buffer_with_bytes(&gpu.device, role.name(), bytes, STORAGE)
        };
        let mut buffers = BTreeMap::new();
        for (role, values) in problem.inputs() {
            buffers.insert(role, upload(role, &problem.words(role, values))?);
        }
        let count = Role::NumBatchesTracked;
        buffers.insert(count, upload(count, &[problem.num_batches_tracked])?);
        for need in plans.iter().flat_map(Plan::needs) {
            let large_enough = |b: &wgpu::Buffer| b.size() >= need.bytes;
            if !buffers.get(&need.role).is_some_and(large_enough) {
                let poison = vec![POISON; (need.bytes / 4) as usize];
                buffers.insert(need.role, upload(need.role, &poison)?);
            }
        }
        Ok(Self {
            gpu,
            buffers,
            plans: plans.to_vec(),
            shape: Shape::of(problem),
        })
    }

    /// Binds them all.
    pub fn bindings(&self) -> Bindings {
        let bind = |bindings: Bindings, (&role, buffer)| bindings.with(role, buffer);
        self.buffers.iter().fold(Bindings::new(), bind)
    }

    /// The plans, compiled.
    ///
    /// # Errors
    /// Those of [`Pipelines::prepare`].
    pub fn prepare(&self, pipelines: &Pipelines) -> Result<Vec<Prepared>, Error> {
        let plans = self.plans.iter().cloned();
        plans.map(|plan| pipelines.prepare(plan)).collect()
    }

    /// Encodes all plans in one submission.
    ///
    /// # Errors
    /// Those of [`Pipelines::prepare`] and [`Prepared::bind`].
    pub fn try_run(&self, pipelines: &Pipelines) -> Result<(), Error> {
        let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
        let bindings = self.bindings();
        for prepared in self.prepare(pipelines)? {
            prepared.encode(&mut encoder, &bindings)?;
        }
        self.gpu.queue.submit([encoder.finish()]);
        Ok(())
    }

    /// As [`try_run`](Self::try_run).
    ///
    /// # Panics
    /// Where that is an error.
    pub fn run(&self, pipelines: &Pipelines) {
        self.try_run(pipelines)
            .unwrap_or_else(|error| panic!("{error}"));
    }

    /// As many entries of a role's buffer as the plans bind.
    ///
    /// # Panics
    /// Where the device is lost.
    pub fn read<T: bytemuck::Pod>(&self, role: Role) -> Vec<T> {
        let needs = self.plans.iter().filter_map(|plan| plan.need(role));
        let bytes = needs.map(|need| need.bytes).max().unwrap_or(0);
        self.read_bytes(role, bytes)
            .unwrap_or_else(|error| panic!("{role}: {error}"))
    }

    fn read_bytes<T: bytemuck::Pod>(&self, role: Role, bytes: u64) -> Result<Vec<T>, Error> {
        let (device, queue) = (&self.gpu.device, &self.gpu.queue);
        let len = bytes as usize / size_of::<T>();
        block_on(transfer::read(device, queue, &self.buffers[&role], 0, len))
    }

    /// The values of a tensor or a parameter, in f32 and with channels first.
    pub fn values(&self, role: Role) -> Vec<f32> {
        self.shape.values(role, &self.read::<u32>(role))
    }

    fn output_words(&self) -> Result<BTreeMap<Role, Vec<u32>>, Error> {
        let (tensor, channels) = (&self.shape.tensor, self.shape.norm.num_channels as u64);
        self.shape.outputs(&self.plans, |role| {
            let needs = self.plans.iter().filter_map(|plan| plan.need(role));
            // Of what no plan needs the problem has data.
            let bytes = needs.map(|need| need.bytes).max();
            let bytes = bytes.unwrap_or_else(|| match role.is_tensor() {
                true => tensor.buffer_bytes(),
                false => 4 * channels,
            });
            self.read_bytes(role, bytes)
        })
    }

    /// What the plans left, by name.
    ///
    /// # Panics
    /// Where the device is lost.
    pub fn outputs(&self) -> Outputs {
        let words = self
            .output_words()
            .unwrap_or_else(|error| panic!("{error}"));
        self.shape.named(&words)
    }

    /// What the plans left.
    ///
    /// # Errors
    /// Where the device is lost, or where a value was never written.
    pub fn results(&self) -> Result<Run, Failure> {
        let words = self.output_words()?;
        self.shape.check_written(&words)?;
        let count = self.read_bytes::<u32>(Role::NumBatchesTracked, 4)?;
        Ok(Run {
            outputs: self.shape.named(&words),
            num_batches_tracked: count.first().copied().unwrap_or(0),
        })
    }
}

/// A problem's plans on a device: forward, and backward where it is computed.
///
/// # Errors
/// Those of the planner, and data that do not fit.
pub fn bench<'a>(
    gpu: &'a Gpu,
    pipelines: &Pipelines,
    problem: &Problem,
) -> Result<Bench<'a>, Failure> {
    let (forward, backward) = problem.plans(pipelines.tuning())?;
    let plans: Vec<Plan> = [forward].into_iter().chain(backward).collect();
    Ok(Bench::try_new(gpu, problem, &plans)?)
}

/// Runs a problem on a GPU. A value that no kernel wrote is an error.
///
/// # Errors
/// What the library refuses, data that do not fit, values that were never written.
pub fn gpu(gpu: &Gpu, pipelines: &Pipelines, problem: &Problem) -> Result<Run, Failure> {
    let bench = bench(gpu, pipelines, problem)?;
    bench.try_run(pipelines)?;
    bench.results()
}

/// Forward and backward on a GPU.
///
/// # Panics
/// Where [`gpu()`] is an error.
pub fn on_gpu(gpu: &Gpu, pipelines: &Pipelines, problem: &Problem) -> Outputs {
    let run = self::gpu(gpu, pipelines, problem);
    run.unwrap_or_else(|error| panic!("{error}")).outputs
}

/// Host buffers for plans, all that is not an input poisoned.
pub fn host_buffers(problem: &Problem, plans: &[Plan]) -> cpu::Buffers {
    let mut buffers = cpu::Buffers::new();
    for (role, values) in problem.inputs() {
        buffers.set_u32(role, problem.words(role, values));
    }
    buffers.set_u32(Role::NumBatchesTracked, vec![problem.num_batches_tracked]);
    for need in plans.iter().flat_map(Plan::needs) {
        if buffers.get_u32(need.role).is_none() {
            buffers.set_u32(need.role, vec![POISON; (need.bytes / 4) as usize]);
        }
    }
    buffers
}

/// Runs a problem on the CPU executor. A value that no kernel wrote is an error.
///
/// # Errors
/// As [`gpu()`].
pub fn cpu(executor: &cpu::Executor, problem: &Problem) -> Result<Run, Failure> {
    let (forward, backward) = problem.plans(&executor.tuning())?;
    let plans: Vec<Plan> = [forward].into_iter().chain(backward).collect();
    let mut buffers = host_buffers(problem, &plans);
    for plan in &plans {
        executor.run(plan, &mut buffers)?;
    }
    let shape = Shape::of(problem);
    let words = host_words(&shape, &plans, &buffers);
    shape.check_written(&words)?;
    let count = buffers.get_u32(Role::NumBatchesTracked);
    let count = count.and_then(|values| values.first().copied());
    Ok(Run {
        outputs: shape.named(&words),
        num_batches_tracked: count.unwrap_or(problem.num_batches_tracked),
    })
}

/// Forward and backward on the CPU executor.
///
/// # Panics
/// Where [`cpu()`] is an error.
pub fn on_cpu(executor: &cpu::Executor, problem: &Problem) -> Outputs {
    let run = self::cpu(executor, problem);
    run.unwrap_or_else(|error| panic!("{error}")).outputs
}

fn host_words(shape: &Shape, plans: &[Plan], buffers: &cpu::Buffers) -> BTreeMap<Role, Vec<u32>> {
    let words = |role: Role| {
        let words = buffers.get_u32(role).unwrap_or_default();
        Ok::<_, std::convert::Infallible>(words.to_vec())
    };
    let Ok(words) = shape.outputs(plans, words);
    words
}

/// What plans left in host buffers.
pub fn host_outputs(problem: &Problem, plans: &[Plan], buffers: &cpu::Buffers) -> Outputs {
    let shape = Shape::of(problem);
    shape.named(&host_words(&shape, plans, buffers))
}

/// The oracle's outputs with the scale that an error of each is divided by.
pub fn expected(problem: &Problem) -> Expected {
    by_name(&problem.norm, problem.oracle())
}

/// The same, calculated in this type of number.
pub fn expected_in<T: oracle::Number>(problem: &Problem) -> Expected {
    by_name(&problem.norm, problem.oracle_in::<T>())
}

/// The oracle's outputs by name.
pub fn by_name(norm: &NormDesc, output: oracle::Output) -> Expected {
    let mut expected = Expected::new();
    let mut put = |role, values: Option<Vec<f64>>, scale: Option<f64>| {
        if let (Some(name), Some(values)) = (output_name(norm, role), values) {
            let scale = scale.unwrap_or_else(|| oracle::scale(&values));
            expected.insert(name, (values, scale));
        }
    };
    put(Role::Y, Some(output.y), None);
    put(Role::RunningMean, output.running_mean, None);
    put(Role::RunningVar, output.running_var, None);
    if let Some(gradients) = output.gradients {
        put(Role::GradX, Some(gradients.x), None);
        put(Role::GradResidual, gradients.residual, None);
        for (role, values, scale) in [
            (
                Role::GradBnWeight,
                gradients.bn_weight,
                gradients.bn_weight_scale,
            ),
            (Role::GradBnBias, gradients.bn_bias, gradients.bn_bias_scale),
            (Role::GradWeight, gradients.weight, gradients.weight_scale),
            (Role::GradBias, gradients.bias, gradients.bias_scale),
        ] {
            put(role, values, Some(scale));
        }
    }
    expected
}

/// What the oracle expects of a run that fell on this side of each kink of ReLU: an element of
/// t = norm(x) + residual that is within f32's error of 0, `bar` of the largest |t|, may have its
/// gradient or none, and every gradient behind it goes with that.
///
/// Which side a run took shows in its gradient of the residual, or in y.
pub fn expected_beside(problem: &Problem, got: &Outputs, bar: f64) -> Expected {
    let output = problem.oracle();
    let Some(passes) = taken_sides(problem, &output, got, bar) else {
        return by_name(&problem.norm, output);
    };
    // ReLU's backward is that of no activation, from dy where t > 0.
    let masked = problem.grad_y.iter().zip(&passes);
    let masked = masked.map(|(&dy, &passes)| if passes { dy } else { 0.0 });
    let grad_y: Vec<f32> = masked.collect();
    let linear = oracle::normalize(&oracle::Input {
        activation: Activation::None,
        grad_y: Some(&grad_y),
        ..problem.oracle_input()
    });
    let gradients = linear.gradients;
    by_name(
        &problem.norm,
        oracle::Output {
            gradients,
            ..output
        },
    )
}

/// Where the gradient passes ReLU in this run; none where no element is so near 0, or where the run
/// took the oracle's side at each.
fn taken_sides(
    problem: &Problem,
    output: &oracle::Output,
    got: &Outputs,
    bar: f64,
) -> Option<Vec<bool>> {
    if !problem.has_mask() {
        return None;
    }
    let t = &output.pre_activation;
    let near = bar * oracle::scale(t);
    let (y, grad_residual) = (got.get("y"), got.get("grad_residual"));
    let mut passes: Vec<bool> = t.iter().map(|&t| t > 0.0 || t.is_nan()).collect();
    let mut moved = false;
    for (i, passes) in passes.iter_mut().enumerate() {
        let took = match (grad_residual, y) {
            _ if t[i].is_nan() || t[i].abs() > near => continue,
            (Some(values), _) if problem.grad_y[i] != 0.0 => values.get(i).map(|&g| g != 0.0),
            (_, Some(values)) => values.get(i).map(|&y| y > 0.0),
            _ => None,
        };
        if let Some(took) = took
            && took != *passes
        {
            *passes = took;
            moved = true;
        }
    }
    moved.then_some(passes)
}

/// Asserts that every output is within `bound` of the oracle, in the golden metric.
pub fn assert_outputs(what: &str, got: &Outputs, expected: &Expected, bound: f64) {
    for (name, values) in got {
        let (expected, scale) = &expected[name];
        compare::assert_close(&format!("{what}: {name}"), values, expected, *scale, bound);
    }
}

/// Tables a plan allocates.
pub fn table_roles(plan: &Plan) -> Vec<Role> {
    let tables = plan
        .needs()
        .iter()
        .filter(|need| need.role.kind() != RoleKind::Caller);
    tables.map(|need| need.role).collect()
}

/// Poisons every table.
pub fn poison_tables(gpu: &Gpu, tables: &Tables) {
    for (_, buffer) in tables.iter() {
        let poison = vec![POISON; (buffer.size() / 4) as usize];
        gpu.queue
            .write_buffer(buffer, 0, bytemuck::cast_slice(&poison));
    }
}

/// Whether two runs wrote the same bits.
pub fn same_bits(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bcnorm::{DType, Layout, Mode};

    const RELU: Fusion = Fusion {
        activation: Activation::Relu,
        residual: true,
    };

    #[test]
    fn values_that_no_kernel_wrote_are_an_error() {
        let problem = Problem::random(&[2, 4, 3], 2, 1).with_dtype(DType::F16);
        let shape = Shape::of(&problem);
        let words = |words: Vec<u32>| BTreeMap::from([(Role::GradX, words)]);
        shape.check_written(&words(vec![0; 12])).unwrap();
        let error = shape
            .check_written(&words(vec![POISON; 12]))
            .unwrap_err()
            .to_string();
        assert!(error.contains("24 of 24 values of grad_x"), "{error}");
        let mut one = vec![0; 12];
        one[7] = u32::from(crate::storage::POISON_HALF);
        let error = shape.check_written(&words(one)).unwrap_err().to_string();
        assert!(error.contains("1 of 24 values of grad_x"), "{error}");

        let odd = Problem::random(&[3, 4, 3], 2, 1);
        let odd = Problem {
            dims: vec![1, 1, 3],
            ..odd
        }
        .with_dtype(DType::BF16);
        let shape = Shape::of(&odd);
        shape.check_written(&words(vec![0; 2])).unwrap();
        let error = shape
            .check_written(&words(vec![0, 1 << 16]))
            .unwrap_err()
            .to_string();
        assert!(error.contains("behind the last element"), "{error}");
    }

    #[test]
    fn the_cpu_executor_agrees_with_the_oracle() {
        let executor = cpu::Executor::new();
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            for layout in [Layout::ChannelsFirst, Layout::ChannelsLast] {
                for fusion in [Fusion::default(), RELU] {
                    let problem = Problem::random(&[3, 6, 5, 7], 2, 9)
                        .with_dtype(dtype)
                        .with_layout(layout)
                        .with_fusion(fusion);
                    let run = cpu(&executor, &problem).unwrap();
                    assert_eq!(run.num_batches_tracked, 4);
                    let expected = expected_beside(&problem, &run.outputs, 1e-6);
                    let what = format!("{dtype:?} {layout:?} {fusion:?}");
                    compare::assert_problem(&what, &problem, &run.outputs, &expected, |_| 5e-6);
                }
            }
        }
    }

    /// An element on ReLU's kink may fall on either side, with all that depends on it; no other may.
    #[test]
    fn either_side_of_a_kink_is_right() {
        let mut problem = Problem::random(&[2, 4, 5], 2, 3).with_fusion(RELU);
        // t = norm(x) + residual is 0, but for the rounding of the residual.
        let t = problem.clone().with_fusion(Fusion::default()).oracle().y;
        let kinks = [3, 17];
        for i in kinks {
            problem.residual[i] = -t[i] as f32;
            problem.grad_y[i] = 2.0;
        }
        let plain = expected(&problem);
        let sides = |at: &dyn Fn(usize) -> bool| {
            let masked = (0..problem.x.len()).map(|i| {
                let passes = match kinks.contains(&i) {
                    true => at(i),
                    false => problem.residual[i] as f64 + t[i] > 0.0,
                };
                if passes { problem.grad_y[i] } else { 0.0 }
            });
            let masked = Problem {
                grad_y: masked.collect(),
                fusion: Fusion {
                    residual: true,
                    activation: Activation::None,
                },
                ..problem.clone()
            };
            let mut all = expected(&masked);
            all.insert("y", plain["y"].clone());
            let outputs = all
                .iter()
                .map(|(&name, (values, _))| (name, values.iter().map(|&v| v as f32).collect()));
            outputs.collect::<Outputs>()
        };
        let check = |got: &Outputs| {
            let expected = expected_beside(&problem, got, 1e-6);
            compare::assert_problem("relu", &problem, got, &expected, |_| 1e-6);
        };
        for (a, b) in [(true, true), (true, false), (false, true), (false, false)] {
            check(&sides(&|i| if i == 3 { a } else { b }));
        }
        // Half of the way is no side, and the gradient of x must follow that of the residual.
        let wrong = |spoil: &dyn Fn(&mut Outputs)| {
            let mut got = sides(&|_| true);
            spoil(&mut got);
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&got)));
            assert!(result.is_err());
        };
        wrong(&|got| got.get_mut("grad_residual").unwrap()[3] = 1.0);
        wrong(&|got| {
            *got = {
                let mut other = sides(&|_| false);
                other.insert("grad_x", got["grad_x"].clone());
                other
            }
        });
        let other = (0..t.len()).find(|&i| plain["y"].0[i] > 0.1).unwrap();
        wrong(&|got| got.get_mut("grad_residual").unwrap()[other] = 0.0);
    }

    /// On data without a mean that is large beside its deviation, f64 is enough: for every norm, small
    /// tensors and those that are spread over cores.
    #[test]
    fn in_f64_the_oracle_says_the_same_of_tame_data() {
        let fused = Fusion {
            activation: Activation::Silu,
            residual: true,
        };
        for norm in [
            NormDesc::bc_norm(6, 3),
            NormDesc::bc_norm(6, 6).with_momentum(None),
            NormDesc::bc_norm(6, 2).with_per_channel_affine(true),
            NormDesc::batch_norm(6),
            NormDesc::batch_norm(6).with_track_running_stats(false),
            NormDesc::group_norm(2, 6),
            NormDesc::instance_norm(6),
            NormDesc::instance_norm(6).with_track_running_stats(true),
            NormDesc::layer_norm(6),
            NormDesc::est_bn(6).with_moving_speed(0.3),
            NormDesc::weight_standardization(),
        ] {
            let c = norm.num_channels;
            for dims in [
                &[3, c, 5, 7][..],
                &[2, c, 33],
                &[5, c, 1, 2],
                &[7, c, 17],
                &[9, c, 2003],
            ] {
                for (mode, fusion) in [
                    (Mode::Train, Fusion::default()),
                    (Mode::Eval, Fusion::default()),
                    (Mode::Train, fused),
                ] {
                    let problem = Problem::random_of(norm, dims, 5).with_mode(mode);
                    let problem = problem.with_fusion(fusion);
                    let got = expected_in::<f64>(&problem);
                    let want = expected(&problem);
                    assert_eq!(got.len(), want.len());
                    for (name, (want, scale)) in &want {
                        let (got, got_scale) = &got[name];
                        let what = format!("{} {mode:?} {dims:?} {name}", norm.kind.name());
                        compare::assert_close(&what, got, want, *scale, 1e-12);
                        assert!((got_scale / scale - 1.0).abs() < 1e-12, "{what}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_wrong_run_is_no_answer() {
        let problem = Problem::random(&[2, 4, 5], 2, 3);
        let run = cpu(&cpu::Executor::new(), &problem).unwrap();
        let expected = expected(&problem);
        assert_outputs("right", &run.outputs, &expected, 1e-6);
        let mut wrong = run.clone();
        wrong.outputs.get_mut("grad_bias").unwrap()[1] += 1.0;
        let failed =
            std::panic::catch_unwind(|| assert_outputs("wrong", &wrong.outputs, &expected, 1e-6));
        failed.unwrap_err();
        assert!(!same_bits(&run["y"], &wrong["grad_x"]) && same_bits(&run["y"], &wrong["y"]));
        assert!(!same_bits(&[0.0], &[-0.0]) && !same_bits(&[0.0], &[]));
        assert!(run.get("no").is_empty());
    }
}
