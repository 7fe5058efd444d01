//! What a call of a layer computes, and the plans for it.

use crate::desc::{Fusion, GradientMode, Mode, NormDesc, TensorDesc};
use crate::error::Error;
use crate::gpu::{Pipelines, PreparedPlan};
use crate::plan::{BackwardOptions, Direction, ForwardOptions, Plan};
use std::sync::Arc;

/// Plans kept per layer: both directions, training and evaluation, of a few shapes.
const MAX_PLANS: usize = 16;

/// What a call computes, of whichever tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Key {
    pub norm: NormDesc,
    pub mode: Mode,
    pub fusion: Fusion,
    pub in_place: bool,
    pub inference: bool,
}

/// What a call computes, and so which plan it takes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Pass {
    pub key: Key,
    pub tensor: TensorDesc,
}

impl Pass {
    fn plan(&self, direction: Direction, pipelines: &Pipelines) -> Result<Plan, Error> {
        let tuning = pipelines.tuning();
        let Key {
            norm,
            mode,
            fusion,
            in_place,
            inference,
        } = self.key;
        match direction {
            Direction::Forward => {
                let options = ForwardOptions::default()
                    .with_fusion(fusion)
                    .with_in_place(in_place)
                    .with_inference(inference);
                Plan::forward(&norm, &self.tensor, mode, options, tuning)
            }
            Direction::Backward => {
                let options = BackwardOptions::default()
                    .with_parameters(GradientMode::Accumulate)
                    .with_fusion(fusion);
                Plan::backward(&norm, &self.tensor, mode, options, tuning)
            }
        }
    }
}

/// The plans of the most recent passes, the last one first.
#[derive(Debug, Default)]
pub(super) struct Plans {
    plans: Vec<(Pass, Direction, Arc<PreparedPlan>)>,
}

impl Plans {
    /// The plan of a pass, made and prepared where it is not here.
    pub fn prepared(
        &mut self,
        pass: &Pass,
        direction: Direction,
        pipelines: &Pipelines,
    ) -> Result<Arc<PreparedPlan>, Error> {
        let known = self
            .plans
            .iter()
            .position(|(known, way, _)| known == pass && *way == direction);
        let entry = match known {
            Some(index) => self.plans.remove(index),
            None => {
                let plan = pass.plan(direction, pipelines)?;
                let prepared = Arc::new(pipelines.prepare(plan)?);
                (pass.clone(), direction, prepared)
            }
        };
        let prepared = entry.2.clone();
        self.plans.truncate(MAX_PLANS - 1);
        self.plans.insert(0, entry);
        Ok(prepared)
    }
}
