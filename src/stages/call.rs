//! A step as the CPU's kernels take it.

use super::activation::Recompute;
use super::element::Element;
use crate::desc::Activation;
use bytemuck::Pod;

/// What a kernel asks of the specialization, and the memory of each binding that is there, by its name.
pub struct Call<'a> {
    /// Elements of a word.
    pub width: u32,
    /// Whether rows (with channels last, positions) begin at words.
    pub aligned: bool,
    /// Whether the gradient of x is added to what is there.
    pub accumulate: bool,
    /// What the second pass applies.
    pub activation: Activation,
    /// Elements of a tensor.
    pub elements: usize,
    /// What is read.
    pub reads: Vec<(&'static str, &'a [u32])>,
    /// What is written, until it is taken.
    pub writes: Vec<(&'static str, &'a mut [u32])>,
}

impl<'a> Call<'a> {
    /// A tensor that is read.
    pub fn tensor<T: Element>(&self, name: &str) -> &'a [T] {
        there(self.optional_tensor(name), name)
    }

    /// A tensor that is read, if it is bound.
    pub fn optional_tensor<T: Element>(&self, name: &str) -> Option<&'a [T]> {
        let tensor = |u32s: &'a [u32]| &bytemuck::cast_slice::<u32, T>(u32s)[..self.elements];
        self.u32s(name).map(tensor)
    }

    /// A table or a parameter that is read.
    pub fn table<E: Pod>(&self, name: &str) -> &'a [E] {
        there(self.optional_table(name), name)
    }

    /// A table or a parameter that is read, if it is bound.
    pub fn optional_table<E: Pod>(&self, name: &str) -> Option<&'a [E]> {
        self.u32s(name).map(bytemuck::cast_slice)
    }

    /// Takes a tensor that is written, its padding set to 0.
    pub fn tensor_mut<T: Element>(&mut self, name: &str) -> &'a mut [T] {
        there(self.optional_tensor_mut(name), name)
    }

    /// Takes a tensor that is written, if it is bound.
    pub fn optional_tensor_mut<T: Element>(&mut self, name: &str) -> Option<&'a mut [T]> {
        let u32s = self.take(name)?;
        let values = bytemuck::cast_slice_mut::<u32, T>(u32s);
        let (tensor, padding) = values.split_at_mut(self.elements);
        padding.fill(T::from_f32(0.0));
        Some(tensor)
    }

    /// Takes a table or a parameter that is written.
    pub fn table_mut<E: Pod>(&mut self, name: &str) -> &'a mut [E] {
        there(self.optional_table_mut(name), name)
    }

    /// Takes a table or a parameter that is written, if it is bound.
    pub fn optional_table_mut<E: Pod>(&mut self, name: &str) -> Option<&'a mut [E]> {
        self.take(name).map(bytemuck::cast_slice_mut)
    }

    /// What backward recomputes of a fused activation.
    pub fn recompute<T: Element>(&self) -> Option<Recompute<'a, T>> {
        let coefficients = self.optional_table("coefficients")?;
        Some(Recompute {
            activation: self.activation,
            coefficients,
            residual: self.optional_tensor("residual"),
        })
    }

    fn u32s(&self, name: &str) -> Option<&'a [u32]> {
        let mut named = self.reads.iter().filter(|(bound, _)| *bound == name);
        named.next().map(|&(_, u32s)| u32s)
    }

    fn take(&mut self, name: &str) -> Option<&'a mut [u32]> {
        let index = self.writes.iter().position(|(bound, _)| *bound == name)?;
        Some(self.writes.swap_remove(index).1)
    }
}

/// The planner binds what a kernel declares (`tests/suite/reflection`), and a declaration asks for no other.
fn there<S>(slice: Option<S>, name: &str) -> S {
    slice.unwrap_or_else(|| unreachable!("{name} is not bound"))
}
