//! What to plan, from the command line: a norm of the family, and a tensor.

use anyhow::{Result, bail, ensure};
use bcnorm::{
    BackwardOptions, DType, ForwardOptions, Layout, Mode, NormDesc, NormKind, Plan, TensorDesc,
    Tuning,
};
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use std::fmt;

/// Sizes (N, C, *spatial).
#[derive(Debug, Clone)]
pub struct Dims(pub Vec<usize>);

/// Reads sizes such as `8,64,56,56` or `8x64x56x56`.
pub fn parse_dims(text: &str) -> Result<Dims, String> {
    let text = text.trim_matches(|c: char| "()[] ".contains(c));
    text.split([',', 'x'])
        .map(|size| size.trim().parse::<usize>())
        .collect::<Result<Vec<usize>, _>>()
        .map(Dims)
        .map_err(|_| "expected sizes N,C,H,W, such as 8,64,56,56".to_owned())
}

/// Reads the name of an element type.
pub fn parse_dtype(text: &str) -> Result<DType, String> {
    [DType::F32, DType::F16, DType::BF16]
        .into_iter()
        .find(|dtype| dtype.name() == text)
        .ok_or_else(|| "expected f32, f16 or bf16".to_owned())
}

/// Reads an order in memory.
pub fn parse_layout(text: &str) -> Result<Layout, String> {
    match text {
        "first" | "nchw" => Ok(Layout::ChannelsFirst),
        "last" | "nhwc" => Ok(Layout::ChannelsLast),
        _ => Err("expected first (or nchw), last (or nhwc)".to_owned()),
    }
}

/// Reads the name of a norm, one of [`NormKind::ALL`] that a command takes.
pub fn norm_parser(taken: fn(NormKind) -> bool) -> impl TypedValueParser<Value = NormKind> {
    let kinds = NormKind::ALL.iter().copied().filter(|&kind| taken(kind));
    let names = kinds.map(|kind| PossibleValue::new(kind.name()));
    PossibleValuesParser::new(names).try_map(|text| {
        let mut kinds = NormKind::ALL.iter().copied();
        kinds.find(|kind| kind.name() == text).ok_or("unknown")
    })
}

/// For commands that take all of the family.
pub fn any_norm(_: NormKind) -> bool {
    true
}

/// What a plan computes.
#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Training forward.
    Forward,
    /// All gradients.
    Backward,
    /// Forward with running statistics.
    Eval,
}

impl Direction {
    /// Every direction.
    pub const ALL: [Direction; 3] = [Direction::Forward, Direction::Backward, Direction::Eval];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Direction::Forward => "forward",
            Direction::Backward => "backward",
            Direction::Eval => "eval",
        }
    }
}

/// A tensor of this shape: (N, C, *spatial); for Weight Standardization a convolution's filters.
pub fn describe_tensor(kind: NormKind, dims: &[usize]) -> Result<TensorDesc, bcnorm::Error> {
    match kind {
        NormKind::WeightStandardization => TensorDesc::filters(dims),
        _ => TensorDesc::new(dims),
    }
}

/// Whether a norm asks for a number of groups.
pub fn is_grouped(kind: NormKind) -> bool {
    matches!(kind, NormKind::BcNorm | NormKind::GroupNorm)
}

/// A norm as its constructor makes it. Without a number of groups: 32, or the largest divisor of C
/// below.
pub fn describe_norm(kind: NormKind, channels: usize, groups: Option<usize>) -> Result<NormDesc> {
    ensure!(
        is_grouped(kind) || groups.is_none(),
        "--groups is of bc_norm and group_norm: {} has none",
        kind.name()
    );
    let groups = groups.unwrap_or_else(|| {
        let mut divisors = (1..=channels.min(32)).rev();
        let divisor = divisors.find(|&groups| channels.is_multiple_of(groups));
        divisor.unwrap_or(1)
    });
    let norm = match kind {
        NormKind::BcNorm => NormDesc::bc_norm(channels, groups),
        NormKind::BatchNorm => NormDesc::batch_norm(channels),
        NormKind::EstBn => NormDesc::est_bn(channels),
        NormKind::GroupNorm => NormDesc::group_norm(groups, channels),
        NormKind::InstanceNorm => NormDesc::instance_norm(channels),
        NormKind::LayerNorm => NormDesc::layer_norm(channels),
        NormKind::WeightStandardization => NormDesc::weight_standardization(),
        other => bail!("{} is not known to this command", other.name()),
    };
    norm.validate()?;
    Ok(norm)
}

/// A norm of a tensor.
#[derive(Debug, Clone)]
pub struct Request {
    /// The norm.
    pub norm: NormDesc,
    /// The tensor.
    pub tensor: TensorDesc,
}

