//! What a forward leaves for its backward, and the pool of tables that it lies in.

use super::args::Backward;
use super::pass::{Key, Pass};
use super::tensor::Tensor;
use crate::error::Error;
use crate::gpu::{BoundPlan, Tables};
use crate::plan::Plan;
use crate::role::RoleKind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Calls that are kept bound to one set of tables: tensors used in turn.
const MAX_CALLS: usize = 4;

/// What a forward saved for its backward: x, the residual, what the layer was set to, and tables of the layer's pool.
/// The tables return to the pool when backward takes the `Saved` or when it is dropped.
///
/// A forward without gradients or in place saves nothing. Its `Saved` holds no memory, and backward says why it cannot
/// go back.
#[derive(Debug)]
pub struct Saved {
    pool: Arc<Mutex<Pool>>,
    /// The number by which the pool knows it, or why nothing was saved.
    held: Result<u64, Error>,
}

impl Saved {
    /// Takes the tables of a workspace out of the pool.
    pub(super) fn of(pool: &Arc<Mutex<Pool>>, locked: &mut Pool, workspace: usize) -> Self {
        locked.lent += 1;
        locked.workspaces[workspace].holder = Some(locked.lent);
        Self {
            pool: pool.clone(),
            held: Ok(locked.lent),
        }
    }

    /// Gives the tables back, and says why backward cannot go back through that forward.
    pub(super) fn nothing(self, why: &'static str, way_out: &'static str) -> Self {
        Self {
            pool: self.pool.clone(),
            held: Err(Error::NothingSaved { why, way_out }),
        }
    }

    /// Its workspace in a layer's pool.
    ///
    /// # Errors
    /// [`Error::ForeignSaved`], [`Error::NothingSaved`].
    pub(super) fn workspace<'a>(
        &self,
        pool: &Arc<Mutex<Pool>>,
        locked: &'a mut Pool,
    ) -> Result<&'a mut Workspace, Error> {
        if !Arc::ptr_eq(&self.pool, pool) {
            return Err(Error::ForeignSaved);
        }
        let number = self.held.clone()?;
        let mut all = locked.workspaces.iter_mut();
        match all.find(|workspace| workspace.holder == Some(number)) {
            Some(workspace) => match &workspace.spoiled {
                Some(error) => Err(error.clone()),
                None => Ok(workspace),
            },
            // A holder is known as long as it lives.
            None => Err(Error::ForeignSaved),
        }
    }
}

impl Drop for Saved {
    fn drop(&mut self) {
        if let Ok(number) = self.held {
            lock(&self.pool).take_back(number);
        }
    }
}

/// The memory of a layer on the GPU, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Memory {
    /// Parameters, their gradients and running state.
    pub state: u64,
    /// Tables of the `Saved`s that live.
    pub saved: u64,
    /// Tables that wait in the pool for the next forward.
    pub idle: u64,
}

/// The pool. A panic elsewhere while the lock was held left it whole: a workspace has a holder or none.
pub(super) fn lock(pool: &Mutex<Pool>) -> MutexGuard<'_, Pool> {
    pool.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The tables of a layer: as many workspaces as there were `Saved`s at a time.
#[derive(Debug, Default)]
pub(super) struct Pool {
    pub workspaces: Vec<Workspace>,
    /// The number of the last `Saved`.
    lent: u64,
}

/// Tables, and the calls that are bound to them.
#[derive(Debug, Default)]
pub(super) struct Workspace {
    /// The `Saved` that has it.
    holder: Option<u64>,
    /// Why the holder can no longer go back, where something was written over what its backward reads.
    spoiled: Option<Error>,
    pub tables: Tables,
    /// The last call first: while there is a holder, its own.
    pub calls: Vec<Call>,
}

/// A forward.
#[derive(Debug)]
pub(super) struct Call {
    pub pass: Pass,
    pub x: Tensor,
    pub residual: Option<Tensor>,
    /// None in place.
    pub y: Option<Tensor>,
    /// None where it cannot come again, since y was made for it.
    pub bound: Option<BoundPlan>,
    /// The last backward into tensors of the caller's.
    pub backward: Option<BackwardCall>,
}

/// A backward into tensors of the caller's.
#[derive(Debug)]
pub(super) struct BackwardCall {
    pub grad_y: Tensor,
    pub grad_x: Tensor,
    pub grad_residual: Option<Tensor>,
    pub bound: BoundPlan,
}

impl Pool {
    /// An idle workspace to which a call is bound, and its plan. The call is the last one then.
    pub fn again(&mut self, is: impl Fn(&Call) -> bool) -> Option<(usize, &BoundPlan)> {
        let idle = self.workspaces.iter_mut().enumerate();
        let mut idle = idle.filter(|(_, workspace)| workspace.holder.is_none());
        let (index, workspace, call) = idle.find_map(|(index, workspace)| {
            let call = workspace.calls.iter().position(&is)?;
            Some((index, workspace, call))
        })?;
        workspace.calls[..=call].rotate_right(1);
        let bound = workspace.calls.first()?.bound.as_ref()?;
        Some((index, bound))
    }

