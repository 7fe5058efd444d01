//! The demo's pictures.

mod canvas;
mod histogram;
mod mosaic;
mod number;
mod text;
mod tone;

pub use histogram::{Panel, Plot, histograms};
pub use mosaic::{Block, Sheet, Tile, mosaic, photographs};
pub use number::{measured, short};
pub use tone::Tone;
