//! What wgpu does not say of a device: whether two handles are one device, whether it is lost, and, where
//! something is made, what it objects to.

use crate::error::{Error, Source};
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
#[cfg(not(target_arch = "wasm32"))]
use std::sync::{Mutex, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

/// A device as the library knows it. wgpu compares handles by ids that each `wgpu::Instance` counts for
/// itself: a buffer of one instance's device passes for whichever buffer has its id in another's, and is
/// computed with in its place. So everything that the library makes carries the owner that it was made for.
///
/// All owners of a device are one `Arc`, for as long as one of them lives.
#[derive(Debug, Clone)]
pub(crate) struct Owner(Arc<wgpu::Device>);

impl PartialEq for Owner {
    fn eq(&self, other: &Self) -> bool {
        // A browser has no instances: wgpu's own comparison holds there.
        Arc::ptr_eq(&self.0, &other.0) || cfg!(target_arch = "wasm32") && self.0 == other.0
    }
}

impl Owner {
    /// The owner that a device is.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn of(device: &wgpu::Device) -> Self {
        static KNOWN: Mutex<Vec<Weak<wgpu::Device>>> = Mutex::new(Vec::new());
        // A panic elsewhere while the lock was held left the list whole.
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        let alive: Vec<_> = known.iter().filter_map(Weak::upgrade).collect();
        let found = alive.iter().find(|known| same(known, device)).cloned();
        let owner = found.unwrap_or_else(|| Arc::new(device.clone()));
        *known = alive.iter().map(Arc::downgrade).collect();
        if !alive.iter().any(|known| Arc::ptr_eq(known, &owner)) {
            known.push(Arc::downgrade(&owner));
        }
        // What drops with the last owner, a device and its callbacks, must not find the lock held.
        drop(known);
        Self(owner)
    }

    /// The owner that a device is.
    #[cfg(target_arch = "wasm32")]
    pub fn of(device: &wgpu::Device) -> Self {
        Self(Arc::new(device.clone()))
    }

    /// The device.
    pub fn device(&self) -> &wgpu::Device {
        &self.0
    }

    /// Refuses what belongs to another device.
    ///
    /// # Errors
    /// [`Error::WrongDevice`].
    pub fn check(&self, other: &Owner, what: impl fmt::Display) -> Result<(), Error> {
        if self == other {
            return Ok(());
        }
        Err(Error::WrongDevice {
            what: what.to_string(),
        })
    }
}

/// Whether two handles are one device. Of two handles with one id, error scopes tell: they are a stack that
/// belongs to the device, and the last one pushed hears of an error.
#[cfg(not(target_arch = "wasm32"))]
fn same(a: &wgpu::Device, b: &wgpu::Device) -> bool {
    if a != b {
        return false;
    }
    let outer = b.push_error_scope(wgpu::ErrorFilter::Validation);
    let inner = a.push_error_scope(wgpu::ErrorFilter::Validation);
    provoke(b);
    let (inner, outer) = (now(inner.pop()), now(outer.pop()));
    match (inner, outer) {
        (Some(_), _) => true,
        (None, Some(_)) => false,
        // A lost device says nothing. No live one is the same device; with another lost one nothing can be
        // computed, right or wrong.
        (None, None) => is_lost(a),
    }
}

/// Whether a device is lost: it objects to nothing then. In a browser nothing is known at once.
pub(super) fn is_lost(device: &wgpu::Device) -> bool {
    if cfg!(target_arch = "wasm32") {
        return false;
    }
    let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
    provoke(device);
    now(scope.pop()).is_none()
}

/// Asks for a buffer that may be used for nothing, which every device that is not lost refuses.
fn provoke(device: &wgpu::Device) {
    drop(device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("bcnorm probe"),
        size: 4,
        usage: wgpu::BufferUsages::empty(),
        mapped_at_creation: false,
    }));
}

/// Runs what makes objects of a device, natively with error scopes around: what the device objects to, lack
/// of memory too, and its loss, of which wgpu says nothing here, become errors. Without them objections go to
/// the device's handler, which panics unless the caller set another one. In a browser scopes answer only
/// later: errors there go to the device's `uncapturederror` event.
///
/// # Errors
/// Those of `make`, and [`Error::Device`].
pub(crate) fn guarded<T>(
    device: &wgpu::Device,
    what: impl fmt::Display,
    make: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Error> {
    if cfg!(target_arch = "wasm32") {
        return make();
    }
    let scopes = [
        wgpu::ErrorFilter::OutOfMemory,
        wgpu::ErrorFilter::Internal,
        wgpu::ErrorFilter::Validation,
    ]
    .map(|filter| device.push_error_scope(filter));
    let made = make();
    let mut objection = None;
    for scope in scopes.into_iter().rev() {
        let heard = now(scope.pop());
        objection = objection.or(heard);
    }
    if is_lost(device) {
        return Err(lost(what));
    }
    match objection {
        Some(error) => Err(failed(what, error)),
        None => made,
    }
}

/// The error of a lost device.
pub(super) fn lost(what: impl fmt::Display) -> Error {
    Error::Device {
        what: format!("{what}: the device was lost"),
        source: None,
    }
}

/// What wgpu says of a failure, as an error.
pub(super) fn failed(what: impl fmt::Display, error: impl Into<Source>) -> Error {
    Error::Device {
        what: what.to_string(),
        source: Some(error.into()),
    }
}

/// What an error scope heard: natively it answers at once.
fn now<T>(answer: impl Future<Output = Option<T>>) -> Option<T> {
    match Future::poll(pin!(answer), &mut Context::from_waker(Waker::noop())) {
        Poll::Ready(heard) => heard,
        Poll::Pending => None,
    }
}
