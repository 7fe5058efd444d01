//! What is kept for each of burn's wgpu devices: bcnorm's kernels, plans, and tables between calls.

use bcnorm::gpu::{Bindings, Pipelines, PreparedPlan, Tables, ranks, transfer};
use bcnorm::{
    BackwardOptions, ChannelStats, Error, ForwardOptions, Fusion, Mode, NormDesc, Plan, Role,
    TensorDesc, wgpu,
};
use burn::tensor::Device;
use burn::tensor::wgpu::{WgpuInitError, WgpuOptions, WgpuSetup};
use burn_cubecl::cubecl::future::block_on;
use burn_cubecl::cubecl::wgpu::{AutoCompiler, WgpuServer};
use burn_cubecl::tensor::CubeTensor;
use std::fmt;
use std::num::NonZero;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// Most plans that a device keeps: those of other shapes and settings replace the ones that were not used for longest.
const MAX_PLANS: usize = 1024;

/// What is known of the devices that were registered.
static CONTEXTS: RwLock<Vec<(Device, Arc<Context>)>> = RwLock::new(Vec::new());

/// Initializes burn's wgpu device for bcnorm's kernels; call it before the first tensor is made there, since burn
/// initializes a device at its first use, and hands its handles to no one after that.
///
/// ```no_run
/// use burn::tensor::Device;
///
/// let device = bcnorm_burn::init(Device::wgpu_options())?;
/// # Ok::<(), burn::tensor::wgpu::WgpuInitError>(())
/// ```
///
/// # Errors
/// Those of burn's `WgpuOptions::init_with_setup`: no adapter, options that are wrong, a device that is in use already.
pub fn init(options: WgpuOptions) -> Result<Device, WgpuInitError> {
    let (device, setup) = options.init_with_setup()?;
    register(&device, &setup);
    Ok(device)
}

/// Makes a device known whose handles the application has: that of `WgpuOptions::init_with_setup`, or one that burn
/// was given by `WgpuOptions::setup`. Modules on devices that are not known compute by burn's own operations.
pub fn register(device: &Device, setup: &WgpuSetup) {
    let context = Context {
        queue: setup.queue.clone(),
        // burn's allocator puts tensors into slices of one buffer.
        pipelines: Pipelines::new(&setup.device).with_read_write_bindings(),
        ranks: None,
        plans: Mutex::default(),
    };
    context.put(device);
}

/// What the ranks of a job gather by, each of which has a device of its own: MPI's all-gather, say.
pub trait AllGather: Send + Sync {
    /// The number of ranks.
    fn world_size(&self) -> NonZero<u32>;

    /// The entries of all ranks, in order of rank; `own` are this one's, as many as every other's. Called in the same order
    /// on all ranks, from the thread that burn runs the device's work in.
    fn all_gather(&self, own: Vec<u32>) -> Vec<u32>;
}

/// From here on the batch statistics of all modules on this device are those of all ranks, as `nn.SyncBatchNorm` has them:
/// each rank trains the same network on its share of a batch. The share's gradients are this rank's: average
/// them before the optimizer's step.
///
/// # Panics
/// Where the device was not initialized by [`init`] or given to [`register`].
pub fn synchronize(device: &Device, ranks: impl AllGather + 'static) {
    let context = Context::of(device).unwrap_or_else(|| {
        panic!("{device:?} is not known to bcnorm: initialize it by `bcnorm_burn::init` before it is synchronized")
    });
    let context = Context {
        queue: context.queue.clone(),
        pipelines: context.pipelines.clone(),
        ranks: Some(Arc::new(ranks)),
        plans: Mutex::default(),
    };
    context.put(device);
}

/// Whether modules on this device compute by bcnorm's kernels: whether it was initialized by [`init`], or given to
/// [`register`].
pub fn is_native(device: &Device) -> bool {
    Context::of(device).is_some()
}

/// A device's kernels and plans.
pub(crate) struct Context {
    queue: wgpu::Queue,
    pipelines: Pipelines,
    /// Where batch statistics are those of several ranks.
    ranks: Option<Arc<dyn AllGather>>,
    /// The last used first.
    plans: Mutex<Vec<(Key, Arc<Planned>)>>,
}

