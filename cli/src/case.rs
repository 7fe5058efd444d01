//! One call of Batch-Channel Normalization with all its data, and the three ways to make it: on a
//! GPU, on the CPU executor, by the oracle.

use crate::device::guarded;
use anyhow::{Result, ensure};
use bcnorm::gpu::headless::Gpu;
use bcnorm::gpu::transfer::{buffer_with_bytes, read, upload};
use bcnorm::gpu::{Bindings, Pipelines, Prepared, Tables};
use bcnorm::{
    BackwardOptions, BcNormDesc, ChannelStats, Mode, Plan, Role, TensorDesc, Tuning, cpu, oracle,
};
use std::collections::BTreeMap;

/// What goes into a call. Tensors are in row-major order.
#[derive(Debug, Clone)]
pub struct Case {
    /// (N, C, *spatial).
    pub dims: Vec<usize>,
    /// G.
    pub num_groups: usize,
    /// eps of the group part.
    pub eps: f32,
    /// Where the channel statistics come from.
    pub stats: ChannelStats,
    /// Training or inference.
    pub mode: Mode,
    /// The input, of shape `dims`.
    pub x: Vec<f32>,
    /// The gradient of the loss with respect to y; without it there is no backward pass.
    pub grad_y: Option<Vec<f32>>,
    /// `bn.weight`, (C).
    pub bn_weight: Vec<f32>,
    /// `bn.bias`, (C).
    pub bn_bias: Vec<f32>,
    /// `weight`, (G).
    pub weight: Vec<f32>,
    /// `bias`, (G).
    pub bias: Vec<f32>,
    /// `bn.running_mean` before the call, (C).
    pub running_mean: Vec<f32>,
    /// `bn.running_var` before the call, (C).
    pub running_var: Vec<f32>,
    /// `bn.num_batches_tracked` before the call.
    pub num_batches_tracked: u32,
}

/// What comes out of a call.
#[derive(Debug, Clone, PartialEq)]
pub struct Outputs {
    /// The result.
    pub y: Vec<f32>,
    /// `bn.running_mean` after the call.
    pub running_mean: Vec<f32>,
    /// `bn.running_var` after the call.
    pub running_var: Vec<f32>,
    /// `bn.num_batches_tracked` after the call.
    pub num_batches_tracked: u32,
    /// The gradients, where the case has a `grad_y`.
    pub gradients: Option<Gradients>,
}

/// Gradients of the loss.
#[derive(Debug, Clone, PartialEq)]
pub struct Gradients {
    /// With respect to x.
    pub x: Vec<f32>,
    /// With respect to `bn.weight`.
    pub bn_weight: Vec<f32>,
    /// With respect to `bn.bias`.
    pub bn_bias: Vec<f32>,
    /// With respect to `weight`.
    pub weight: Vec<f32>,
    /// With respect to `bias`.
    pub bias: Vec<f32>,
}

/// What outputs and tables hold before a run: a quiet NaN that no arithmetic makes, so that what a
/// kernel did not write is known.
const POISON: u32 = 0x7fd5_ca1e;

impl Case {
    /// Checks what no plan can see: the lengths of the data.
    pub fn check(&self) -> Result<(TensorDesc, BcNormDesc)> {
        let tensor = TensorDesc::new(&self.dims)?;
        let norm = BcNormDesc::new(self.num_channels(), self.num_groups)
            .with_eps(self.eps)
            .with_stats(self.stats);
        norm.validate_for(&tensor, self.mode)?;
        let elements = tensor.elements() as usize;
        let (channels, groups) = (self.num_channels(), self.num_groups);
        let grad_y = self.grad_y.as_ref().map_or(elements, Vec::len);
        for (name, found, expected) in [
            ("x", self.x.len(), elements),
            ("grad_y", grad_y, elements),
            ("bn.weight", self.bn_weight.len(), channels),
            ("bn.bias", self.bn_bias.len(), channels),
            ("weight", self.weight.len(), groups),
            ("bias", self.bias.len(), groups),
            ("bn.running_mean", self.running_mean.len(), channels),
            ("bn.running_var", self.running_var.len(), channels),
        ] {
            ensure!(
                found == expected,
                "{name} has {found} values, expected {expected} for shape {:?} and {groups} groups",
                self.dims
            );
        }
        Ok((tensor, norm))
    }

