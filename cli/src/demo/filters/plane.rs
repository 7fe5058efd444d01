//! A plane of numbers, and what lies beyond its edges.

/// One value per pixel, row by row.
#[derive(Debug, Clone, PartialEq)]
pub struct Plane {
    /// Pixels per row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// The values.
    pub values: Vec<f32>,
}

impl Plane {
    /// A plane of zeros.
    pub fn zeros(width: usize, height: usize) -> Self {
        Self {
            width,
            height,
            values: vec![0.0; width * height],
        }
    }

    /// One row.
    pub fn row(&self, y: usize) -> &[f32] {
        &self.values[y * self.width..(y + 1) * self.width]
    }

    /// A plane of the same size, pixel by pixel.
    pub fn map(&self, f: impl Fn(f32) -> f32) -> Self {
        Self {
            values: self.values.iter().map(|&value| f(value)).collect(),
            ..*self
        }
    }

    /// Combines two planes of one size, pixel by pixel.
    pub fn zip(&self, other: &Plane, f: impl Fn(f32, f32) -> f32) -> Self {
        debug_assert_eq!(
            (self.width, self.height),
            (other.width, other.height),
            "planes of one size"
        );
        let pairs = self.values.iter().zip(&other.values);
        Self {
            values: pairs.map(|(&a, &b)| f(a, b)).collect(),
            ..*self
        }
    }
}

/// The index that stands for `index` in a line of `len`: mirrored at the edges, the edge value
/// repeated (`c b a | a b c | c b a`), as often as it takes.
pub fn reflect(index: isize, len: usize) -> usize {
    let period = 2 * len as isize;
    let index = index.rem_euclid(period) as usize;
    if index < len {
        index
    } else {
        2 * len - 1 - index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reflection_mirrors_at_both_edges() {
        let line: Vec<usize> = (-7..10).map(|i| reflect(i, 3)).collect();
        assert_eq!(line, [0, 0, 1, 2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0, 1, 2, 2]);
    }

    #[test]
    fn reflection_stays_within_a_single_pixel() {
        assert!((-50..50).all(|i| reflect(i, 1) == 0));
    }
}
