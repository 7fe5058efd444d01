//! What a layer keeps of its recent calls: the last one for backward, those that may come again for
//! recording them without any work.

use super::pass::{Key, Pass};
use super::tensor::Tensor;
use crate::error::Error;
use crate::gpu::{BoundPlan, Tables};

/// Calls kept per layer, with and without a backward each: buffers used in turn.
const MAX_CALLS: usize = 4;

/// Which forward a backward goes back through: one that awaits it, and there may be only one. With two, which
/// of them is meant is not known, and the tables of the first are overwritten.
#[derive(Debug)]
pub(super) struct Order {
    /// Forwards that await a backward.
    awaiting: usize,
    /// What a backward is told where there are none.
    otherwise: Error,
}

impl Default for Order {
    fn default() -> Self {
        Self {
            awaiting: 0,
            otherwise: Error::BackwardWithoutForward,
        }
    }
}

impl Order {
    /// After a forward that backward may go back through.
    pub fn went_forward(&mut self) {
        self.awaiting += 1;
    }

    /// After a forward that no backward follows.
    pub fn passed(&mut self, otherwise: Error) {
        if self.awaiting == 0 {
            self.otherwise = otherwise;
        }
    }

    /// Nothing awaits a backward any more.
    pub fn settle(&mut self, otherwise: Error) {
        self.awaiting = 0;
        self.otherwise = otherwise;
    }

    /// Whether the last forward is the only one that awaits a backward.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self) -> Result<(), Error> {
        match self.awaiting {
            0 => Err(self.otherwise.clone()),
            1 => Ok(()),
            forwards => Err(Error::BackwardAmbiguous { forwards }),
        }
    }
}

/// Where a forward writes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Output<'a> {
    /// A tensor made for this call.
    New(&'a Tensor),
    /// A tensor of the caller's, who may give it again.
    Given(&'a Tensor),
    /// Over x.
    InPlace,
}

impl<'a> Output<'a> {
    /// The tensor, where it is not x.
    pub fn tensor(self) -> Option<&'a Tensor> {
        match self {
            Output::New(y) | Output::Given(y) => Some(y),
            Output::InPlace => None,
        }
    }

    /// What to keep of it, if the call may come again: a new y cannot.
    pub fn kept(self) -> Option<Option<&'a Tensor>> {
        match self {
            Output::New(_) => None,
            Output::Given(y) => Some(Some(y)),
            Output::InPlace => Some(None),
        }
    }
}

/// A forward, and what backward needs of it.
#[derive(Debug)]
pub(super) struct Call {
    pub pass: Pass,
    pub x: Tensor,
    pub residual: Option<Tensor>,
    /// What forward's plan is bound to; backward takes what it saved from here, and only from here.
    pub tables: Tables,
    /// Where it may come again: y (None in place) and the bound plan.
    pub forward: Option<(Option<Tensor>, BoundPlan)>,
    /// The last backward into tensors of the caller's. It is bound to this call's tables, so it goes
    /// when they do.
    pub backward: Option<Backward>,
}

/// A backward into tensors of the caller's.
#[derive(Debug)]
pub(super) struct Backward {
    pub grad_y: Tensor,
    pub grad_x: Tensor,
    pub grad_residual: Option<Tensor>,
    pub bound: BoundPlan,
}

impl Call {
    /// The backward of this call with these tensors, if it is known. Tensors are equal where they are the
    /// same bytes of the same buffer, described alike.
    pub fn backward_again(
        &self,
        grad_y: &Tensor,
        grad_x: &Tensor,
        grad_residual: Option<&Tensor>,
    ) -> Option<&BoundPlan> {
        let known = self.backward.as_ref().filter(|known| {
            known.grad_y == *grad_y
                && known.grad_x == *grad_x
                && known.grad_residual.as_ref() == grad_residual
        });
        known.map(|known| &known.bound)
    }

    fn is(&self, key: &Key, x: &Tensor, residual: Option<&Tensor>, y: Option<&Tensor>) -> bool {
        let known = self.forward.as_ref();
        known.is_some_and(|(known, _)| known.as_ref() == y)
            && self.pass.key == *key
            && self.x == *x
            && self.residual.as_ref() == residual
    }
}

/// The recent calls, the last one first. The last one is always here, whether or not it may come again.
#[derive(Debug, Default)]
pub(super) struct Calls {
    calls: Vec<Call>,
}

impl Calls {
    /// The last forward.
    pub fn last(&self) -> Option<&Call> {
        self.calls.first()
    }

    /// The bound plan of a forward that was here before. It is the last one then.
    pub fn again(
        &mut self,
        key: &Key,
        x: &Tensor,
        residual: Option<&Tensor>,
        output: Output<'_>,
    ) -> Option<&BoundPlan> {
        let y = output.kept()?;
        let index = self
            .calls
            .iter()
            .position(|call| call.is(key, x, residual, y))?;
        self.calls[..=index].rotate_right(1);
        if index > 0 {
            self.drop_single(1);
        }
        let (_, bound) = self.calls.first()?.forward.as_ref()?;
        Some(bound)
    }

    /// Adds a forward, the last one from now on.
    pub fn push(&mut self, call: Call) {
        self.drop_single(0);
        self.calls.truncate(MAX_CALLS - 1);
        self.calls.insert(0, call);
    }

    /// After a backward of the last forward: its tables with those that backward added, for calls to come,
    /// and the backward itself, where it may come again.
    pub fn went_back(&mut self, tables: Tables, backward: Option<Backward>) {
        if let Some(last) = self.calls.first_mut() {
            last.tables = tables;
            last.backward = backward.or(last.backward.take());
        }
    }

    /// Drops the call that was the last one, if it cannot come again.
    fn drop_single(&mut self, index: usize) {
        if self.calls.get(index).is_some_and(|c| c.forward.is_none()) {
            self.calls.remove(index);
        }
    }
}