    /// C.
    pub fn num_channels(&self) -> usize {
        self.dims.get(1).copied().unwrap_or(0)
    }

    /// Plans forward, and backward where there is a `grad_y`.
    pub fn plans(&self, tuning: &Tuning) -> Result<(Plan, Option<Plan>)> {
        let (tensor, norm) = self.check()?;
        let forward = Plan::forward(&norm, &tensor, self.mode, tuning)?;
        let options = BackwardOptions::default();
        let backward = match &self.grad_y {
            Some(_) => Some(Plan::backward(&norm, &tensor, self.mode, options, tuning)?),
            None => None,
        };
        Ok((forward, backward))
    }

    /// The float inputs by role.
    fn inputs(&self) -> Vec<(Role, &[f32])> {
        let mut inputs: Vec<(Role, &[f32])> = vec![
            (Role::X, &self.x),
            (Role::BnWeight, &self.bn_weight),
            (Role::BnBias, &self.bn_bias),
            (Role::Weight, &self.weight),
            (Role::Bias, &self.bias),
            (Role::RunningMean, &self.running_mean),
            (Role::RunningVar, &self.running_var),
        ];
        if let Some(grad_y) = &self.grad_y {
            inputs.push((Role::GradY, grad_y));
        }
        inputs
    }

    /// The pure outputs by role, with their lengths.
    fn outputs(&self) -> Vec<(Role, usize)> {
        let mut outputs = vec![(Role::Y, self.x.len())];
        if self.grad_y.is_some() {
            outputs.extend([
                (Role::GradX, self.x.len()),
                (Role::GradBnWeight, self.num_channels()),
                (Role::GradBnBias, self.num_channels()),
                (Role::GradWeight, self.num_groups),
                (Role::GradBias, self.num_groups),
            ]);
        }
        outputs
    }
}

fn poison(len: usize) -> Vec<f32> {
    vec![f32::from_bits(POISON); len]
}

/// Buffers of a case on a device.
#[derive(Debug)]
pub struct Resident {
    buffers: BTreeMap<Role, wgpu::Buffer>,
}

impl Resident {
    /// Uploads the inputs and makes poisoned outputs.
    pub fn new(case: &Case, device: &wgpu::Device) -> Self {
        let mut buffers = BTreeMap::new();
        for (role, values) in case.inputs() {
            buffers.insert(role, upload(device, role.name(), values));
        }
        for (role, len) in case.outputs() {
            buffers.insert(role, upload(device, role.name(), &poison(len)));
        }
        let role = Role::NumBatchesTracked;
        let usage = wgpu::BufferUsages::STORAGE
            | wgpu::BufferUsages::COPY_SRC
            | wgpu::BufferUsages::COPY_DST;
        let bytes = case.num_batches_tracked.to_le_bytes();
        buffers.insert(role, buffer_with_bytes(device, role.name(), &bytes, usage));
        Self { buffers }
    }

    /// Binds them all.
    pub fn bindings(&self, tables: &Tables) -> Bindings {
        self.buffers.iter().fold(
            Bindings::new().with_tables(tables),
            |bindings, (&role, buffer)| bindings.with(role, buffer),
        )
    }

    /// Reads everything back.
    pub async fn read(&self, case: &Case, gpu: &Gpu) -> Result<Outputs> {
        let mut values = BTreeMap::new();
        let state = [
            (Role::RunningMean, case.num_channels()),
            (Role::RunningVar, case.num_channels()),
        ];
        for (role, len) in case.outputs().into_iter().chain(state) {
            let buffer = &self.buffers[&role];
            let read = read::<f32>(&gpu.device, &gpu.queue, buffer, 0, len).await?;
            values.insert(role, read);
        }
        let counter = &self.buffers[&Role::NumBatchesTracked];
        let count = read::<u32>(&gpu.device, &gpu.queue, counter, 0, 1).await?;
        gather(case, count[0], |role| values.remove(&role))
    }
}

