use burn::serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The weight of a batch in running estimates, in `[0, 1]`: a handle, whose clones are one value. Give a clone to every
/// norm of a model, and one call of [`set`](Self::set) moves them all. The authors set it to the learning rate of the
/// step ([Qiao et al. 2019](https://arxiv.org/abs/1911.09738)), so call it beside the scheduler:
///
/// ```
/// use bcnorm_burn::{BcNormConfig, MovingSpeed};
/// use burn::tensor::Device;
///
/// let speed = MovingSpeed::new(0.1);
/// let config = BcNormConfig::new(4, 16).with_moving_speed(Some(speed.clone()));
/// let [first, second] = [(); 2].map(|()| config.init(&Device::default()));
/// // Each step, where burn's `ModuleLrScheduler` says the learning rate:
/// //     let lr = scheduler.step();
/// //     speed.set(lr.base());
/// //     ... forward, backward ...
/// //     model = optimizer.step(lr, model, gradients);
/// speed.set(0.05);
/// assert_eq!(first.moving_speed.unwrap().get(), 0.05);
/// assert_eq!(second.moving_speed.unwrap().get(), 0.05);
/// ```
#[derive(Debug, Clone)]
pub struct MovingSpeed(Arc<AtomicU64>);

impl MovingSpeed {
    /// A speed of its own. What is outside of `[0, 1]` is refused by the norm that is given it.
    pub fn new(speed: f64) -> Self {
        Self(Arc::new(AtomicU64::new(speed.to_bits())))
    }

    /// The speed of the next forward of every norm that has this handle or a clone of it. A forward refuses, with a
    /// panic, what is outside of `[0, 1]`.
    pub fn set(&self, speed: f64) {
        self.0.store(speed.to_bits(), Ordering::Relaxed);
    }

    /// The speed.
    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

impl From<f64> for MovingSpeed {
    fn from(speed: f64) -> Self {
        Self::new(speed)
    }
}

// A configuration holds the number.

impl Serialize for MovingSpeed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.get().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for MovingSpeed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        f64::deserialize(deserializer).map(Self::new)
    }
}
