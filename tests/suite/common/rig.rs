//! Plans on a device with full control of what each dispatch finds: every buffer has poison before
//! and behind the range that is bound, contents are put in place by copies between the dispatches,
//! and results are copied away behind them. All of it is one submission.

// Each test crate that includes this uses its own part of it.
#![allow(dead_code)]

use super::problem::Problem;
use super::run::{self, POISON};
use bcnorm::gpu::headless::Gpu;
use bcnorm::gpu::{Bindings, BoundPlan, Pipelines, PreparedPlan, transfer};
use bcnorm::kernels::{Access, KernelId, Spec, wgsl};
use bcnorm::plan::{Plan, Step};
use bcnorm::{Role, cpu};
use pollster::block_on;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use wgpu::{BufferUsages, CommandEncoder};

/// Poison before, in bytes: what a binding's offset must be a multiple of by default.
const GUARD: u64 = 256;

/// Poison behind, in bytes: more than a workgroup's items of any table.
const TAIL: u64 = 8192;

/// What a buffer holds.
pub type Words = Vec<u32>;

/// Contents by role.
pub type Contents = BTreeMap<Role, Words>;

/// How the steps of plans are recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// A plan in a pass, by `BoundPlan::encode`.
    PlanByPlan,
    /// All plans in one pass, by `BoundPlan::encode`.
    OnePass,
    /// Every step in a pass of its own, by `BoundPlan::encode_step`.
    StepByStep,
}

/// What a step's bindings reach.
pub enum Ranges<'a> {
    /// What the plan needs, bound and recorded by the library.
    Exact,
    /// The poison behind it as well, by pipelines made here.
    Wide(&'a mut WidePipelines),
}

/// Pipelines of what `rewrite` makes of the kernels' texts, without the library's layouts, kept from case to case.
pub struct WidePipelines {
    cache: HashMap<Spec, wgpu::ComputePipeline>,
    rewrite: fn(&str) -> String,
}

impl WidePipelines {
    pub fn new(rewrite: fn(&str) -> String) -> Self {
        Self {
            cache: HashMap::new(),
            rewrite,
        }
    }

    fn get(&mut self, gpu: &Gpu, spec: &Spec) -> &wgpu::ComputePipeline {
        self.cache.entry(*spec).or_insert_with(|| {
            let source = wgpu::ShaderSource::Wgsl((self.rewrite)(&wgsl(spec)).into());
            let module = gpu
                .device
                .create_shader_module(wgpu::ShaderModuleDescriptor {
                    label: Some(spec.kernel.name()),
                    source,
                });
            gpu.device
                .create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                    label: Some(spec.kernel.name()),
                    layout: None,
                    module: &module,
                    entry_point: Some(spec.kernel.name()),
                    // As the library has it, but for Metal.
                    compilation_options: wgpu::PipelineCompilationOptions {
                        zero_initialize_workgroup_memory: false,
                        ..Default::default()
                    },
                    cache: None,
                })
        })
    }
}

/// PreparedPlan plans and buffers for them.
pub struct Rig<'a> {
    gpu: &'a Gpu,
    prepared: Vec<PreparedPlan>,
    buffers: BTreeMap<Role, wgpu::Buffer>,
}

/// The roles that a step writes.
pub fn written(step: &Step) -> impl Iterator<Item = Role> + '_ {
    let bindings = step.bindings.iter().zip(step.spec.bindings());
    bindings
        .filter(|(_, (_, declared))| declared.access == Access::ReadWrite)
        .map(|(&role, _)| role)
}

/// The contents of host buffers.
pub fn contents(buffers: &cpu::Buffers, roles: impl IntoIterator<Item = Role>) -> Contents {
    let words = |role: Role| {
        buffers
            .get_u32(role)
            .unwrap_or_else(|| panic!("no {role}"))
            .to_vec()
    };
    roles.into_iter().map(|role| (role, words(role))).collect()
}

/// What plans leave in all of their buffers, which begin with the problem's inputs.
pub fn results(gpu: &Gpu, pipelines: &Pipelines, problem: &Problem, plans: &[Plan]) -> Contents {
    let roles: BTreeSet<Role> = plans
        .iter()
        .flat_map(Plan::needs)
        .map(|need| need.role)
        .collect();
    let before = contents(&run::host_buffers(problem, plans), roles);
    let rig = Rig::new(gpu, pipelines, plans);
    rig.run_plans(&before, 1, Way::OnePass).unwrap().remove(0)
}

