//! Feature maps of photographs by a fixed bank of colour and edge filters.

mod bank;
mod oriented;
mod plane;
mod separable;

pub use bank::{CHANNELS, GROUPS, channel_names, feature_maps};
