//! Programs of several ranks, each on a device of its own: every test starts itself under `mpirun`, as the ranks.
#![allow(missing_docs)]

mod mpirun;

use bcnorm::gpu::Pipelines;
use bcnorm::gpu::headless::{DeviceLimits, Gpu};
use bcnorm::layer::StateValue;
use bcnorm::{Activation, ChannelStats, DType, Forward, Norm, NormDesc, Role, Tensor};
use bcnorm_mpi::{Error, SyncNorm};
use bcnorm_testkit::compare::units;
use bcnorm_testkit::problem::Problem;
use bcnorm_testkit::run;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives};
use mpirun::{is_rank, mpirun};
use pollster::block_on;
use std::collections::BTreeMap;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const SECONDS: u64 = 120;

/// The test of this name, as `ranks` ranks.
fn run_ranks(name: &str, ranks: usize) -> Output {
    let mut child = mpirun(ranks)
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("mpirun: install Open MPI or MPICH, `cargo xtask mpi` does on Debian");
    let begin = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begin.elapsed() > Duration::from_secs(SECONDS) {
            child.kill().unwrap();
            let output = child.wait_with_output().unwrap();
            panic!("{name}: still running after {SECONDS} s\n{}", text(&output));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.wait_with_output().unwrap()
}

fn text(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    format!("{out}\n{err}")
}

/// Runs `job` on every rank of `ranks`, from a test of this name.
fn on_ranks<E: std::fmt::Display>(
    name: &str,
    ranks: usize,
    job: impl FnOnce(&SimpleCommunicator) -> Result<(), E>,
) -> Option<Output> {
    if !is_rank() {
        return Some(run_ranks(name, ranks));
    }
    let code = bcnorm_mpi::run(job);
    assert_eq!(
        format!("{code:?}"),
        format!("{:?}", std::process::ExitCode::SUCCESS)
    );
    None
}

fn passes(name: &str, ranks: usize, job: impl FnOnce(&SimpleCommunicator) -> Result<(), Error>) {
    if let Some(output) = on_ranks(name, ranks, job) {
        print!("{}", text(&output));
        assert!(output.status.success(), "{name}: {}", output.status);
    }
}

const GRADIENTS: [Role; 4] = [
    Role::GradWeight,
    Role::GradBias,
    Role::GradBnWeight,
    Role::GradBnBias,
];

/// The problem's parameters and running statistics.
fn load(
    norm: &mut Norm,
    queue: &bcnorm::wgpu::Queue,
    problem: &Problem,
) -> Result<(), bcnorm::Error> {
    let mut state = block_on(norm.state_dict(queue))?;
    for (name, value) in &mut state {
        let StateValue::F32 { values, .. } = value else {
            continue;
        };
        let given = match name.as_str() {
            "weight" => &problem.weight,
            "bias" => &problem.bias,
            "bn.weight" => &problem.bn_weight,
            "bn.bias" => &problem.bn_bias,
            name if name.ends_with("running_mean") => &problem.running_mean,
            name if name.ends_with("running_var") => &problem.running_var,
            _ => continue,
        };
        values.clone_from(given);
    }
    norm.load_state_dict(queue, &state)
}

/// Statistics and parameters' gradients of a layer, by name.
fn results(gpu: &Gpu, norm: &Norm) -> Result<BTreeMap<String, Vec<f32>>, bcnorm::Error> {
    let mut results = BTreeMap::new();
    for (name, value) in block_on(norm.state_dict(&gpu.queue))? {
        if let (StateValue::F32 { values, .. }, true) = (value, name.contains("running")) {
            results.insert(format!("{name}_after"), values);
        }
    }
    for role in GRADIENTS {
        let Some(buffer) = norm.buffer(role) else {
            continue;
        };
        let (device, len) = (&gpu.device, buffer.size() as usize / 4);
        let values = block_on(bcnorm::gpu::transfer::read(
            device, &gpu.queue, buffer, 0, len,
        ))?;
        results.insert(role.name().into(), values);
    }
    Ok(results)
}

/// Two steps of training and one of evaluation on shares of the batch, unequal and empty ones, against one device that has it
/// all: the same statistics and parameters' gradients to two units of their scale, y and dx to three.
#[test]
fn ranks_give_what_one_rank_gives() {
    passes("ranks_give_what_one_rank_gives", 4, |world| {
        let (rank, size) = (world.rank() as usize, world.size() as usize);
        assert_eq!(size, 4);
        let gpu = block_on(Gpu::new(DeviceLimits::Default))?;
        let pipelines = Pipelines::new(&gpu.device);
        let estimate = ChannelStats::Estimate { moving_speed: 0.4 };
        let dims = [7, 6, 5, 9];
        for (desc, activation, residual) in [
            (NormDesc::batch_norm(6), Activation::None, false),
            (
                NormDesc::batch_norm(6).with_momentum(None),
                Activation::Relu,
                true,
            ),
            (NormDesc::bc_norm(6, 2), Activation::None, true),
            (NormDesc::bc_norm(6, 2), Activation::Silu, false),
            (
                NormDesc::bc_norm(6, 2).with_stats(estimate),
                Activation::None,
                false,
            ),
        ] {
            for shares in [[3, 2, 1, 1], [0, 5, 0, 2], [7, 0, 0, 0]] {
                let problem = Problem::random_of(desc, &dims, 3);
                let what = format!("{} {activation:?} {shares:?}", desc.kind.name());
                let fusion = bcnorm::Fusion::NONE
                    .with_activation(activation)
                    .with_residual(residual);
                let expected = run::expected(&problem.clone().with_fusion(fusion));
                let per_sample = problem.x.len() / dims[0];
                let begin = shares[..rank].iter().sum::<usize>() * per_sample;
                let mine = begin..begin + shares[rank] * per_sample;
                let own_dims = [shares[rank], dims[1], dims[2], dims[3]];
                let share = |values: &[f32]| {
                    Tensor::from_slice(&gpu.device, &own_dims, &values[mine.clone()])
                };
                let whole = |values: &[f32]| Tensor::from_slice(&gpu.device, &dims, values);

                let mut sync = SyncNorm::new(&pipelines, desc, world)?.with_activation(activation);
                let mut single = Norm::new(&pipelines, desc)?.with_activation(activation);
                load(sync.norm_mut(), &gpu.queue, &problem)?;
                load(&mut single, &gpu.queue, &problem)?;
                // The second step begins where the first one left the running statistics.
                for step in 0..3 {
                    if step == 2 {
                        sync.norm_mut().eval();
                        single.eval();
                    }
                    sync.norm_mut().zero_grad(&gpu.queue)?;
                    single.zero_grad(&gpu.queue)?;
                    let (x, grad) = (share(&problem.x)?, share(&problem.grad_y)?);
                    // Any tensor does for a residual.
                    let own = residual.then(|| share(&problem.grad_y)).transpose()?;
                    let (y, saved) = sync.forward(&gpu.queue, &x, own.as_ref())?;
                    let (grad_x, grad_residual) = sync.backward(&gpu.queue, saved, &grad)?;
                    sync.all_reduce_gradients(&gpu.queue)?;
                    assert_eq!(grad_residual.is_some(), residual);

                    let (x, grad) = (whole(&problem.x)?, whole(&problem.grad_y)?);
                    let args = match residual {
                        true => Forward::new(&x).with_residual(&grad),
                        false => Forward::new(&x),
                    };
                    let (one_y, saved) = single.forward(&gpu.queue, args)?;
                    let gradients = single.backward(&gpu.queue, saved, &grad)?;

                    let read = |tensor: &Tensor| block_on(tensor.read(&gpu.device, &gpu.queue));
                    let scale =
                        |values: &[f32]| values.iter().fold(0f32, |most, v| most.max(v.abs()));
                    let mut pairs = vec![("y", &y, &one_y), ("grad_x", &grad_x, &gradients.x)];
                    pairs.extend(
                        (grad_residual.as_ref().zip(gradients.residual.as_ref()))
                            .map(|(a, b)| ("grad_residual", a, b)),
                    );
                    for (name, got, one) in pairs {
                        let (got, one) = (read(got)?, read(one)?);
                        let worst = units(&got, &one[mine.clone()], scale(&one).into(), DType::F32);
                        assert!(worst <= 3.0, "{what}, step {step}: {name}: {worst} units");
                    }
                    let (got, one) = (results(&gpu, sync.norm())?, results(&gpu, &single)?);
                    for (name, got) in &got {
                        // Of a sum that may cancel, its terms' size.
                        let scale = expected.get(name.as_str()).map_or(1.0, |(_, scale)| *scale);
                        let worst = units(got, &one[name], scale, DType::F32);
                        assert!(worst <= 2.0, "{what}, step {step}: {name}: {worst} units");
                        let mut all = vec![0f32; got.len() * size];
                        world.all_gather_into(&got[..], &mut all[..]);
                        let same = all.chunks(got.len()).all(|other| other == &got[..]);
                        assert!(same, "{what}, step {step}: {name} differs between ranks");
                    }
                }
            }
        }
        Ok(())
    });
}

/// Ends with an error within the time of [`run_ranks`], which says `message`.
fn ends(name: &str, message: &str, job: impl FnOnce(&SimpleCommunicator) -> Result<(), Error>) {
    let Some(output) = on_ranks(name, 3, job) else {
        return;
    };
    let text = text(&output);
    assert!(!output.status.success(), "{text}");
    assert!(text.contains(message), "{text}");
}

/// Steps until the job ends: every rank waits for the others in each.
fn steps(
    world: &SimpleCommunicator,
    each: impl Fn(usize, &Gpu) -> Result<(), Error>,
) -> Result<(), Error> {
    let gpu = block_on(Gpu::new(DeviceLimits::Default))?;
    let mut norm = SyncNorm::new(&Pipelines::new(&gpu.device), NormDesc::batch_norm(4), world)?;
    let x = Tensor::from_slice(&gpu.device, &[2, 4, 3], &[1.0; 24])?;
    for step in 0..10_000 {
        if world.rank() == 1 {
            each(step, &gpu)?;
        }
        norm.forward(&gpu.queue, &x, None)?;
    }
    Ok(())
}

#[test]
fn an_error_of_a_rank_ends_the_job() {
    let message = "error: rank 1 of 3 ends the job: the tensor [2, 5, 3] has 5 channels";
    ends("an_error_of_a_rank_ends_the_job", message, |world| {
        steps(world, |step, gpu| {
            if step == 3 {
                let mut norm = Norm::new(&Pipelines::new(&gpu.device), NormDesc::batch_norm(4))?;
                let x = Tensor::from_slice(&gpu.device, &[2, 5, 3], &[1.0; 30])?;
                norm.forward(&gpu.queue, &x)?;
            }
            Ok(())
        })
    });
}

#[test]
fn a_panic_of_a_rank_ends_the_job() {
    let message = "error: rank 1 of 3 ends the job: it panicked";
    ends("a_panic_of_a_rank_ends_the_job", message, |world| {
        steps(world, |step, _| {
            assert!(step < 3, "a panic of the test's");
            Ok(())
        })
    });
}

#[test]
fn a_rank_that_is_killed_ends_the_job() {
    ends("a_rank_that_is_killed_ends_the_job", "signal", |world| {
        steps(world, |step, _| {
            if step == 3 {
                let own = std::process::id().to_string();
                Command::new("kill").args(["-KILL", &own]).status().unwrap();
            }
            Ok(())
        })
    });
}

#[test]
fn other_norms_are_refused() {
    let message = "rank 1 was given another norm than rank 0";
    ends("other_norms_are_refused", message, |world| {
        let gpu = block_on(Gpu::new(DeviceLimits::Default))?;
        let desc = NormDesc::batch_norm(4 + world.rank() as usize % 2);
        SyncNorm::new(&Pipelines::new(&gpu.device), desc, world).map(drop)
    });
}
