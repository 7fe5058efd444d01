//! Errors as JavaScript sees them.

use bcnorm::Error;
use wasm_bindgen::prelude::*;

// js-sys would have it, at 20 kB.
#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_name = Error)]
    type JsError;
    #[wasm_bindgen(constructor, js_class = "Error")]
    fn new(message: &str) -> JsError;
    #[wasm_bindgen(method, setter)]
    fn set_name(this: &JsError, name: &str);
}

/// What went wrong: a code of `web/src/errors.ts`, and the library's own message.
pub struct Failure {
    code: &'static str,
    message: String,
}

impl Failure {
    pub fn new(code: &'static str, message: String) -> Self {
        Self { code, message }
    }

    /// A name that there is not. (Those that there are, `web/src` knows.)
    pub fn unknown(code: &'static str, what: &str, name: &str) -> Self {
        Self::new(code, format!("there is no {what} \"{name}\""))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::Rank { .. }
            | Error::TooManyElements { .. }
            | Error::Shape { .. }
            | Error::Storage { .. }
            | Error::Length { .. } => "tensor",
            Error::NoChannels
            | Error::Groups { .. }
            | Error::ChannelMismatch { .. }
            | Error::Parameter { .. }
            | Error::Stats { .. }
            | Error::OneValuePerChannel { .. } => "norm",
            Error::Missing { .. }
            | Error::BufferTooSmall { .. }
            | Error::Misaligned { .. }
            | Error::Usage { .. }
            | Error::WrongDevice { .. }
            | Error::Aliasing { .. } => "buffer",
            Error::Limit { .. } => "limit",
            Error::StateDict { .. } | Error::Checkpoint { .. } => "state-dict",
            Error::Tuning { .. } => "tuning",
            Error::NoAdapter => "no-adapter",
            Error::Device { .. } => "device-lost",
            _ => "order",
        };
        Self::new(code, error.to_string())
    }
}

impl From<Failure> for JsValue {
    fn from(failure: Failure) -> Self {
        let error = JsError::new(&failure.message);
        error.set_name(failure.code);
        error.into()
    }
}