impl Request {
    /// Without a number of groups: see [`describe_norm`].
    pub fn new(
        kind: NormKind,
        dims: &Dims,
        groups: Option<usize>,
        dtype: DType,
        layout: Layout,
    ) -> Result<Self> {
        let dims = &dims.0;
        let tensor = describe_tensor(kind, dims)?
            .with_dtype(dtype)
            .with_layout(layout);
        let norm = describe_norm(kind, tensor.num_channels() as usize, groups)?;
        if tensor.elements() == 0 {
            bail!("a tensor of shape {dims:?} is empty: there is nothing to do");
        }
        Ok(Self { norm, tensor })
    }

    /// Its plan.
    pub fn plan(&self, direction: Direction, tuning: &Tuning) -> Result<Plan, bcnorm::Error> {
        let (norm, tensor) = (&self.norm, &self.tensor);
        let (forward, backward) = (ForwardOptions::default(), BackwardOptions::default());
        match direction {
            Direction::Forward => Plan::forward(norm, tensor, Mode::Train, forward, tuning),
            Direction::Eval => Plan::forward(norm, tensor, Mode::Eval, forward, tuning),
            Direction::Backward => Plan::backward(norm, tensor, Mode::Train, backward, tuning),
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dims = self.tensor.dims();
        write!(f, "{} of {dims:?}", self.norm.kind.name())?;
        if is_grouped(self.norm.kind) {
            write!(f, ", {} groups", self.norm.num_groups)?;
        }
        let (dtype, layout) = (self.tensor.dtype(), self.tensor.layout());
        write!(f, ", {} {}", dtype.name(), layout.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_divide() {
        let groups = |channels, given| {
            let dims = Dims(vec![2, channels, 5]);
            let first = Layout::ChannelsFirst;
            Request::new(NormKind::BcNorm, &dims, given, DType::F32, first)
                .map(|r| r.norm.num_groups)
        };
        for (channels, expected) in [(64, 32), (48, 24), (37, 1), (12, 12)] {
            assert_eq!(groups(channels, None).unwrap(), expected);
        }
        assert_eq!(groups(12, Some(3)).unwrap(), 3);
        groups(12, Some(5)).unwrap_err();
        groups(12, Some(0)).unwrap_err();
    }

    #[test]
    fn the_family_is_planned() {
        for &norm in NormKind::ALL {
            for layout in [Layout::ChannelsFirst, Layout::ChannelsLast] {
                let dims = Dims(vec![4, 8, 3, 5]);
                let request = Request::new(norm, &dims, None, DType::F16, layout);
                let Ok(request) = request else {
                    // Filters have one order.
                    assert_eq!(
                        (norm, layout),
                        (NormKind::WeightStandardization, Layout::ChannelsLast)
                    );
                    continue;
                };
                for direction in Direction::ALL {
                    let plan = request.plan(direction, &Tuning::CPU).unwrap();
                    assert!(!plan.steps().is_empty(), "{request}");
                }
            }
        }
        let dims = Dims(vec![0, 8, 3]);
        let first = Layout::ChannelsFirst;
        Request::new(NormKind::LayerNorm, &dims, None, DType::F32, first).unwrap_err();
        let dims = Dims(vec![2, 8, 3]);
        Request::new(NormKind::LayerNorm, &dims, Some(2), DType::F32, first).unwrap_err();
    }

    #[test]
    fn norms_have_one_name_each() {
        use clap::Parser;
        #[derive(Parser)]
        struct Line {
            #[arg(value_parser = norm_parser(any_norm))]
            norm: NormKind,
        }
        for &kind in NormKind::ALL {
            let line = Line::try_parse_from(["bcnorm", kind.name()]).unwrap();
            assert_eq!(line.norm, kind);
        }
        for wrong in ["", "bcnorm", "BC_NORM", "ws", "groupnorm"] {
            let Err(error) = Line::try_parse_from(["bcnorm", wrong]) else {
                panic!("{wrong} is taken for a norm");
            };
            let error = error.to_string();
            assert!(error.contains("weight_standardization"), "{error}");
        }
    }

    #[test]
    fn words_are_read() {
        assert_eq!(parse_dims("(8, 64, 56)").unwrap().0, [8, 64, 56]);
        assert_eq!(parse_dims("8x64").unwrap().0, [8, 64]);
        for wrong in ["", "8,,4", "a", "8,-4"] {
            parse_dims(wrong).unwrap_err();
        }
        assert_eq!(parse_dtype("bf16").unwrap(), DType::BF16);
        assert_eq!(parse_layout("nhwc").unwrap(), Layout::ChannelsLast);
        parse_dtype("f64").unwrap_err();
        parse_layout("chwn").unwrap_err();
    }
}
