#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod context;
mod fallback;
mod modules;
mod normalize;
mod op;

pub use context::{AllGather, init, is_native, register, synchronize};
pub use modules::{
    BatchNorm, BatchNormConfig, BcNorm, BcNormConfig, EstBn, EstBnConfig, GroupNorm,
    GroupNormConfig, InstanceNorm, InstanceNormConfig, LayerNorm, LayerNormConfig, MovingSpeed,
    weight_standardization,
};
pub use normalize::Activation;
