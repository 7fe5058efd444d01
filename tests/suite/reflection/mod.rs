//! The two sides of everything that is written twice: kernels' declarations against what naga reads
//! from their WGSL, structs against their layout, files against lists, plans against the loops and
//! indices of the kernels that run them. And what naga does not check: barriers in uniform control
//! flow, loads in the arms of `select`, components of vectors chosen by an index. Needs no GPU.
#![allow(missing_docs)]

mod asked;
mod components;
mod elements;
mod files;
mod flow;
mod iterations;
mod kernels;
mod refusals;
mod select;
mod specs;
mod steps;
mod structs;
