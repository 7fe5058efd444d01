//! Where time per byte jumps from one shape to the next: rows of every length, and random shapes.

use super::{Direction, report::Measurement};
use crate::table::{Table, title};
use fastrand::Rng;
use serde::Serialize;
use std::fmt;

/// A part of the suite.
#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// L = 1 to 257 one by one, 64 channels, 2 MB.
    Scan,
    /// 300 random shapes of 0.5 to 16 MB.
    Random,
}

impl Part {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Part::Scan => "scan",
            Part::Random => "random",
        }
    }
}

/// Rows of the scan have 1 to so many elements.
pub const SCAN: usize = 257;
/// Channels of the scan's tensors.
const SCAN_CHANNELS: usize = 64;
/// Elements of the scan's tensors: 2 MB of f32.
const SCAN_ELEMENTS: usize = 1 << 19;
/// How many random shapes.
const RANDOM: usize = 300;
/// Elements of the random ones: 0.5 to 16 MB of f32.
const RANDOM_ELEMENTS: [usize; 2] = [1 << 17, 1 << 22];
/// Most channels of the random ones.
const RANDOM_CHANNELS: usize = 2048;
/// How many of the worst are listed.
const WORST: usize = 10;

/// The shapes of both parts.
pub fn shapes(seed: u64) -> Vec<(Option<Part>, Vec<usize>)> {
    let scan = (1..=SCAN).map(|len| {
        let samples = (SCAN_ELEMENTS as f64 / (SCAN_CHANNELS * len) as f64).round();
        vec![(samples as usize).max(1), SCAN_CHANNELS, len]
    });
    let scan = scan.map(|dims| (Some(Part::Scan), dims));
    let mut random = Rng::with_seed(seed);
    let drawn = (0..RANDOM).map(|_| (Some(Part::Random), draw(&mut random).to_vec()));
    scan.chain(drawn).collect()
}

/// A random shape (N, C, H, W): log-uniform in its size and in each of its sizes, two thirds of which are made
/// odd or prime.
fn draw(random: &mut Rng) -> [usize; 4] {
    let [least, most] = RANDOM_ELEMENTS.map(|n| n as f64);
    loop {
        let mut log_uniform = |low: f64, high: f64| low * (high / low).powf(random.f64());
        let elements = log_uniform(least, most);
        let channels = log_uniform(1.0, RANDOM_CHANNELS as f64 + 1.0).floor();
        let rest = elements / channels;
        let mut cuts = [random.f64(), random.f64()];
        cuts.sort_by(f64::total_cmp);
        let [n, h, w] = [cuts[0], cuts[1] - cuts[0], 1.0 - cuts[1]].map(|share| rest.powf(share));
        let sizes = [n, channels, h, w].map(|size| {
            let size = (size.round() as usize).max(1);
            match random.u8(..3) {
                0 => size | 1,
                1 => (size..).find(|&n| is_prime(n)).unwrap_or(size),
                _ => size,
            }
        });
        let [n, c, h, w] = sizes;
        let fits = (RANDOM_ELEMENTS[0]..=RANDOM_ELEMENTS[1]).contains(&(n * c * h * w));
        if fits && c <= RANDOM_CHANNELS && n * h * w > 1 {
            return sizes;
        }
    }
}

fn is_prime(n: usize) -> bool {
    let mut divisors = (2..).take_while(|d| d * d <= n);
    n >= 2 && divisors.all(|d| !n.is_multiple_of(d))
}

/// Nanoseconds a byte that must move: 3 transfers forward and in eval, 5 backward, whatever the plan makes
/// of it.
pub fn ns_per_byte(measurement: &Measurement) -> f64 {
    let transfers = match measurement.direction {
        "backward" => 5,
        _ => 3,
    };
    1e6 * measurement.ms / (transfers * measurement.tensor_bytes) as f64
}

/// A copy that takes so many times the median per byte says that the machine was busy with something else.
const BUSY: f64 = 1.3;