/// Fills tables with poison.
fn poison_tables(gpu: &Gpu, tables: &Tables) {
    for (_, buffer) in tables.iter() {
        let values = poison((buffer.size() / 4) as usize);
        gpu.queue
            .write_buffer(buffer, 0, bytemuck::cast_slice(&values));
    }
}

/// Puts outputs together and makes sure that each value was written.
fn gather(
    case: &Case,
    num_batches_tracked: u32,
    mut take: impl FnMut(Role) -> Option<Vec<f32>>,
) -> Result<Outputs> {
    let mut take = |role: Role| {
        let values = take(role).unwrap_or_default();
        let unwritten = values.iter().filter(|v| v.to_bits() == POISON).count();
        ensure!(
            unwritten == 0,
            "{unwritten} of {} values of {role} were never written: a kernel did not run, or not \
             over all of its tensor",
            values.len()
        );
        Ok(values)
    };
    Ok(Outputs {
        y: take(Role::Y)?,
        running_mean: take(Role::RunningMean)?,
        running_var: take(Role::RunningVar)?,
        num_batches_tracked,
        gradients: match case.grad_y {
            None => None,
            Some(_) => Some(Gradients {
                x: take(Role::GradX)?,
                bn_weight: take(Role::GradBnWeight)?,
                bn_bias: take(Role::GradBnBias)?,
                weight: take(Role::GradWeight)?,
                bias: take(Role::GradBias)?,
            }),
        },
    })
}

/// Runs a case on a GPU. What the driver or wgpu object to, a lost device included, comes back as
/// an error; so does a value that no kernel wrote.
pub fn run_on_gpu(case: &Case, gpu: &Gpu, pipelines: &Pipelines) -> Result<Outputs> {
    guarded(gpu, || {
        let plans = Plans::new(pipelines, case)?;
        poison_tables(gpu, &plans.tables);
        let bindings = plans.buffers.bindings(&plans.tables);
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        plans.forward.encode(&mut encoder, &bindings)?;
        if let Some(backward) = &plans.backward {
            backward.encode(&mut encoder, &bindings)?;
        }
        gpu.queue.submit([encoder.finish()]);
        pollster::block_on(plans.buffers.read(case, gpu))
    })
}

/// A case made ready on a device.
pub struct Plans {
    /// The forward plan.
    pub forward: Prepared,
    /// The backward plan, where the case has a gradient of y.
    pub backward: Option<Prepared>,
    /// The tables of both.
    pub tables: Tables,
    /// The case's tensors, parameters and state.
    pub buffers: Resident,
}

impl Plans {
    /// Compiles and uploads.
    pub fn new(pipelines: &Pipelines, case: &Case) -> Result<Self> {
        let (forward, backward) = case.plans(pipelines.tuning())?;
        let forward = pipelines.prepare(forward)?;
        let backward = match backward {
            Some(plan) => Some(pipelines.prepare(plan)?),
            None => None,
        };
        let mut tables = forward.create_tables(None);
        if let Some(backward) = &backward {
            tables = backward.create_tables(Some(&tables));
        }
        Ok(Self {
            forward,
            backward,
            tables,
            buffers: Resident::new(case, pipelines.device()),
        })
    }
}

/// Runs a case on the CPU executor.
pub fn run_on_cpu(case: &Case, executor: &cpu::Executor) -> Result<Outputs> {
    let (forward, backward) = case.plans(&executor.tuning())?;
    let mut buffers = cpu_buffers(case);
    executor.run(&forward, &mut buffers)?;
    if let Some(backward) = &backward {
        executor.run(backward, &mut buffers)?;
    }
    let count = buffers.get_u32(Role::NumBatchesTracked);
    let count = count.and_then(|values| values.first().copied());
    gather(case, count.unwrap_or(case.num_batches_tracked), |role| {
        buffers.take(role)
    })
}

/// The buffers of a case for the CPU executor, outputs poisoned.
pub fn cpu_buffers(case: &Case) -> cpu::Buffers {
    let mut buffers = cpu::Buffers::new();
    for (role, values) in case.inputs() {
        buffers.set(role, values.to_vec());
    }
    for (role, len) in case.outputs() {
        buffers.set(role, poison(len));
    }
    buffers.set_u32(Role::NumBatchesTracked, vec![case.num_batches_tracked]);
    buffers
}