    /// An idle workspace for a plan: one whose tables are large enough, where there is one.
    pub fn idle(&mut self, plan: &Plan) -> usize {
        let fits = |workspace: &Workspace| {
            let tables = plan
                .needs()
                .iter()
                .filter(|need| need.role.kind() != RoleKind::Caller);
            let mut sizes = tables.map(|need| (workspace.tables.get(need.role), need.bytes));
            sizes.all(|(table, bytes)| table.is_some_and(|table| table.size() >= bytes))
        };
        let idle = self.workspaces.iter().enumerate();
        let idle = idle.filter(|(_, workspace)| workspace.holder.is_none());
        match idle.max_by_key(|(_, workspace)| fits(workspace)) {
            Some((index, _)) => index,
            None => {
                self.workspaces.push(Workspace::default());
                self.workspaces.len() - 1
            }
        }
    }

    /// Notes that a tensor was written: what has read it can no longer go back.
    pub fn wrote(&mut self, tensor: &Tensor) {
        for workspace in &mut self.workspaces {
            if let (Some(_), Some(call)) = (workspace.holder, workspace.calls.first()) {
                let mut read = [Some(&call.x), call.residual.as_ref()]
                    .into_iter()
                    .flatten();
                if read.any(|read| read.overlaps(tensor)) {
                    workspace.spoiled = Some(Error::NothingSaved {
                        why: "whose x or residual a later call of the layer wrote over",
                        way_out: "give that call another tensor to write to",
                    });
                }
            }
        }
    }

    /// Notes that parameters were loaded: what reads weight in backward can no longer go back. (With a channel part, tables
    /// have what backward needs of it.)
    pub fn loaded(&mut self) {
        for workspace in &mut self.workspaces {
            if let (Some(_), Some(call)) = (workspace.holder, workspace.calls.first()) {
                let Key { norm, mode, .. } = &call.pass.key;
                if norm.backward_reads_weight(*mode) {
                    workspace.spoiled = Some(Error::NothingSaved {
                        why: "whose weight, which backward reads, was loaded over since",
                        way_out: "load parameters after backward",
                    });
                }
            }
        }
    }

    fn take_back(&mut self, number: u64) {
        let mut all = self.workspaces.iter_mut();
        if let Some(workspace) = all.find(|workspace| workspace.holder == Some(number)) {
            workspace.holder = None;
            workspace.spoiled = None;
            if workspace
                .calls
                .first()
                .is_some_and(|call| call.bound.is_none())
            {
                workspace.calls.remove(0);
            }
        }
    }

    /// Bytes of the tables that are held, or of those that are idle.
    pub fn bytes(&self, held: bool) -> u64 {
        let all = self.workspaces.iter();
        let such = all.filter(|workspace| workspace.holder.is_some() == held);
        such.map(|workspace| workspace.tables.bytes()).sum()
    }

    /// Drops what no `Saved` holds.
    pub fn release(&mut self) {
        self.workspaces
            .retain(|workspace| workspace.holder.is_some());
        for workspace in &mut self.workspaces {
            workspace.calls.truncate(1);
        }
    }
}

impl Call {
    /// Whether it is this call, with these tensors. Tensors are equal where they are the same bytes of the same buffer,
    /// described alike.
    pub fn is(&self, key: &Key, x: &Tensor, residual: Option<&Tensor>, y: Option<&Tensor>) -> bool {
        self.bound.is_some()
            && self.y.as_ref() == y
            && self.pass.key == *key
            && self.x == *x
            && self.residual.as_ref() == residual
    }
}

impl BackwardCall {
    /// Whether it is the call with these tensors.
    pub fn is(&self, args: &Backward<'_>) -> bool {
        self.grad_y == *args.grad_y
            && Some(&self.grad_x) == args.grad_x
            && self.grad_residual.as_ref() == args.grad_residual
    }
}

impl Workspace {
    /// Sets the tables. Where one of them had to grow, the calls from `kept` on are bound to what was there before, and
    /// are dropped.
    pub fn set_tables(&mut self, tables: Tables, kept: usize) {
        let same = |(role, table)| tables.get(role) == Some(table);
        if !self.tables.iter().all(same) {
            self.calls.truncate(kept);
        }
        self.tables = tables;
    }

    /// Adds a call, the last one from now on.
    pub fn push(&mut self, call: Call) {
        self.calls.truncate(MAX_CALLS - 1);
        self.calls.insert(0, call);
    }
}
