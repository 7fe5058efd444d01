//! Moments and products of [`TILE`] sets of one size side by side: an array for each field, which becomes
//! vector registers.
//!
//! The CPU executor has no lanes of invocations but lanes of vectors. With channels last a lane is a channel. A long row is read in lines of 16,
//! each lane has every sixteenth value in chunks of 8, and the lanes are merged in halves at the end; a short row
//! (256 elements at most) has a lane to itself. So merges and their divisions are vector instructions. The loops
//! are plain Rust, compiled for the least processor, for AVX2 and for AVX-512, and the processor is asked which it
//! runs (`src/cpu/vector.rs`; the crate `fearless_simd` holds the one unsafe call that this takes, default feature
//! `simd`). The bits are the same: same order, no contraction (tested). Each stage cuts its items into one range a
//! thread; a walk of the second pass in the reverse order of the first was measured, and gains nothing here.

use crate::stages::moments::{larger, shares};
use crate::tables::{Moments, Products};

/// Sets computed at once.
pub(super) const TILE: usize = 16;

/// A value of each set.
pub(super) type Tile = [f32; TILE];

/// Values of each set that are taken about a pivot of their own, before they are merged with the others.
pub(super) const CHUNK: usize = 8;

/// A field of the entries of a tile's rows.
#[inline(always)]
pub(super) fn gather<E>(entries: &[E], field: impl Fn(&E) -> f32) -> Tile {
    let mut tile = [0.0; TILE];
    for (out, entry) in tile.iter_mut().zip(entries) {
        *out = field(entry);
    }
    tile
}

/// Where a chunk of fewer than [`CHUNK`] values ends, the first one stands again.
#[inline(always)]
pub(super) fn or_first(k: usize, count: usize) -> usize {
    if k < count { k } else { 0 }
}

/// Sum over a chunk in the order of the kernels.
#[inline(always)]
fn tree_sum(v: [f32; CHUNK]) -> f32 {
    ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7]))
}

/// The lanes in another order: those of the upper half (quarter, ...) where those of the lower one were.
#[inline(always)]
fn rotated(tile: &Tile, by: usize) -> Tile {
    std::array::from_fn(|c| tile[(c + by) % TILE])
}

/// The mean of the union of two sets in each lane, and what their spreads need of it.
struct Union {
    /// The mean of b less the mean of a.
    delta: Tile,
    /// The shares of a and of b in the union.
    share_a: f32,
    share_b: f32,
}

/// Puts a's mean to the mean of the union: as in moments.rs, relative to the better pivot in each lane.
/// Neither set may be empty.
#[inline(always)]
fn unite(
    (a_count, a_pivot, a_offset): (u32, &mut Tile, &mut Tile),
    (b_count, b_pivot, b_offset): (u32, &Tile, &Tile),
) -> Union {
    let [share_a, share_b] = shares(a_count, b_count);
    let mut delta = [0.0; TILE];
    for c in 0..TILE {
        let (a, b) = (a_offset[c], b_offset[c]);
        let d = (b_pivot[c] - a_pivot[c]) + (b - a);
        let (to_a, to_b) = (d * share_b, d * share_a);
        let keep_a = larger(a.abs(), to_a.abs()) <= larger(b.abs(), to_b.abs());
        a_pivot[c] = if keep_a { a_pivot[c] } else { b_pivot[c] };
        a_offset[c] = if keep_a { a + to_a } else { b - to_b };
        delta[c] = d;
    }
    Union {
        delta,
        share_a,
        share_b,
    }
}

/// Moments of sets of one size.
#[derive(Clone, Copy, Default)]
pub(super) struct TileMoments {
    count: u32,
    pivot: Tile,
    offset: Tile,
    variance: Tile,
}

impl TileMoments {
    /// Exact local mean about the chunk's first value, then squared differences from it, divided by 4 first as in
    /// the kernels. `x(k, c)` is value k
    /// of lane c; behind `count` of them, the first one again.
    #[inline(always)]
    pub fn of_chunk(count: usize, x: impl Fn(usize, usize) -> f32) -> Self {
        let mut chunk = Self {
            count: count as u32,
            ..Self::default()
        };
        let n = count as f32;
        for c in 0..TILE {
            let pivot = x(0, c);
            let differences: [f32; CHUNK] = std::array::from_fn(|k| x(k, c) - pivot);
            let offset = tree_sum(differences) / n;
            let squares = std::array::from_fn(|k| {
                let e = 0.25 * differences[k] - 0.25 * offset;
                if k < count { e * e } else { 0.0 }
            });
            chunk.pivot[c] = pivot;
            chunk.offset[c] = offset;
            chunk.variance[c] = tree_sum(squares) * (16.0 / n);
        }
        chunk
    }