impl<'a> Rig<'a> {
    pub fn new(gpu: &'a Gpu, pipelines: &Pipelines, plans: &[Plan]) -> Self {
        let mut bytes: BTreeMap<Role, u64> = BTreeMap::new();
        for need in plans.iter().flat_map(Plan::needs) {
            let most = bytes.entry(need.role).or_default();
            *most = need.bytes.max(*most);
        }
        let buffer = |(role, bytes): (Role, u64)| {
            let buffer = gpu.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some(role.name()),
                size: bytes + GUARD + TAIL,
                usage: BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST,
                mapped_at_creation: false,
            });
            (role, buffer)
        };
        let prepare = |plan: &Plan| pipelines.prepare(plan.clone()).unwrap();
        Self {
            gpu,
            prepared: plans.iter().map(prepare).collect(),
            buffers: bytes.into_iter().map(buffer).collect(),
        }
    }

    fn bound(&self) -> Vec<BoundPlan> {
        let bindings = self
            .buffers
            .iter()
            .fold(Bindings::new(), |bindings, (&role, buffer)| {
                bindings.with_offset(role, buffer, GUARD)
            });
        self.prepared
            .iter()
            .map(|prepared| prepared.bind(&bindings).unwrap())
            .collect()
    }

    fn steps(&self) -> impl Iterator<Item = (usize, usize, &Step)> {
        self.prepared
            .iter()
            .enumerate()
            .flat_map(|(plan, prepared)| {
                let steps = prepared.plan().steps().iter().enumerate();
                steps.map(move |(index, step)| (plan, index, step))
            })
    }

    /// Runs every step of every plan alone: before it, the buffers that it binds are filled with
    /// `before[step]`. Returns what it wrote.
    ///
    /// # Errors
    /// Where a step wrote outside of what it binds.
    pub fn run_steps(
        &self,
        before: &[Contents],
        mut ranges: Ranges,
    ) -> Result<Vec<Contents>, String> {
        let mut tape = Tape::default();
        let mut results = Vec::new();
        let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
        let bound = self.bound();
        let loads = self
            .steps()
            .zip(before)
            .map(|(_, before)| self.load(&mut tape, before));
        let loads: Vec<_> = loads.collect();
        let source = tape.upload(self.gpu);
        let mut results_size = 0;
        for (_, _, step) in self.steps() {
            results.push(self.places(written(step), &mut results_size));
        }
        let sink = self.sink(results_size);
        for (((plan, index, step), load), result) in self.steps().zip(&loads).zip(&results) {
            self.copy_in(&mut encoder, &source, load);
            let mut pass = encoder.begin_compute_pass(&Default::default());
            match &mut ranges {
                Ranges::Exact => bound[plan].encode_step(&mut pass, index),
                Ranges::Wide(pipelines) => self.encode_wide(&mut pass, step, pipelines),
            }
            drop(pass);
            self.copy_out(&mut encoder, &sink, result);
        }
        self.gpu.queue.submit([encoder.finish()]);
        let words = self.read(&sink, results_size);
        let results = results.iter().zip(before).enumerate();
        let outputs = results.map(|(index, (places, before))| {
            let outputs = self.unload(&words, places, |role| before[&role].len());
            outputs.map_err(|error| format!("step {index}: {error}"))
        });
        outputs.collect()
    }

    fn encode_wide(
        &self,
        pass: &mut wgpu::ComputePass,
        step: &Step,
        pipelines: &mut WidePipelines,
    ) {
        let pipeline = pipelines.get(self.gpu, &step.spec);
        let params = transfer::buffer_with_bytes(
            &self.gpu.device,
            "params",
            step.params.as_bytes(),
            BufferUsages::UNIFORM,
        )
        .unwrap();
        let range = |binding, buffer, offset| wgpu::BindGroupEntry {
            binding,
            resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                buffer,
                offset,
                size: None,
            }),
        };
        let mut entries = Vec::new();
        // The one kernel that reads no uniform has none in the layout that is made of its text.
        if step.spec.kernel != KernelId::BatchCount {
            entries.push(range(0, &params, 0));
        }
        for ((binding, _), role) in step.spec.bindings().zip(&step.bindings) {
            // A window begins where it does; behind it there is what the tensor has besides.
            let window = step.window.filter(|_| role.is_tensor());
            let offset = GUARD + window.map_or(0, |window| window.offset);
            entries.push(range(binding, &self.buffers[role], offset));
        }
        let group = self
            .gpu
            .device
            .create_bind_group(&wgpu::BindGroupDescriptor {
                label: None,
                layout: &pipeline.get_bind_group_layout(0),
                entries: &entries,
            });
        pass.set_pipeline(pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.dispatch_workgroups(step.workgroups[0], step.workgroups[1], 1);
    }

    /// Runs all plans `runs` times, every time from the same contents, and returns what all the
    /// roles that they write hold then.
    ///
    /// # Errors
    /// Where a plan wrote outside of what it binds.
    pub fn run_plans(
        &self,
        before: &Contents,
        runs: usize,
        way: Way,
    ) -> Result<Vec<Contents>, String> {
        let mut tape = Tape::default();
        let load = self.load(&mut tape, before);
        let source = tape.upload(self.gpu);
        let mut roles: Vec<Role> = self
            .steps()
            .flat_map(|(_, _, step)| written(step))
            .collect();
        roles.sort();
        roles.dedup();
        let mut results_size = 0;
        let results: Vec<_> = (0..runs)
            .map(|_| self.places(roles.iter().copied(), &mut results_size))
            .collect();
        let sink = self.sink(results_size);
        let bound = self.bound();
        let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
        for result in &results {
            self.copy_in(&mut encoder, &source, &load);
            match way {
                Way::PlanByPlan => bound.iter().for_each(|bound| bound.encode(&mut encoder)),
                Way::OnePass => {
                    let mut pass = encoder.begin_compute_pass(&Default::default());
                    bound.iter().for_each(|bound| bound.encode(&mut pass));
                }
                Way::StepByStep => {
                    for (plan, index, _) in self.steps() {
                        let mut pass = encoder.begin_compute_pass(&Default::default());
                        bound[plan].encode_step(&mut pass, index);
                    }
                }
            }
            self.copy_out(&mut encoder, &sink, result);
        }
        self.gpu.queue.submit([encoder.finish()]);
        let words = self.read(&sink, results_size);
        let unload = |places: &Vec<Place>| self.unload(&words, places, |role| before[&role].len());
        results.iter().map(unload).collect()
    }

    /// Puts the image of each content, poison around it, on the tape.
    fn load(&self, tape: &mut Tape, contents: &Contents) -> Vec<Place> {
        let mut places = Vec::new();
        for (&role, words) in contents {
            let guard = (GUARD / 4) as usize;
            let mut image = vec![POISON; (self.buffers[&role].size() / 4) as usize];
            image[guard..guard + words.len()].copy_from_slice(words);
            places.push(Place {
                role,
                offset: tape.words.len() as u64 * 4,
            });
            tape.words.extend(image);
        }
        places
    }

    fn places(&self, roles: impl Iterator<Item = Role>, size: &mut u64) -> Vec<Place> {
        let place = |role| {
            let offset = *size;
            *size += self.buffers[&role].size();
            Place { role, offset }
        };
        roles.map(place).collect()
    }

    fn sink(&self, size: u64) -> wgpu::Buffer {
        self.gpu.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("results"),
            size: size.max(4),
            usage: BufferUsages::COPY_SRC | BufferUsages::COPY_DST,
            mapped_at_creation: false,
        })
    }

    fn copy_in(&self, encoder: &mut CommandEncoder, source: &wgpu::Buffer, places: &[Place]) {
        for place in places {
            let buffer = &self.buffers[&place.role];
            encoder.copy_buffer_to_buffer(source, place.offset, buffer, 0, buffer.size());
        }
    }

    fn copy_out(&self, encoder: &mut CommandEncoder, sink: &wgpu::Buffer, places: &[Place]) {
        for place in places {
            let buffer = &self.buffers[&place.role];
            encoder.copy_buffer_to_buffer(buffer, 0, sink, place.offset, buffer.size());
        }
    }

    fn read(&self, sink: &wgpu::Buffer, size: u64) -> Words {
        let len = (size / 4) as usize;
        block_on(transfer::read(
            &self.gpu.device,
            &self.gpu.queue,
            sink,
            0,
            len,
        ))
        .unwrap()
    }

    /// The contents within the images, whose poison must be whole.
    fn unload(
        &self,
        words: &[u32],
        places: &[Place],
        len: impl Fn(Role) -> usize,
    ) -> Result<Contents, String> {
        let mut contents = Contents::new();
        for &Place { role, offset } in places {
            let image =
                &words[(offset / 4) as usize..][..(self.buffers[&role].size() / 4) as usize];
            let (front, rest) = image.split_at((GUARD / 4) as usize);
            let (content, tail) = rest.split_at(len(role));
            let whole = |words: &[u32]| words.iter().all(|&word| word == POISON);
            if !whole(front) || !whole(tail) || tail.is_empty() {
                return Err(format!("{role} is written outside of its range"));
            }
            contents.insert(role, content.to_vec());
        }
        Ok(contents)
    }
}

/// Where a buffer's image lies.
struct Place {
    role: Role,
    offset: u64,
}

/// All images, one behind the other.
#[derive(Default)]
struct Tape {
    words: Words,
}

impl Tape {
    fn upload(&self, gpu: &Gpu) -> wgpu::Buffer {
        let bytes = bytemuck::cast_slice(&self.words);
        transfer::buffer_with_bytes(&gpu.device, "contents", bytes, BufferUsages::COPY_SRC).unwrap()
    }
}
