//! Which kernels are compiled: those of plans, or all that there are.

use anyhow::{Context, Result};
use bcnorm::kernels::{Spec, canonical_specs};
use bcnorm::{
    Activation, BackwardOptions, DType, ForwardOptions, Fusion, Layout, Mode, NormDesc, NormKind,
    Plan, TensorDesc, Tuning,
};
use std::collections::HashSet;

/// Shapes of networks, whose plans have what the kernels have of cuts: whole words and ragged rows, long rows and short
/// ones, (N, C).
pub const SHAPES: [&str; 9] = [
    "32x256x56x56",
    "32x64x112x112",
    "32x1024x14x14",
    "16x512x7x7",
    "8x64x56x56",
    "2x256x100x152",
    "3x67x113x113",
    "4096x512",
    "512x512x2x2",
];

/// Plans to compile: all combinations of these.
#[derive(Debug, clap::Args)]
pub struct Selection {
    /// Sizes (N, C, *spatial), several with spaces or by several options [default: those of networks]
    #[arg(long, value_name = "NxCxHxW")]
    pub shape: Vec<String>,
    /// The norms [default: bc_norm, batch_norm, group_norm]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub norm: Vec<String>,
    /// The types [default: f32, f16, bf16]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub dtype: Vec<String>,
    /// The layouts, first or last [default: both]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub layout: Vec<String>,
    /// forward, backward, eval [default: all]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub direction: Vec<String>,
    /// none, relu, silu [default: none]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub activation: Vec<String>,
    /// Subgroups' sizes: 1 without [default: 1, 32]
    #[arg(long, value_name = "N", value_delimiter = ',')]
    pub subgroups: Vec<u32>,
    /// A number of the tuning, of Tuning::GPU otherwise (see `bcnorm info`)
    #[arg(long, value_name = "GROUP.NAME=VALUE")]
    pub tune: Vec<String>,
    /// Instead of plans: every specialization that there is (workgroups of 64; 1 or 8 lanes)
    #[arg(long, conflicts_with_all = ["shape", "norm", "dtype", "layout", "direction", "activation", "subgroups", "tune"])]
    pub all: bool,
}

/// A kernel to compile, and which plan has it.
pub struct Entry {
    /// What its text depends on.
    pub spec: Spec,
    /// The first plan that has it, in words.
    pub plan: String,
}

impl Selection {
    /// The kernels, each once.
    ///
    /// # Errors
    /// What is unknown, and what the planner refuses.
    pub fn entries(&self) -> Result<Vec<Entry>> {
        if self.all {
            let entry = |spec: Spec| Entry {
                plan: describe(&spec),
                spec,
            };
            return Ok(canonical_specs().into_iter().map(entry).collect());
        }
        let shapes: Vec<&str> = self
            .shape
            .iter()
            .flat_map(|text| text.split_whitespace())
            .collect();
        let shapes = if shapes.is_empty() {
            SHAPES.to_vec()
        } else {
            shapes
        };
        let norms = chosen(
            &self.norm,
            NormKind::ALL,
            |kind| kind.name(),
            &["bc_norm", "batch_norm", "group_norm"],
        )?;
        let dtypes = chosen(
            &self.dtype,
            &[DType::F32, DType::F16, DType::BF16],
            |t| t.name(),
            &["f32", "f16", "bf16"],
        )?;
        let layouts = [
            ("first", Layout::ChannelsFirst),
            ("last", Layout::ChannelsLast),
        ];
        let layouts = chosen(
            &self.layout,
            &layouts,
            |layout| layout.0,
            &["first", "last"],
        )?;
        let directions = ["forward", "backward", "eval"];
        let directions = chosen(&self.direction, &directions, |name| name, &directions)?;
        let activations = [
            ("none", Activation::None),
            ("relu", Activation::Relu),
            ("silu", Activation::Silu),
        ];
        let activations = chosen(
            &self.activation,
            &activations,
            |activation| activation.0,
            &["none"],
        )?;
        let subgroups = if self.subgroups.is_empty() {
            vec![1, 32]
        } else {
            self.subgroups.clone()
        };
        let mut tuning = Tuning::GPU;
        for text in &self.tune {
            tuning.set(text)?;
        }

        let mut entries = Vec::new();
        let mut known = HashSet::new();
        for shape in shapes {
            let dims: Result<Vec<usize>, _> = shape.split(['x', ',']).map(str::parse).collect();
            let dims = dims
                .with_context(|| format!("the shape {shape}: expected sizes such as 8x64x56x56"))?;
            for &kind in &norms {
                for &dtype in &dtypes {
                    for &(layout_name, layout) in &layouts {
                        for &subgroup_size in &subgroups {
                            for &direction in &directions {
                                for &(activation_name, activation) in &activations {
                                    let tuning =
                                        tuning.with(|t| t.limits.subgroup_size = subgroup_size);
                                    let plan = plan(
                                        kind, &dims, dtype, layout, direction, activation, &tuning,
                                    )?;
                                    let mut label =
                                        format!("{} {shape} {}", kind.name(), dtype.name());
                                    label += &format!(" {layout_name} {direction}");
                                    if activation != Activation::None {
                                        label += &format!(" {activation_name}");
                                    }
                                    if subgroup_size > 1 {
                                        label += &format!(" subgroups {subgroup_size}");
                                    }
                                    let new =
                                        plan.steps().iter().filter(|step| known.insert(step.spec));
                                    entries.extend(new.map(|step| Entry {
                                        spec: step.spec,
                                        plan: label.clone(),
                                    }));
                                }
                            }
                        }
                    }
                }
            }
        }
        Ok(entries)
    }
}

