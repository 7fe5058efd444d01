//! A step of training, and an evaluation.

use crate::digits::Digits;
use crate::network::{Entry, Network, NormKind, read};
use crate::random::order;
use anyhow::Result;
use bcnorm_burn::MovingSpeed;
use burn::module::Module as _;
use burn::nn::loss::{CrossEntropyLoss, CrossEntropyLossConfig};
use burn::optim::lr_scheduler::constant::ConstantLr;
use burn::optim::lr_scheduler::cosine::CosineAnnealingLrSchedulerConfig;
use burn::optim::lr_scheduler::module_lr_scheduler::ModuleLrScheduler;
use burn::optim::momentum::MomentumConfig;
use burn::optim::{GradientsParams, ModuleOptimizer, OptimizerRecord, SgdConfig};
use burn::tensor::{Device, Int, Tensor, TensorData};
use clap::ValueEnum;
use std::collections::BTreeMap;
use std::fmt;

const MOMENTUM: f64 = 0.9;
/// Digits that are evaluated at a time.
const EVALUATED: usize = 250;

/// How the learning rate goes on.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schedule {
    /// It stays.
    Constant,
    /// It falls to 0 as half a cosine over all epochs.
    Cosine,
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Constant => "constant",
            Self::Cosine => "cosine",
        })
    }
}

/// What a run depends on.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    pub norm: NormKind,
    /// Weight Standardization of every convolution.
    pub ws: bool,
    /// Digits of a step.
    pub batch: usize,
    pub lr: f64,
    pub schedule: Schedule,
    pub epochs: usize,
    pub seed: u64,
}

impl Settings {
    /// Steps of an epoch of `len` digits: an incomplete batch is left out.
    pub fn steps_per_epoch(&self, len: usize) -> usize {
        len / self.batch
    }

    /// burn's scheduler of the learning rate, before the first of `steps`.
    pub fn scheduler(&self, steps: usize) -> Result<ModuleLrScheduler> {
        match self.schedule {
            Schedule::Constant => Ok(ModuleLrScheduler::new(ConstantLr::new(self.lr))),
            Schedule::Cosine => {
                let config = CosineAnnealingLrSchedulerConfig::new(self.lr, steps);
                config.init().map_err(anyhow::Error::msg)
            }
        }
    }
}

/// Which share of every batch is a process's.
#[derive(Debug, Clone, Copy)]
pub struct Share {
    pub rank: usize,
    pub ranks: usize,
}

impl Share {
    /// All of it.
    pub const WHOLE: Self = Self { rank: 0, ranks: 1 };
}

/// The order of the digits, an epoch at a time.
pub struct Batches {
    seed: u64,
    len: usize,
    /// Of this process.
    batch: usize,
    share: Share,
    epoch: Option<(usize, Vec<usize>)>,
}

impl Batches {
    pub fn new(settings: &Settings, len: usize, share: Share) -> Self {
        Self {
            seed: settings.seed,
            len,
            batch: settings.batch / share.ranks,
            share,
            epoch: None,
        }
    }

    /// The digits of a step, counted from 0 over all epochs.
    pub fn of_step(&mut self, step: usize) -> &[usize] {
        let Share { rank, ranks } = self.share;
        let whole = self.batch * ranks;
        let per_epoch = self.len / whole;
        let epoch = step / per_epoch;
        if self.epoch.as_ref().is_none_or(|(known, _)| *known != epoch) {
            self.epoch = Some((epoch, order(self.seed, epoch, self.len)));
        }
        let order = self.epoch.as_ref().map_or(&[][..], |(_, order)| order);
        let first = step % per_epoch * whole + rank * self.batch;
        &order[first..first + self.batch]
    }
}

/// A network in training.
pub struct Trainer {
    network: Network,
    optimizer: ModuleOptimizer,
    loss: CrossEntropyLoss,
    speed: MovingSpeed,
    device: Device,
}

impl Trainer {
    /// A network with the initial weights of the settings' seed.
    pub fn new(settings: &Settings, device: &Device) -> Self {
        let device = device.clone().autodiff();
        let speed = MovingSpeed::new(settings.lr);
        // PyTorch's form: v = 0.9 v + g; p -= lr v.
        let momentum = MomentumConfig::new()
            .with_momentum(MOMENTUM)
            .with_dampening(0.0);
        Self {
            network: Network::new(settings.norm, settings.ws, settings.seed, &speed, &device),
            optimizer: SgdConfig::new().with_momentum(Some(momentum)).init(),
            loss: CrossEntropyLossConfig::new().init(&device),
            speed,
            device,
        }
    }