/// What a call is planned by.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Key {
    pub norm: NormDesc,
    pub tensor: TensorDesc,
    pub mode: Mode,
    pub fusion: Fusion,
    /// Whether a backward may follow.
    pub tracked: bool,
}

impl Key {
    /// What stays from step to step: a moving speed that follows the learning rate does not.
    fn lasting(&self) -> Self {
        let norm = match self.norm.stats {
            ChannelStats::Estimate { .. } => {
                let still = ChannelStats::Estimate { moving_speed: 0.0 };
                self.norm.with_stats(still)
            }
            _ => self.norm,
        };
        Self {
            norm,
            ..self.clone()
        }
    }
}

impl Context {
    /// Makes it that of a device.
    fn put(self, device: &Device) {
        let mut contexts = CONTEXTS.write().unwrap_or_else(PoisonError::into_inner);
        contexts.retain(|(known, _)| known != device);
        contexts.push((device.clone(), Arc::new(self)));
    }

    /// That of a device, with autodiff or without, if it was registered.
    pub fn of(device: &Device) -> Option<Arc<Context>> {
        let contexts = CONTEXTS.read().unwrap_or_else(PoisonError::into_inner);
        let found = contexts.iter().find(|(known, _)| known == device);
        found.map(|(_, context)| context.clone())
    }

    /// A call that is planned so, both ways.
    pub fn call(&self, key: &Key) -> Result<Call, Error> {
        let lasting = key.lasting();
        let mut plans = locked(&self.plans);
        let planned = match plans.iter().position(|(known, _)| *known == lasting) {
            Some(index) => {
                plans[..=index].rotate_right(1);
                plans[0].1.clone()
            }
            None => {
                let planned = Arc::new(Planned::new(self, &lasting)?);
                plans.truncate(MAX_PLANS - 1);
                plans.insert(0, (lasting, planned.clone()));
                planned
            }
        };
        let forward = planned.forward(self, key)?;
        let tables = planned.take_tables(&forward)?;
        Ok(Call(Arc::new(InFlight {
            planned,
            forward,
            tables,
        })))
    }
}

/// Plans of a call, compiled, and the tables that no call needs at the moment.
struct Planned {
    queue: wgpu::Queue,
    ranks: Option<Arc<dyn AllGather>>,
    /// That of the last call, with its norm: another moving speed is another plan, which has tables as all others.
    forward: Mutex<Option<(NormDesc, Arc<PreparedPlan>)>>,
    /// Where one may follow.
    backward: Option<PreparedPlan>,
    /// For running statistics in training: burn counts no batches.
    num_batches_tracked: wgpu::Buffer,
    pool: Mutex<Vec<Tables>>,
}

impl Planned {
    fn new(context: &Context, key: &Key) -> Result<Self, Error> {
        let Key {
            norm,
            tensor,
            mode,
            fusion,
            tracked,
        } = key;
        let (pipelines, tuning) = (&context.pipelines, context.pipelines.tuning());
        let world_size = context.ranks.as_ref().map(|ranks| ranks.world_size());
        let backward = match tracked {
            true => {
                let options = BackwardOptions::default()
                    .with_fusion(*fusion)
                    .with_world_size(world_size);
                Some(Plan::backward(norm, tensor, *mode, options, tuning)?)
            }
            false => None,
        };
        Ok(Self {
            queue: context.queue.clone(),
            ranks: context.ranks.clone(),
            forward: Mutex::default(),
            backward: backward.map(|plan| pipelines.prepare(plan)).transpose()?,
            num_batches_tracked: transfer::zeroed(pipelines.device(), "num_batches_tracked", 4)?,
            pool: Mutex::default(),
        })
    }

    /// The forward plan of a call.
    fn forward(&self, context: &Context, key: &Key) -> Result<Arc<PreparedPlan>, Error> {
        let mut last = locked(&self.forward);
        if let Some((norm, plan)) = &*last
            && *norm == key.norm
        {
            return Ok(plan.clone());
        }
        let (pipelines, tuning) = (&context.pipelines, context.pipelines.tuning());
        let world_size = self.ranks.as_ref().map(|ranks| ranks.world_size());
        let options = ForwardOptions::default()
            .with_fusion(key.fusion)
            .with_inference(!key.tracked)
            .with_world_size(world_size);
        let plan = Plan::forward(&key.norm, &key.tensor, key.mode, options, tuning)?;
        let plan = Arc::new(pipelines.prepare(plan)?);
        *last = Some((key.norm, plan.clone()));
        Ok(plan)
    }