/// What the case should yield, in f64. Call [`Case::check`] first: the oracle panics on lengths
/// that do not fit.
pub fn oracle(case: &Case) -> oracle::Output {
    let row_len = TensorDesc::new(&case.dims).map_or(0, |tensor| tensor.row_len() as usize);
    oracle::bcnorm(&oracle::Input {
        num_samples: case.dims.first().copied().unwrap_or(0),
        num_channels: case.num_channels(),
        row_len,
        num_groups: case.num_groups,
        eps: f64::from(case.eps),
        stats: match case.stats {
            ChannelStats::Estimate { moving_speed } => oracle::Stats::Estimate {
                moving_speed: f64::from(moving_speed),
            },
            ChannelStats::Batch { momentum } => oracle::Stats::Batch {
                momentum: momentum.map(f64::from),
            },
            // The library may learn others; the command does not offer them.
            _ => oracle::Stats::Batch { momentum: None },
        },
        training: case.mode == Mode::Train,
        x: &case.x,
        grad_y: case.grad_y.as_deref(),
        bn_weight: &case.bn_weight,
        bn_bias: &case.bn_bias,
        weight: &case.weight,
        bias: &case.bias,
        running_mean: &case.running_mean,
        running_var: &case.running_var,
        num_batches_tracked: u64::from(case.num_batches_tracked),
    })
}

