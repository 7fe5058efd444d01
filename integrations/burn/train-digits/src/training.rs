//! A step of training, and an evaluation.

use crate::digits::Digits;
use crate::network::{Entry, Network, NormKind, read};
use crate::random::order;
use crate::ranks::Ranks;
use anyhow::Result;
use bcnorm_burn::MovingSpeed;
use burn::module::Module as _;
use burn::nn::loss::{CrossEntropyLoss, CrossEntropyLossConfig};
use burn::optim::lr_scheduler::cosine::CosineAnnealingLrSchedulerConfig;
use burn::optim::lr_scheduler::module_lr_scheduler::ModuleLrScheduler;
use burn::optim::{GradientsParams, ModuleOptimizer, SgdConfig};
use burn::tensor::{Device, Int, Tensor};

/// Digits that are evaluated at a time.
const EVALUATED: usize = 250;

/// What a run depends on.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    pub norm: NormKind,
    /// Weight Standardization of every convolution.
    pub ws: bool,
    /// Digits of a step, of all ranks.
    pub batch: usize,
    /// The learning rate of the first step, which falls to 0 as half a cosine over all epochs.
    pub lr: f64,
    pub epochs: usize,
    pub seed: u64,
}

impl Settings {
    /// Names and values, as logs and checkpoints have them.
    pub fn described(&self) -> [(&'static str, String); 6] {
        [
            ("norm", self.norm.to_string()),
            ("ws", u8::from(self.ws).to_string()),
            ("batch", self.batch.to_string()),
            ("lr", self.lr.to_string()),
            ("epochs", self.epochs.to_string()),
            ("seed", self.seed.to_string()),
        ]
    }

    /// Steps of an epoch of `len` digits: an incomplete batch is left out.
    pub fn steps_per_epoch(&self, len: usize) -> usize {
        len / self.batch
    }

    /// burn's scheduler of the learning rate, before the first of `steps`.
    ///
    /// # Errors
    /// A learning rate that is not above 0 and at most 1, or no steps.
    pub fn scheduler(&self, steps: usize) -> Result<ModuleLrScheduler> {
        let config = CosineAnnealingLrSchedulerConfig::new(self.lr, steps);
        config.init().map_err(anyhow::Error::msg)
    }
}

/// The order of the digits, an epoch at a time.
pub struct Batches {
    seed: u64,
    len: usize,
    /// Of this rank.
    batch: usize,
    ranks: Ranks,
    epoch: Option<(usize, Vec<usize>)>,
}

impl Batches {
    pub fn new(settings: &Settings, len: usize, ranks: Ranks) -> Self {
        Self {
            seed: settings.seed,
            len,
            batch: settings.batch / ranks.size,
            ranks,
            epoch: None,
        }
    }

    /// The digits of a step, counted from 0 over all epochs.
    pub fn of_step(&mut self, step: usize) -> &[usize] {
        let Ranks { rank, size, .. } = self.ranks;
        let whole = self.batch * size;
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
    ranks: Ranks,
}

impl Trainer {
    /// A network with the initial weights of the settings' seed.
    pub fn new(settings: &Settings, device: &Device, ranks: Ranks) -> Self {
        let device = device.clone().autodiff();
        let speed = MovingSpeed::new(settings.lr);
        Self {
            network: Network::new(settings.norm, settings.ws, settings.seed, &speed, &device),
            optimizer: SgdConfig::new().init(),
            loss: CrossEntropyLossConfig::new().init(&device),
            speed,
            device,
            ranks,
        }
    }

    /// A step on this rank's share of a batch: its loss, on the device, before the step.
    pub fn step(&mut self, images: Tensor<4>, labels: Tensor<1, Int>, lr: f64) -> Tensor<1> {
        // As the authors have it.
        self.speed.set(lr);
        let (loss, gradients) = self.gradients(images, labels);
        let device = self.device.clone().inner();
        let gradients = self.ranks.averaged(&self.network, gradients, &device);
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
