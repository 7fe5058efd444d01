//! The demo's pictures: paper to draw on, sheets of maps, pages of histograms. All of it is drawn by hand: no
//! crate of charts has these panels, and what is left besides is filling rectangles.

mod canvas;
mod histogram;
mod mosaic;
mod scale;

pub use canvas::Canvas;
pub use histogram::{Panel, Plot, histograms};
pub use mosaic::{Block, Sheet, Tile, mosaic, photographs};
pub use scale::{Tone, measured, short};
