//! Runs a problem on a GPU or on the CPU executor, everything poisoned beforehand, and compares
//! what comes out with the oracle.

use super::compare;
use super::problem::Problem;
use bcnorm::gpu::headless::Gpu;
use bcnorm::gpu::{Bindings, Pipelines, Tables, transfer};
use bcnorm::role::RoleKind;
use bcnorm::{BackwardOptions, Error, Plan, Role, Tuning, cpu, oracle};
use pollster::block_on;
use std::collections::BTreeMap;

/// What outputs, tables and scratch hold before a dispatch: a NaN that no arithmetic makes.
pub const POISON: u32 = 0x7fc0_dead;

/// The outputs, by the names of the golden files.
pub type Outputs = BTreeMap<&'static str, Vec<f32>>;

/// Roles that a caller reads back, and their golden names.
const FORWARD_OUTPUTS: &[(Role, &str)] = &[
    (Role::Y, "y"),
    (Role::RunningMean, "bn.running_mean_after"),
    (Role::RunningVar, "bn.running_var_after"),
];
const BACKWARD_OUTPUTS: &[(Role, &str)] = &[
    (Role::GradX, "grad_x"),
    (Role::GradBnWeight, "grad_bn.weight"),
    (Role::GradBnBias, "grad_bn.bias"),
    (Role::GradWeight, "grad_weight"),
    (Role::GradBias, "grad_bias"),
];

/// Forward and backward plans of a problem.
pub fn plans(
    problem: &Problem,
    options: BackwardOptions,
    tuning: &Tuning,
) -> Result<[Plan; 2], Error> {
    let tensor = problem.tensor();
    Ok([
        Plan::forward(&problem.norm, &tensor, problem.mode, tuning)?,
        Plan::backward(&problem.norm, &tensor, problem.mode, options, tuning)?,
    ])
}

fn inputs(problem: &Problem) -> Vec<(Role, &[f32])> {
    vec![
        (Role::X, &problem.x),
        (Role::GradY, &problem.grad_y),
        (Role::BnWeight, &problem.bn_weight),
        (Role::BnBias, &problem.bn_bias),
        (Role::Weight, &problem.weight),
        (Role::Bias, &problem.bias),
        (Role::RunningMean, &problem.running_mean),
        (Role::RunningVar, &problem.running_var),
    ]
}

/// Buffers for plans on a device: inputs uploaded, all else poisoned.
pub struct Bench<'a> {
    pub gpu: &'a Gpu,
    pub buffers: BTreeMap<Role, wgpu::Buffer>,
    pub plans: Vec<Plan>,
}

impl<'a> Bench<'a> {
    pub fn new(gpu: &'a Gpu, problem: &Problem, plans: &[Plan]) -> Self {
        let mut buffers = BTreeMap::new();
        for (role, values) in inputs(problem) {
            buffers.insert(role, transfer::upload(&gpu.device, role.name(), values));
        }
        let count = [problem.num_batches_tracked];
        let count = transfer::buffer_with_bytes(
            &gpu.device,
            "count",
            bytemuck::cast_slice(&count),
            wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC,
        );
        buffers.insert(Role::NumBatchesTracked, count);
        for need in plans.iter().flat_map(Plan::needs) {
            let words = (need.bytes / 4) as usize;
            let large_enough = |b: &wgpu::Buffer| b.size() >= need.bytes;
            if !buffers.get(&need.role).is_some_and(large_enough) {
                let poison: Vec<f32> = vec![f32::from_bits(POISON); words];
                buffers.insert(
                    need.role,
                    transfer::upload(&gpu.device, need.role.name(), &poison),
                );
            }
        }
        Self {
            gpu,
            buffers,
            plans: plans.to_vec(),
        }
    }

    pub fn bindings(&self) -> Bindings {
        let bind = |bindings: Bindings, (&role, buffer)| bindings.with(role, buffer);
        self.buffers.iter().fold(Bindings::new(), bind)
    }