/// The plan of a norm.
pub fn plan(
    kind: NormKind,
    dims: &[usize],
    dtype: DType,
    layout: Layout,
    direction: &str,
    activation: Activation,
    tuning: &Tuning,
) -> Result<Plan> {
    let tensor = match kind {
        NormKind::WeightStandardization => TensorDesc::filters(dims)?,
        _ => TensorDesc::new(dims)?,
    };
    let tensor = tensor.with_dtype(dtype).with_layout(layout);
    let channels = tensor.num_channels() as usize;
    let groups = (1..=channels.clamp(1, 32))
        .rev()
        .find(|groups| channels.is_multiple_of(*groups));
    let groups = groups.unwrap_or(1);
    let norm = NormDesc::of_kind(kind, channels, groups);
    let fusion = Fusion::default().with_activation(activation);
    let forward = ForwardOptions::default().with_fusion(fusion);
    let backward = BackwardOptions::default().with_fusion(fusion);
    Ok(match direction {
        "backward" => Plan::backward(&norm, &tensor, Mode::Train, backward, tuning)?,
        "eval" => Plan::forward(&norm, &tensor, Mode::Eval, forward, tuning)?,
        _ => Plan::forward(&norm, &tensor, Mode::Train, forward, tuning)?,
    })
}

/// Those of some values that are named, or those by default.
fn chosen<T: Copy>(
    names: &[String],
    all: &[T],
    name: fn(&T) -> &'static str,
    default: &[&str],
) -> Result<Vec<T>> {
    let names: Vec<&str> = match names {
        [] => default.to_vec(),
        names => names.iter().map(String::as_str).collect(),
    };
    let find = |wanted: &str| {
        let known: Vec<&str> = all.iter().map(name).collect();
        let found = all.iter().copied().find(|value| name(value) == wanted);
        found.with_context(|| format!("\"{wanted}\" is none of {}", known.join(", ")))
    };
    names.into_iter().map(find).collect()
}

/// A specialization in words.
fn describe(spec: &Spec) -> String {
    let mut text = format!("{} words of {}", spec.dtype.name(), spec.width);
    text += &format!(", {} of {} lanes", spec.lanes, spec.workgroup_size);
    if spec.column_words > 1 {
        text += &format!(", {} words of a position", spec.column_words);
    }
    for (there, word) in [(!spec.aligned, "ragged"), (spec.accumulate, "accumulates")] {
        if there {
            text += ", ";
            text += word;
        }
    }
    if spec.activation != Activation::None {
        text += &format!(", {:?}", spec.activation).to_lowercase();
    }
    let absent: Vec<&str> = (0..)
        .zip(spec.kernel.kernel().bindings)
        .filter(|(index, _)| spec.absent >> index & 1 == 1)
        .map(|(_, binding)| binding.name)
        .collect();
    if !absent.is_empty() {
        text += &format!(", without {}", absent.join(" "));
    }
    text
}
