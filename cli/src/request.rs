//! What to plan, from the command line: a norm of the family, and a tensor.

use anyhow::{Result, bail, ensure};
use bcnorm::{
    BackwardOptions, DType, ForwardOptions, Layout, Mode, NormDesc, Plan, TensorDesc, Tuning,
};
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

/// A norm of the family.
#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Norm {
    Bcnorm,
    Batchnorm,
    Estbn,
    Groupnorm,
    Instancenorm,
    Layernorm,
    /// Weight Standardization: the shape is that of a convolution's filters, (O, I, kH, kW)
    Ws,
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

/// A norm of a tensor.
#[derive(Debug, Clone)]
pub struct Request {
    /// Its name.
    pub name: &'static str,
    /// The norm.
    pub norm: NormDesc,
    /// The tensor.
    pub tensor: TensorDesc,
}

impl Request {
    /// Without a number of groups: 32, or the largest divisor of C below.
    pub fn new(
        norm: Norm,
        dims: &Dims,
        groups: Option<usize>,
        dtype: DType,
        layout: Layout,
    ) -> Result<Self> {
        let dims = &dims.0;
        let tensor = match norm {
            Norm::Ws => TensorDesc::filters(dims)?,
            _ => TensorDesc::new(dims)?,
        };
        let tensor = tensor.with_dtype(dtype).with_layout(layout);
        let channels = tensor.num_channels() as usize;
        let grouped = matches!(norm, Norm::Bcnorm | Norm::Groupnorm);
        ensure!(
            grouped || groups.is_none(),
            "--groups is of bcnorm and groupnorm"
        );
        let groups = groups.unwrap_or_else(|| {
            let divisors = (1..=channels.min(32)).rev();
            let mut divisors = divisors.filter(|groups| channels.is_multiple_of(*groups));
            divisors.next().unwrap_or(1)
        });
        let (name, norm) = match norm {
            Norm::Bcnorm => ("bcnorm", NormDesc::bc_norm(channels, groups)),
            Norm::Batchnorm => ("batchnorm", NormDesc::batch_norm(channels)),
            Norm::Estbn => ("estbn", NormDesc::est_bn(channels)),
            Norm::Groupnorm => ("groupnorm", NormDesc::group_norm(groups, channels)),
            Norm::Instancenorm => ("instancenorm", NormDesc::instance_norm(channels)),
            Norm::Layernorm => ("layernorm", NormDesc::layer_norm(channels)),
            Norm::Ws => ("ws", NormDesc::weight_standardization()),
        };
        norm.validate()?;
        if tensor.elements() == 0 {
            bail!("a tensor of shape {dims:?} is empty: there is nothing to do");
        }
        Ok(Self { name, norm, tensor })
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
        write!(f, "{} of {dims:?}", self.name)?;
        if matches!(self.name, "bcnorm" | "groupnorm") {
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
            Request::new(Norm::Bcnorm, &dims, given, DType::F32, first).map(|r| r.norm.num_groups)
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
        use clap::ValueEnum as _;
        for &norm in Norm::value_variants() {
            for layout in [Layout::ChannelsFirst, Layout::ChannelsLast] {
                let dims = Dims(vec![4, 8, 3, 5]);
                let request = Request::new(norm, &dims, None, DType::F16, layout);
                let Ok(request) = request else {
                    // Filters have one order.
                    assert_eq!((norm, layout), (Norm::Ws, Layout::ChannelsLast));
                    continue;
                };
                for &direction in Direction::value_variants() {
                    let plan = request.plan(direction, &Tuning::CPU).unwrap();
                    assert!(!plan.steps().is_empty(), "{request}");
                }
            }
        }
        let dims = Dims(vec![0, 8, 3]);
        let first = Layout::ChannelsFirst;
        Request::new(Norm::Layernorm, &dims, None, DType::F32, first).unwrap_err();
        let dims = Dims(vec![2, 8, 3]);
        Request::new(Norm::Layernorm, &dims, Some(2), DType::F32, first).unwrap_err();
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
