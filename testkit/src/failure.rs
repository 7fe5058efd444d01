//! What keeps a problem from running.

use std::fmt;

/// What kept a problem from running.
#[derive(Debug)]
pub enum Failure {
    /// The library refused, or the device was lost.
    Library(bcnorm::Error),
    /// The data do not fit the norm, or what came out is not what a kernel wrote.
    Data(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Library(error) => error.fmt(f),
            Failure::Data(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for Failure {}

impl From<bcnorm::Error> for Failure {
    fn from(error: bcnorm::Error) -> Self {
        Failure::Library(error)
    }
}