/// Which measurements of one machine and part should be made again, lest a busy moment of the machine pass
/// for a cliff: the worst of each direction, both ends of the scan's largest jumps, and those of the scan
/// whose copy was slow, though all are of one size. Indices into `measured`.
pub fn doubtful(measured: &[&Measurement], part: Part) -> Vec<usize> {
    let mut indices = Vec::new();
    let copy = |m: &Measurement| m.copy_ms / m.copy_bytes as f64;
    let copies: Vec<f64> = measured.iter().map(|m| copy(m)).collect();
    let busy = BUSY * super::timing::median(&copies);
    for direction in Direction::ALL {
        let mut of: Vec<usize> = (0..measured.len())
            .filter(|&i| measured[i].direction == direction.name())
            .collect();
        if part == Part::Scan {
            indices.extend(of.iter().copied().filter(|&i| copies[i] > busy));
            let mut jumps: Vec<[usize; 2]> = of.windows(2).map(|pair| [pair[0], pair[1]]).collect();
            let jump = |&[a, b]: &[usize; 2]| ratio(measured[a], measured[b]);
            jumps.sort_by(|a, b| jump(b).total_cmp(&jump(a)));
            indices.extend(jumps.into_iter().take(WORST).flatten());
        }
        of.sort_by(|&a, &b| ns_per_byte(measured[b]).total_cmp(&ns_per_byte(measured[a])));
        indices.extend(of.into_iter().take(WORST));
    }
    indices.sort_unstable();
    indices.dedup();
    indices
}

/// By how much two differ per element, 1 or more.
fn ratio(a: &Measurement, b: &Measurement) -> f64 {
    let ratio = ns_per_byte(a) / ns_per_byte(b);
    ratio.max(1.0 / ratio)
}

/// What one part of the suite showed in one direction on one adapter.
#[derive(Debug, Serialize)]
pub struct Summary {
    summary: &'static str,
    suite: &'static str,
    adapter: String,
    backend: String,
    dtype: &'static str,
    layout: &'static str,
    norm: &'static str,
    direction: &'static str,
    shapes: usize,
    median_ns_per_byte: f64,
    worst_ns_per_byte: f64,
    /// The worst over the median.
    worst_ratio: f64,
    /// The median of the times in copies of the same tensor.
    median_ratio_to_copy: f64,
    worst_ratio_to_copy: f64,
    worst: Vec<Worst>,
    /// Of the scan: the largest jump from one L to the next, per element.
    #[serde(skip_serializing_if = "Option::is_none")]
    worst_neighbours: Option<Neighbours>,
}

#[derive(Debug, Serialize)]
struct Worst {
    shape: Vec<usize>,
    groups: usize,
    ms: f64,
    ns_per_byte: f64,
    ratio_to_median: f64,
    ratio_to_copy: f64,
}

#[derive(Debug, Serialize)]
struct Neighbours {
    ratio: f64,
    shapes: [Vec<usize>; 2],
}

impl Summary {
    /// Of measurements of one machine, part and direction, in the order of the suite; none of none.
    pub fn of(measured: &[&Measurement], part: Part) -> Option<Self> {
        let first = measured.first()?;
        let mut sorted = measured.to_vec();
        sorted.sort_by(|a, b| ns_per_byte(b).total_cmp(&ns_per_byte(a)));
        let middle = |values: Vec<f64>| super::timing::median(&values);
        let median = middle(measured.iter().map(|m| ns_per_byte(m)).collect());
        let copies: Vec<f64> = measured.iter().map(|m| m.ratio_to_copy).collect();
        let worst = ns_per_byte(sorted[0]);
        let of_worst = |m: &Measurement| Worst {
            shape: m.shape.clone(),
            groups: m.groups,
            ms: m.ms,
            ns_per_byte: ns_per_byte(m),
            ratio_to_median: ns_per_byte(m) / median,
            ratio_to_copy: m.ratio_to_copy,
        };
        let neighbours = measured.windows(2).map(|pair| Neighbours {
            ratio: ratio(pair[0], pair[1]),
            shapes: [pair[0].shape.clone(), pair[1].shape.clone()],
        });
        Some(Self {
            summary: part.name(),
            suite: "cliffs",
            adapter: first.adapter.clone(),
            backend: first.backend.clone(),
            dtype: first.dtype,
            layout: first.layout,
            norm: first.norm,
            direction: first.direction,
            shapes: measured.len(),
            median_ns_per_byte: median,
            worst_ns_per_byte: worst,
            worst_ratio: worst / median,
            worst_ratio_to_copy: copies.iter().copied().fold(0.0, f64::max),
            median_ratio_to_copy: middle(copies),
            worst: sorted.into_iter().take(WORST).map(of_worst).collect(),
            worst_neighbours: match part {
                Part::Scan => neighbours.max_by(|a, b| a.ratio.total_cmp(&b.ratio)),
                Part::Random => None,
            },
        })
    }
}