    /// A step on a batch: its loss, on the device, before the step.
    pub fn step(&mut self, images: Tensor<4>, labels: Tensor<1, Int>, lr: f64) -> Tensor<1> {
        // As the authors have it.
        self.speed.set(lr);
        let (loss, gradients) = self.gradients(images, labels);
        self.update(gradients, lr);
        loss
    }

    /// The loss of a batch, and its gradients.
    fn gradients(&self, images: Tensor<4>, labels: Tensor<1, Int>) -> (Tensor<1>, GradientsParams) {
        let loss = self.loss.forward(self.network.forward(images), labels);
        let gradients = loss.backward();
        let gradients = GradientsParams::from_grads(gradients, &self.network);
        (loss.inner(), gradients)
    }

    /// The optimizer's step.
    fn update(&mut self, gradients: GradientsParams, lr: f64) {
        let network = self.network.clone();
        self.network = self.optimizer.step(lr, network, gradients);
    }

    /// The device that batches are wanted on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The share of the digits that the network knows, in evaluation mode.
    pub fn accuracy(&self, digits: &Digits) -> f64 {
        accuracy(&self.network, digits, &self.device)
    }

    /// The network's state, and how fast its estimates move.
    pub fn state(&self) -> (Vec<Entry>, f64) {
        (self.network.state(), self.speed.get())
    }

    /// Takes another state of the same network.
    pub fn set_state(&mut self, entries: Vec<Entry>) {
        self.network = self.network.clone().with_state(entries);
    }

    /// The optimizer's momentum buffers, with the names and shapes of their parameters; none before the first step.
    pub fn momentum(&self) -> Result<Vec<Entry>> {
        // burn says what an optimizer holds in its own file format only.
        let pack = burn_pack::Reader::from_bytes(self.optimizer.into_bytes()?)?;
        let mut buffers = BTreeMap::new();
        for tensor in pack.into_tensors()? {
            let (_, dtype, dims, id, bytes) = tensor.into_parts()?;
            let values = TensorData::from_bytes(bytes, dims, dtype).convert::<f32>();
            buffers.insert(id, values.try_to_vec::<f32>()?);
        }
        let of_parameter = |entry: Entry| {
            let values = buffers.remove(&Some(entry.id.val()))?;
            let values = entry.reordered(values, &entry.dims);
            Some(Entry { values, ..entry })
        };
        Ok(self
            .network
            .state()
            .into_iter()
            .filter_map(of_parameter)
            .collect())
    }

    /// Takes momentum buffers.
    pub fn set_momentum(&mut self, entries: Vec<Entry>) -> Result<()> {
        let tensors = entries.into_iter().map(|entry| {
            let id = entry.id.val();
            let values = entry.reordered(entry.values.clone(), &entry.shape);
            let data = TensorData::new(values, entry.dims);
            let (bytes, dims, dtype) = data.into_parts();
            // As burn's derived records name it.
            let name = format!("{id}.momentum.velocity");
            burn_pack::Tensor::new(name, dtype, dims, Some(id), bytes)
        });
        let pack = burn_pack::Writer::new(tensors.collect()).into_bytes()?;
        let record = OptimizerRecord::from_bytes(pack)?;
        self.optimizer = self.optimizer.clone().load_record(record);
        Ok(())
    }
}

/// The share of the digits that a network knows, in evaluation mode.
pub fn accuracy(network: &Network, digits: &Digits, device: &Device) -> f64 {
    let (network, device) = (network.valid(), device.clone().inner());
    let all: Vec<usize> = (0..digits.len()).collect();
    let right = all.chunks(EVALUATED).map(|indices| {
        let (images, _) = digits.batch(indices, &device);
        let logits = read(network.forward(images));
        let answers = logits.chunks(10).map(|logits| {
            let best = (0..10).max_by(|a, b| logits[*a].total_cmp(&logits[*b]));
            best.unwrap_or_default() as i32
        });
        let labels = digits.labels(indices);
        answers.zip(labels).filter(|(a, b)| a == b).count()
    });
    right.sum::<usize>() as f64 / digits.len() as f64
}