    /// With the moments of other values, of which there is at least one.
    #[inline(always)]
    pub fn merge(&mut self, b: &Self) {
        if self.count == 0 {
            *self = *b;
            return;
        }
        let both = unite(
            (self.count, &mut self.pivot, &mut self.offset),
            (b.count, &b.pivot, &b.offset),
        );
        self.count += b.count;
        for c in 0..TILE {
            let within = self.variance[c] * both.share_a + b.variance[c] * both.share_b;
            let (to_a, to_b) = (both.delta[c] * both.share_b, both.delta[c] * both.share_a);
            self.variance[c] = within + to_a * to_b;
        }
    }

    /// Of sets of one size, as they are without a spread.
    #[inline(always)]
    pub fn of_means(count: u32, pivot: Tile, offset: Tile) -> Self {
        Self {
            count,
            pivot,
            offset,
            ..Self::default()
        }
    }

    /// Of sets of one size.
    #[inline(always)]
    pub fn of(sets: &[Moments; TILE]) -> Self {
        Self {
            count: sets[0].count,
            pivot: gather(sets, |set| set.pivot),
            offset: gather(sets, |set| set.offset),
            variance: gather(sets, |set| set.variance),
        }
    }

    /// The moments of one set.
    #[inline(always)]
    pub fn lane(&self, c: usize) -> Moments {
        Moments {
            count: self.count,
            pivot: self.pivot[c],
            offset: self.offset[c],
            variance: self.variance[c],
        }
    }

    /// The moments of all sets together: halves merged, four times over.
    #[inline(always)]
    pub fn all(mut self) -> Moments {
        if self.count == 0 {
            return Moments::default();
        }
        for by in [8, 4, 2, 1] {
            self.merge(&Self {
                count: self.count,
                pivot: rotated(&self.pivot, by),
                offset: rotated(&self.offset, by),
                variance: rotated(&self.variance, by),
            });
        }
        self.lane(0)
    }
}

/// Products of sets of one size.
#[derive(Clone, Copy, Default)]
pub(super) struct TileProducts {
    count: u32,
    pivot: Tile,
    offset: Tile,
    x_mean: Tile,
    covariance: Tile,
}

impl TileProducts {
    /// dy (`grad`) about the chunk's first one, and x less its mean (`u`); both as with
    /// [`TileMoments::of_chunk`].
    #[inline(always)]
    pub fn of_chunk(
        count: usize,
        u: impl Fn(usize, usize) -> f32,
        grad: impl Fn(usize, usize) -> f32,
    ) -> Self {
        let mut chunk = Self {
            count: count as u32,
            ..Self::default()
        };
        let n = count as f32;
        for c in 0..TILE {
            let pivot = grad(0, c);
            let v: [f32; CHUNK] = std::array::from_fn(|k| grad(k, c) - pivot);
            let u: [f32; CHUNK] = std::array::from_fn(|k| if k < count { u(k, c) } else { 0.0 });
            let offset = tree_sum(v) / n;
            let u_sum = tree_sum(u);
            chunk.pivot[c] = pivot;
            chunk.offset[c] = offset;
            chunk.x_mean[c] = u_sum / n;
            let product = tree_sum(std::array::from_fn(|k| v[k] * u[k]));
            chunk.covariance[c] = (product - offset * u_sum) / n;
        }
        chunk
    }

    /// With the products of other values, of which there is at least one.
    #[inline(always)]
    pub fn merge(&mut self, b: &Self) {
        if self.count == 0 {
            *self = *b;
            return;
        }
        let both = unite(
            (self.count, &mut self.pivot, &mut self.offset),
            (b.count, &b.pivot, &b.offset),
        );
        self.count += b.count;
        for c in 0..TILE {
            let to_x = (b.x_mean[c] - self.x_mean[c]) * both.share_b;
            let within = self.covariance[c] * both.share_a + b.covariance[c] * both.share_b;
            self.x_mean[c] += to_x;
            self.covariance[c] = within + (both.delta[c] * both.share_a) * to_x;
        }
    }

    /// The products of one set.
    #[inline(always)]
    pub fn lane(&self, c: usize) -> Products {
        Products {
            count: self.count,
            pivot: self.pivot[c],
            offset: self.offset[c],
            x_mean: self.x_mean[c],
            covariance: self.covariance[c],
        }
    }

    /// The products of all sets together: halves merged, four times over.
    #[inline(always)]
    pub fn all(mut self) -> Products {
        if self.count == 0 {
            return Products::default();
        }
        for by in [8, 4, 2, 1] {
            self.merge(&Self {
                count: self.count,
                pivot: rotated(&self.pivot, by),
                offset: rotated(&self.offset, by),
                x_mean: rotated(&self.x_mean, by),
                covariance: rotated(&self.covariance, by),
            });
        }
        self.lane(0)
    }
}