    /// Encodes all plans in one submission.
    pub fn run(&self, pipelines: &Pipelines) {
        let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
        let bindings = self.bindings();
        for plan in &self.plans {
            let prepared = pipelines.prepare(plan.clone()).unwrap();
            prepared.encode(&mut encoder, &bindings).unwrap();
        }
        self.gpu.queue.submit([encoder.finish()]);
    }

    pub fn read<T: bytemuck::Pod>(&self, role: Role) -> Vec<T> {
        let bytes = self
            .plans
            .iter()
            .filter_map(|plan| plan.need(role))
            .map(|need| need.bytes)
            .max();
        let len = bytes.unwrap_or(0) as usize / size_of::<T>();
        let buffer = &self.buffers[&role];
        block_on(transfer::read(
            &self.gpu.device,
            &self.gpu.queue,
            buffer,
            0,
            len,
        ))
        .unwrap()
    }

    pub fn outputs(&self) -> Outputs {
        let wanted = FORWARD_OUTPUTS.iter().chain(BACKWARD_OUTPUTS);
        let there =
            wanted.filter(|(role, _)| self.plans.iter().any(|plan| plan.need(*role).is_some()));
        there.map(|&(role, name)| (name, self.read(role))).collect()
    }
}

/// Forward and backward on a GPU.
pub fn on_gpu(gpu: &Gpu, pipelines: &Pipelines, problem: &Problem) -> Outputs {
    let plans = plans(problem, BackwardOptions::default(), pipelines.tuning()).unwrap();
    let bench = Bench::new(gpu, problem, &plans);
    bench.run(pipelines);
    bench.outputs()
}

/// Host buffers for plans, all that is not an input poisoned.
pub fn host_buffers(problem: &Problem, plans: &[Plan]) -> cpu::Buffers {
    let mut buffers = cpu::Buffers::new();
    for (role, values) in inputs(problem) {
        buffers.set(role, values.to_vec());
    }
    buffers.set_u32(Role::NumBatchesTracked, vec![problem.num_batches_tracked]);
    for need in plans.iter().flat_map(Plan::needs) {
        if buffers.get(need.role).is_none() {
            buffers.set_u32(need.role, vec![POISON; (need.bytes / 4) as usize]);
        }
    }
    buffers
}

/// Forward and backward on the CPU executor.
pub fn on_cpu(executor: &cpu::Executor, problem: &Problem) -> Outputs {
    let plans = plans(problem, BackwardOptions::default(), &executor.tuning()).unwrap();
    let mut buffers = host_buffers(problem, &plans);
    for plan in &plans {
        executor.run(plan, &mut buffers).unwrap();
    }
    host_outputs(&buffers)
}

/// What a run left in host buffers.
pub fn host_outputs(buffers: &cpu::Buffers) -> Outputs {
    let wanted = FORWARD_OUTPUTS.iter().chain(BACKWARD_OUTPUTS);
    wanted
        .filter_map(|&(role, name)| Some((name, buffers.get(role)?.to_vec())))
        .collect()
}

/// The oracle's outputs with the scale that an error of each is divided by.
pub fn expected(problem: &Problem) -> BTreeMap<&'static str, (Vec<f64>, f64)> {
    let output = problem.oracle();
    let gradients = output.gradients.expect("the problem has a dy");
    let plain = |values: Vec<f64>| {
        let scale = oracle::scale(&values);
        (values, scale)
    };
    BTreeMap::from([
        ("y", plain(output.y)),
        ("bn.running_mean_after", plain(output.running_mean)),
        ("bn.running_var_after", plain(output.running_var)),
        ("grad_x", plain(gradients.x)),
        (
            "grad_bn.weight",
            (gradients.bn_weight, gradients.bn_weight_scale),
        ),
        ("grad_bn.bias", (gradients.bn_bias, gradients.bn_bias_scale)),
        ("grad_weight", (gradients.weight, gradients.weight_scale)),
        ("grad_bias", (gradients.bias, gradients.bias_scale)),
    ])
}

/// Asserts that every output is within `bound` of the oracle, in the golden metric.
pub fn assert_outputs(
    what: &str,
    got: &Outputs,
    expected: &BTreeMap<&'static str, (Vec<f64>, f64)>,
    bound: f64,
) {
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
