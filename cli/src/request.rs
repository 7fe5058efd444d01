//! What to plan, from the command line: a norm of the family, and a tensor. Every command reads it here.

use anyhow::{Result, ensure};
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

/// Reads one of some names.
pub fn one_of<T: Copy + Send + Sync + 'static>(
    values: &[(&'static str, T)],
) -> impl TypedValueParser<Value = T> + use<T> {
    let values = values.to_vec();
    let names = values.iter().map(|(name, _)| PossibleValue::new(*name));
    PossibleValuesParser::new(names).try_map(move |text| {
        let value = values.iter().find(|(name, _)| *name == text);
        value.map(|(_, value)| *value).ok_or("unknown")
    })
}

/// Reads the name of a norm, one of [`NormKind::ALL`] that a command takes.
pub fn norm_parser(taken: fn(NormKind) -> bool) -> impl TypedValueParser<Value = NormKind> {
    let kinds = NormKind::ALL.iter().copied().filter(|&kind| taken(kind));
    let kinds: Vec<_> = kinds.map(|kind| (kind.name(), kind)).collect();
    one_of(&kinds)
}

const DTYPES: [(&str, DType); 3] = [
    ("f32", DType::F32),
    ("f16", DType::F16),
    ("bf16", DType::BF16),
];

const LAYOUTS: [(&str, Layout); 4] = [
    ("first", Layout::ChannelsFirst),
    ("last", Layout::ChannelsLast),
    ("nchw", Layout::ChannelsFirst),
    ("nhwc", Layout::ChannelsLast),
];

/// The options that every command has which plans: a norm, and how its tensors are stored.
#[derive(clap::Args, Debug)]
pub struct NormArgs {
    /// Which norm (weight standardization is of a convolution's filters, (O, I, kH, kW))
    #[arg(long, value_name = "NAME", default_value = "bc_norm", value_parser = norm_parser(|_| true))]
    pub norm: NormKind,
    /// Groups of bc_norm and group_norm, a divisor of the channels [default: 32, or the largest divisor below]
    #[arg(long, value_name = "G", allow_negative_numbers = true)]
    pub groups: Option<usize>,
    /// How tensors are stored. Arithmetic is f32 whatever it is
    #[arg(long, default_value = "f32", value_parser = one_of(&DTYPES))]
    pub dtype: DType,
    /// Order in the device's memory: first (N, C, H, W) or last (N, H, W, C)
    #[arg(long, default_value = "first", value_parser = one_of(&LAYOUTS))]
    pub layout: Layout,
}

impl NormArgs {
    /// The norm of a tensor of these sizes.
    pub fn request(&self, dims: &Dims) -> Result<Request> {
        let Request { norm, tensor } = Request::new(self.norm, &dims.0, self.groups)?;
        let tensor = tensor.with_dtype(self.dtype).with_layout(self.layout);
        Ok(Request { norm, tensor })
    }
}

#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Training forward
    Forward,
    /// All gradients
    Backward,
    /// Forward with running statistics
    Eval,
}

impl Direction {
    pub const ALL: [Direction; 3] = [Direction::Forward, Direction::Backward, Direction::Eval];

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
    let norm = NormDesc::of_kind(kind, channels, groups);
    norm.validate()?;
    Ok(norm)
}

/// A norm of a tensor.
#[derive(Debug, Clone)]
pub struct Request {
    pub norm: NormDesc,
    pub tensor: TensorDesc,
}

impl Request {
    /// In f32 with channels first. Without a number of groups: see [`describe_norm`].
    pub fn new(kind: NormKind, dims: &[usize], groups: Option<usize>) -> Result<Self> {
        let tensor = describe_tensor(kind, dims)?;
        let norm = describe_norm(kind, tensor.num_channels() as usize, groups)?;
        ensure!(
            tensor.elements() > 0,
            "a tensor of shape {dims:?} is empty: there is nothing to do"
        );
        Ok(Self { norm, tensor })
    }

    /// The tensor's sizes, as a tuple.
    pub fn shape(&self) -> String {
        let sizes: Vec<String> = self.tensor.dims().iter().map(usize::to_string).collect();
        format!("({})", sizes.join(", "))
    }

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
    use clap::Parser;

    #[test]
    fn groups_divide() {
        let groups = |channels, given| {
            let request = Request::new(NormKind::BcNorm, &[2, channels, 5], given);
            request.map(|request| request.norm.num_groups)
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
            for layout in ["first", "last"] {
                let line = [
                    "",
                    "--norm",
                    norm.name(),
                    "--dtype",
                    "f16",
                    "--layout",
                    layout,
                ];
                let args = Line::try_parse_from(line).unwrap().args;
                let request = args.request(&Dims(vec![4, 8, 3, 5])).unwrap();
                for direction in Direction::ALL {
                    let plan = request.plan(direction, &Tuning::CPU).unwrap();
                    assert!(!plan.steps().is_empty(), "{request}");
                }
            }
        }
        let layer_norm = |dims: &[usize], groups| Request::new(NormKind::LayerNorm, dims, groups);
        layer_norm(&[0, 8, 3], None).unwrap_err();
        layer_norm(&[2, 8, 3], Some(2)).unwrap_err();
        layer_norm(&[1], None).unwrap_err();
    }

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: NormArgs,
    }

    #[test]
    fn norms_have_one_name_each() {
        let parse = |name| Line::try_parse_from(["bcnorm", "--norm", name]);
        for &kind in NormKind::ALL {
            assert_eq!(parse(kind.name()).unwrap().args.norm, kind);
        }
        for wrong in ["", "bcnorm", "BC_NORM", "ws", "groupnorm"] {
            let Err(error) = parse(wrong) else {
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
        let parse = |option, word| Line::try_parse_from(["bcnorm", option, word]);
        let args = |option, word| parse(option, word).unwrap().args;
        assert_eq!(args("--dtype", "bf16").dtype, DType::BF16);
        assert_eq!(args("--layout", "nhwc").layout, Layout::ChannelsLast);
        assert!(parse("--dtype", "f64").is_err() && parse("--layout", "chwn").is_err());
    }
}