/// Outputs by golden name (`y`, `grad_x`, `grad_bn.weight`, ..., `bn.running_var_after`).
pub fn named(outputs: &Outputs) -> Vec<(&'static str, &[f32])> {
    let mut named: Vec<(&'static str, &[f32])> = vec![
        ("y", &outputs.y),
        ("bn.running_mean_after", &outputs.running_mean),
        ("bn.running_var_after", &outputs.running_var),
    ];
    if let Some(gradients) = &outputs.gradients {
        let named_gradients: [(&'static str, &[f32]); 5] = [
            ("grad_x", &gradients.x),
            ("grad_bn.weight", &gradients.bn_weight),
            ("grad_bn.bias", &gradients.bn_bias),
            ("grad_weight", &gradients.weight),
            ("grad_bias", &gradients.bias),
        ];
        named.extend(named_gradients);
    }
    named
}

/// The error of every output against the oracle, by golden name: largest |got - expected| / scale,
/// as `tests/golden/README.md` of the library defines it. Infinite where a value is NaN or infinite
/// and should not be.
pub fn errors(outputs: &Outputs, expected: &oracle::Output) -> BTreeMap<String, f64> {
    use oracle::{error, scale};
    let plain = |got: &[f32], expected: &[f64]| error(got, expected, scale(expected));
    let mut errors = vec![
        ("y", plain(&outputs.y, &expected.y)),
        (
            "bn.running_mean_after",
            plain(&outputs.running_mean, &expected.running_mean),
        ),
        (
            "bn.running_var_after",
            plain(&outputs.running_var, &expected.running_var),
        ),
    ];
    match (&outputs.gradients, &expected.gradients) {
        (Some(got), Some(want)) => errors.extend([
            ("grad_x", plain(&got.x, &want.x)),
            (
                "grad_bn.weight",
                error(&got.bn_weight, &want.bn_weight, want.bn_weight_scale),
            ),
            (
                "grad_bn.bias",
                error(&got.bn_bias, &want.bn_bias, want.bn_bias_scale),
            ),
            (
                "grad_weight",
                error(&got.weight, &want.weight, want.weight_scale),
            ),
            ("grad_bias", error(&got.bias, &want.bias, want.bias_scale)),
        ]),
        (None, None) => {}
        // One has gradients and the other has not: nothing to compare is no agreement.
        _ => errors.push(("grad_x", f64::INFINITY)),
    }
    errors
        .into_iter()
        .map(|(name, error)| (name.to_owned(), error))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bcnorm::gpu::headless::DeviceLimits;

    fn case() -> Case {
        Case {
            dims: vec![2, 4, 3],
            num_groups: 2,
            eps: 1e-5,
            stats: ChannelStats::default(),
            mode: Mode::Train,
            x: (0..24u8).map(|i| f32::from(i * i % 17)).collect(),
            grad_y: Some((0..24u8).map(|i| f32::from(i * i % 11)).collect()),
            bn_weight: vec![1.0, 2.0, 3.0, 4.0],
            bn_bias: vec![0.0; 4],
            weight: vec![1.0; 2],
            bias: vec![0.5; 2],
            running_mean: vec![0.0; 4],
            running_var: vec![1.0; 4],
            num_batches_tracked: 3,
        }
    }

    #[test]
    fn the_cpu_executor_agrees_with_the_oracle() {
        let case = case();
        let outputs = run_on_cpu(&case, &cpu::Executor::new()).unwrap();
        assert_eq!(outputs.num_batches_tracked, 4);
        let expected = oracle(&case);
        let errors = errors(&outputs, &expected);
        assert_eq!(errors.len(), 8);
        assert!(errors.values().all(|error| *error < 1e-6), "{errors:?}");
    }

    #[test]
    fn every_wrong_output_shows() {
        let case = case();
        let expected = oracle(&case);
        let good = run_on_cpu(&case, &cpu::Executor::new()).unwrap();
        let names: Vec<_> = named(&good).into_iter().map(|(name, _)| name).collect();
        for name in names {
            for wrong in [f32::NAN, f32::INFINITY, 1e3] {
                let mut outputs = good.clone();
                let gradients = outputs.gradients.as_mut().unwrap();
                let values = match name {
                    "y" => &mut outputs.y,
                    "bn.running_mean_after" => &mut outputs.running_mean,
                    "bn.running_var_after" => &mut outputs.running_var,
                    "grad_x" => &mut gradients.x,
                    "grad_bn.weight" => &mut gradients.bn_weight,
                    "grad_bn.bias" => &mut gradients.bn_bias,
                    "grad_weight" => &mut gradients.weight,
                    "grad_bias" => &mut gradients.bias,
                    other => panic!("{other} is new"),
                };
                values[1] = wrong;
                let errors = errors(&outputs, &expected);
                assert!(errors[name] > 1e-3, "{name} = {wrong}: {errors:?}");
                assert_eq!(errors.values().filter(|e| **e > 1e-3).count(), 1);
            }
        }
        let mut outputs = good;
        outputs.gradients = None;
        assert_eq!(errors(&outputs, &expected)["grad_x"], f64::INFINITY);
    }

    #[test]
    fn values_that_no_kernel_wrote_are_an_error() {
        let case = case();
        let error = gather(&case, 0, |role| {
            let len = if role == Role::GradX { 24 } else { 0 };
            Some(poison(len))
        });
        let error = error.unwrap_err().to_string();
        assert!(error.contains("24 of 24 values of grad_x"), "{error}");
    }

    #[test]
    fn data_of_the_wrong_length_is_an_error() {
        let mut case = case();
        case.running_var.pop();
        let error = case.check().unwrap_err().to_string();
        assert!(error.contains("bn.running_var has 3 values"), "{error}");
    }

    #[test]
    fn a_lost_device_is_an_error_and_no_panic() {
        let Ok(gpu) = pollster::block_on(Gpu::new(DeviceLimits::Default)) else {
            // `cargo xtask test` makes sure that there is one.
            eprintln!("skipped: no GPU adapter");
            return;
        };
        let pipelines = Pipelines::new(&gpu.device);
        run_on_gpu(&case(), &gpu, &pipelines).unwrap();
        gpu.device.destroy();
        run_on_gpu(&case(), &gpu, &pipelines).unwrap_err();
        run_on_gpu(&case(), &gpu, &Pipelines::new(&gpu.device)).unwrap_err();
    }

    #[test]
    fn what_wgpu_objects_to_is_an_error_and_no_panic() {
        let Ok(gpu) = pollster::block_on(Gpu::new(DeviceLimits::Default)) else {
            eprintln!("skipped: no GPU adapter");
            return;
        };
        let result = guarded(&gpu, || {
            let _ = gpu.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("too large"),
                size: u64::MAX / 8 * 4,
                usage: wgpu::BufferUsages::STORAGE,
                mapped_at_creation: false,
            });
            Ok(())
        });
        assert!(result.unwrap_err().to_string().contains("refused"));
    }
}
