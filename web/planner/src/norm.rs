//! Norms.

use crate::error::Failure;
use crate::json;
use bcnorm::layer::state;
use bcnorm::{ChannelStats, NormDesc, NormKind};
use wasm_bindgen::prelude::*;

/// A norm of the family: `bcnorm::NormDesc`.
#[wasm_bindgen]
#[derive(Clone)]
pub struct Norm {
    pub(crate) desc: NormDesc,
}

#[wasm_bindgen]
impl Norm {
    /// A norm of a kind (`bc_norm`, ...) with PyTorch's defaults. Without groups a GroupNorm and a BCNorm have one.
    #[wasm_bindgen(constructor)]
    pub fn new(kind: &str, num_channels: u32, num_groups: Option<u32>) -> Result<Norm, Failure> {
        let channels = num_channels as usize;
        let groups = num_groups.unwrap_or(1) as usize;
        let kind = NormKind::ALL
            .iter()
            .find(|known| known.name() == kind)
            .ok_or_else(|| Failure::unknown("norm", "norm", kind))?;
        let desc = NormDesc::of_kind(*kind, channels, groups);
        Ok(Norm { desc })
    }

    /// Sets eps.
    #[wasm_bindgen(js_name = setEps)]
    pub fn set_eps(&mut self, eps: f32) {
        self.desc.eps = eps;
    }

    /// Sets batch statistics with this momentum; undefined: the cumulative average.
    #[wasm_bindgen(js_name = setMomentum)]
    pub fn set_momentum(&mut self, momentum: Option<f32>) {
        self.desc.stats = ChannelStats::Batch { momentum };
    }

    /// Sets estimated statistics with this moving speed.
    #[wasm_bindgen(js_name = setMovingSpeed)]
    pub fn set_moving_speed(&mut self, moving_speed: f32) {
        self.desc.stats = ChannelStats::Estimate { moving_speed };
    }

    /// Sets one of the options that are on or off.
    #[wasm_bindgen(js_name = setFlag)]
    pub fn set_flag(&mut self, name: &str, value: bool) -> Result<(), Failure> {
        let flag = match name {
            "weight" => &mut self.desc.weight,
            "bias" => &mut self.desc.bias,
            "bnWeight" => &mut self.desc.bn_weight,
            "bnBias" => &mut self.desc.bn_bias,
            "perChannelAffine" => &mut self.desc.per_channel_affine,
            "trackRunningStats" => &mut self.desc.track_running_stats,
            _ => return Err(Failure::unknown("norm", "option", name)),
        };
        *flag = value;
        Ok(())
    }

    /// Checks the norm by itself.
    pub fn validate(&self) -> Result<(), Failure> {
        Ok(self.desc.validate()?)
    }

    /// What a layer of this norm keeps, as JSON: `{entries: [{role, name, dims, initial, gradient}],
    /// batchCount, movingSpeed: {name, value}}`.
    #[wasm_bindgen(js_name = stateLayout)]
    pub fn state_layout(&self) -> String {
        let entries = state::entries(&self.desc).into_iter().map(|entry| {
            json::object([
                ("role", json::string(entry.role.name())),
                ("name", json::string(entry.name)),
                ("dims", json::sizes(&entry.dims)),
                ("initial", entry.initial.to_string()),
                (
                    "gradient",
                    json::option(entry.gradient.map(|role| json::string(role.name()))),
                ),
            ])
        });
        let speed = state::moving_speed(&self.desc).map(|(name, value)| {
            json::object([("name", json::string(name)), ("value", value.to_string())])
        });
        json::object([
            ("entries", json::array(entries)),
            (
                "batchCount",
                json::option(state::batch_count(&self.desc).map(json::string)),
            ),
            ("movingSpeed", json::option(speed)),
        ])
    }
}