    /// Tables of both plans.
    fn take_tables(&self, forward: &PreparedPlan) -> Result<Tables, Error> {
        if let Some(tables) = locked(&self.pool).pop() {
            return Ok(tables);
        }
        let tables = forward.create_tables(None)?;
        match &self.backward {
            Some(backward) => backward.create_tables(Some(&tables)),
            None => Ok(tables),
        }
    }
}

/// A forward and its backward, with the tables that both use. They return to the pool with the last clone: what takes
/// them then is submitted later than all that was submitted with them.
#[derive(Clone)]
pub struct Call(Arc<InFlight>);

struct InFlight {
    planned: Arc<Planned>,
    forward: Arc<PreparedPlan>,
    tables: Tables,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        locked(&self.planned.pool).push(std::mem::take(&mut self.tables));
    }
}

impl Call {
    /// The forward plan.
    pub(crate) fn forward(&self) -> &Plan {
        self.0.forward.plan()
    }

    /// The backward plan, where one may follow.
    pub(crate) fn backward(&self) -> Option<&Plan> {
        self.0.planned.backward.as_ref().map(PreparedPlan::plan)
    }

    /// Runs forward on burn's buffers.
    pub(crate) fn run_forward(&self, tensors: &[(Role, &CubeTensor)]) {
        self.run(&self.0.forward, tensors);
    }

    /// Runs backward on burn's buffers.
    pub(crate) fn run_backward(&self, tensors: &[(Role, &CubeTensor)]) {
        let backward = self.0.planned.backward.as_ref();
        self.run(backward.expect("a tracked call has a backward"), tensors);
    }

    /// Records and submits a plan on those of the tensors that it needs: after what burn has pending for them, and
    /// before what burn does next.
    fn run(&self, prepared: &PreparedPlan, tensors: &[(Role, &CubeTensor)]) {
        let Planned {
            queue,
            ranks,
            num_batches_tracked,
            ..
        } = &*self.0.planned;
        let needed = tensors
            .iter()
            .filter(|(role, _)| prepared.plan().need(*role).is_some());
        for (_, tensor) in tensors {
            assert!(
                !tensor.client.is_capturing(),
                "bcnorm's work is no part of a graph that burn captures: end the capture before, or compute by burn's \
                 operations on a device that bcnorm was not initialized for"
            );
        }
        // Asked for a resource, burn submits what is pending on the stream of its tensor. While it is held, burn gives
        // the memory to nothing else. Each question waits for the thread of burn's device: they are asked there.
        let handles: Vec<_> = needed
            .map(|(role, tensor)| (*role, tensor.client.clone(), tensor.handle.clone()))
            .collect();
        let Some((_, client, _)) = handles.first().cloned() else {
            return;
        };
        let ask = || {
            let resources = handles.into_iter().map(|(role, client, handle)| {
                let resource = client.get_resource::<WgpuServer<AutoCompiler>>(handle);
                resource.map(|resource| (role, resource))
            });
            resources.collect::<Result<Vec<_>, _>>()
        };
        let resources = client.exclusive(ask).flatten();
        let resources = resources.unwrap_or_else(|error| panic!("{error}"));
        let mut bindings = Bindings::new()
            .with_tables(&self.0.tables)
            .with(Role::NumBatchesTracked, num_batches_tracked);
        for (role, resource) in &resources {
            let resource = resource.resource();
            bindings = bindings.with_offset(*role, &resource.buffer, resource.offset);
        }
        let gathered = |own| match ranks {
            Some(ranks) => ranks.all_gather(own),
            None => own,
        };
        block_on(ranks::submit(prepared, queue, &bindings, gathered))
            .unwrap_or_else(|error| panic!("{error}"));
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Call").field(self.forward()).finish()
    }
}

/// Nothing panics while these locks are held but what leaves them whole.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
