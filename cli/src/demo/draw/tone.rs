//! From numbers to colours.

use super::canvas::{Colour, WHITE};

/// How a value is shown.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Tone {
    /// Black at `low`, white at `high`.
    Gray {
        /// Shown black, and all below it.
        low: f32,
        /// Shown white, and all above it.
        high: f32,
    },
    /// White at 0, blue at `-limit`, red at `limit`.
    Signed {
        /// Where colours are full.
        limit: f32,
    },
}

const NOT_A_NUMBER: Colour = [255, 0, 255];
const RED: Colour = [178, 24, 43];
const BLUE: Colour = [33, 102, 172];

impl Tone {
    /// The colour of a value. NaN is magenta, which nothing else is.
    pub fn colour(self, value: f32) -> Colour {
        if value.is_nan() {
            return NOT_A_NUMBER;
        }
        match self {
            Tone::Gray { low, high } => {
                let share = share(
                    f64::from(value) - f64::from(low),
                    f64::from(high) - f64::from(low),
                );
                [(255.0 * share).round() as u8; 3]
            }
            Tone::Signed { limit } => {
                let share = share(f64::from(value).abs(), limit.into());
                let full = if value < 0.0 { BLUE } else { RED };
                mix(WHITE, full, share)
            }
        }
    }

    /// The values at the two ends.
    pub fn ends(self) -> (f32, f32) {
        match self {
            Tone::Gray { low, high } => (low, high),
            Tone::Signed { limit } => (-limit, limit),
        }
    }
}

/// Part of the whole, 0 to 1; 0 of an empty whole.
fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 {
        (part / whole).clamp(0.0, 1.0)
    } else {
        0.0
    }
}

fn mix(from: Colour, to: Colour, share: f64) -> Colour {
    std::array::from_fn(|i| {
        let (from, to) = (f64::from(from[i]), f64::from(to[i]));
        (from + share * (to - from)).round() as u8
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gray_runs_from_low_to_high() {
        let tone = Tone::Gray {
            low: -3.0,
            high: 3.0,
        };
        let tones = [-9.0, -3.0, 0.0, 3.0, f32::INFINITY].map(|value| tone.colour(value)[0]);
        assert_eq!(tones, [0, 0, 128, 255, 255]);
    }

    #[test]
    fn signs_have_their_colours() {
        let tone = Tone::Signed { limit: 2.0 };
        assert_eq!(tone.colour(0.0), WHITE);
        assert_eq!(tone.colour(-2.0), BLUE);
        assert_eq!(tone.colour(5.0), RED);
    }

    #[test]
    fn an_empty_scale_and_a_nan_have_a_colour() {
        let empty = Tone::Gray {
            low: 1.0,
            high: 1.0,
        };
        assert_eq!(empty.colour(1.0), [0; 3]);
        assert_eq!(Tone::Signed { limit: 0.0 }.colour(0.0), WHITE);
        assert_eq!(empty.colour(f32::NAN), NOT_A_NUMBER);
    }
}