/// For people.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = [self.norm, self.direction, self.dtype, self.layout].join(" ");
        let (adapter, backend) = (&self.adapter, &self.backend);
        let of = format!("cliffs, {} of {} shapes", self.summary, self.shapes);
        let heading = title(format_args!("{of}, {what}, on {adapter} ({backend})"));
        let (median, copies) = (self.median_ns_per_byte, self.median_ratio_to_copy);
        let (worst, ratio) = (self.worst_ns_per_byte, self.worst_ratio);
        writeln!(
            f,
            "{heading}\n  median {median:.4} ns a byte ({copies:.2} copies), worst {worst:.4}: {ratio:.2} times \
             the median"
        )?;
        if let Some(jump) = &self.worst_neighbours {
            let (ratio, [from, to]) = (jump.ratio, &jump.shapes);
            let jump = format!("{ratio:.2} times, from {from:?} to {to:?}");
            writeln!(f, "  largest jump from L to L + 1: {jump}")?;
        }
        let headings = "the worst | groups | ms | ns a byte | of the median | copies";
        let mut table = Table::new(headings.split(" | "));
        for worst in &self.worst {
            table.row([
                format!("{:?}", worst.shape),
                worst.groups.to_string(),
                format!("{:.3}", worst.ms),
                format!("{:.4}", worst.ns_per_byte),
                format!("{:.2}", worst.ratio_to_median),
                format!("{:.2}", worst.ratio_to_copy),
            ]);
        }
        writeln!(f, "{table}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_what_they_say() {
        let shapes = shapes(4);
        assert_eq!(shapes.len(), SCAN + RANDOM);
        let total = |dims: &[usize]| dims.iter().product::<usize>();
        for (index, (part, dims)) in shapes.iter().enumerate() {
            if index < SCAN {
                assert_eq!((*part, dims[2]), (Some(Part::Scan), index + 1));
                let share = total(dims) as f64 / SCAN_ELEMENTS as f64;
                assert!((0.95..1.05).contains(&share), "{dims:?}");
            } else {
                assert_eq!(*part, Some(Part::Random));
                assert!((RANDOM_ELEMENTS[0]..=RANDOM_ELEMENTS[1]).contains(&total(dims)));
            }
        }
        // Odd and prime sizes on every axis, and the same shapes for the same seed.
        for axis in 0..4 {
            let drawn = || shapes[SCAN..].iter().map(move |(_, dims)| dims[axis]);
            assert!(drawn().filter(|n| n % 2 == 1).count() > 100);
            assert!(drawn().filter(|&n| n > 2 && is_prime(n)).count() > 50);
        }
        assert_eq!(shapes, super::shapes(4));
        assert_ne!(shapes, super::shapes(5));
    }
    /// Forward of (N, C, L): `ns` a byte, and a copy of `copy_ns` a byte.
    fn measurement(len: usize, ns: f64, copy_ns: f64) -> Measurement {
        let tensor_bytes = 4 * 64 * len as u64;
        Measurement {
            shape: vec![1, 64, len],
            direction: "forward",
            ms: ns * 3.0 * tensor_bytes as f64 / 1e6,
            tensor_bytes,
            copy_ms: copy_ns * 2.0 * tensor_bytes as f64 / 1e6,
            copy_bytes: 2 * tensor_bytes,
            ..Measurement::default()
        }
    }

    #[test]
    fn a_cliff_shows() {
        let mut measured: Vec<Measurement> = (1..=40).map(|l| measurement(l, 0.2, 0.1)).collect();
        measured[16] = measurement(17, 0.5, 0.1);
        let all: Vec<&Measurement> = measured.iter().collect();
        let summary = Summary::of(&all, Part::Scan).unwrap();
        assert!((summary.median_ns_per_byte - 0.2).abs() < 1e-9);
        assert!((summary.worst_ratio - 2.5).abs() < 1e-9);
        assert_eq!(summary.worst[0].shape, [1, 64, 17]);
        assert_eq!(summary.worst.len(), WORST);
        let neighbours = summary.worst_neighbours.unwrap();
        assert!((neighbours.ratio - 2.5).abs() < 1e-9);
        assert!(neighbours.shapes.contains(&vec![1, 64, 17]));
        assert!(Summary::of(&[], Part::Scan).is_none());
    }

    #[test]
    fn busy_moments_are_measured_again() {
        let mut measured: Vec<Measurement> = (1..=40).map(|l| measurement(l, 0.2, 0.1)).collect();
        // The copy was slow, what it is there for is not.
        measured[35] = measurement(36, 0.2, 0.2);
        let all: Vec<&Measurement> = measured.iter().collect();
        assert!(doubtful(&all, Part::Scan).contains(&35));
        assert!(!doubtful(&all, Part::Random).contains(&35));
        measured[35] = measurement(36, 0.9, 0.1);
        let all: Vec<&Measurement> = measured.iter().collect();
        assert!(doubtful(&all, Part::Random).contains(&35));
    }
}
