//! Golden files that hold one call of a norm.

use super::reader::{Reader, bar, parse_shape};
use crate::names::{gradient_or_state, input_name, output_name, parameters};
use crate::oracle::Stats;
use crate::problem::Problem;
use bcnorm::{Activation, DType, Fusion, Layout, Mode, NormDesc, NormKind, Role, TensorDesc};
use std::collections::BTreeMap;

/// One golden case. The tensors have the names of the file's entries, complete and of the right
/// lengths: [`load`](crate::golden::load) checked them.
#[derive(Clone, Debug, PartialEq)]
pub struct Golden {
    /// For instance `small.batch.train`.
    pub name: String,
    /// The norm, as a caller of the library describes it.
    pub norm: NormDesc,
    /// N, C and the spatial dimensions; Weight Standardization: O, 1 and the filters' dimensions.
    pub dims: Vec<usize>,
    /// G.
    pub num_groups: usize,
    /// The epsilon as PyTorch's f64 run took it: 1e-5 is no f32, and the difference shows from 1e-8 on
    /// where a variance is 0.
    pub eps_f64: f64,
    /// The kind of channel statistics, with momentum or speed as PyTorch's f64 run took them.
    pub stats: Stats,
    /// Training, or evaluation.
    pub training: bool,
    /// How the tensors are stored.
    pub dtype: DType,
    /// What is applied after the norm.
    pub fusion: Fusion,
    /// Batches tracked before the call.
    pub num_batches_tracked: u32,
    /// What goes in: `x`, `grad_y`, and what there is of `residual`, `bn.weight`, `bn.bias`, `weight`,
    /// `bias`, and of `running_mean` and `running_var`, which are called `bn.running_mean` and
    /// `bn.running_var` with BCNorm.
    pub tensors: BTreeMap<String, Vec<f32>>,
    /// What comes out: `y`, `grad_x`, and what there is of `grad_residual`, `grad_bn.weight`,
    /// `grad_bn.bias`, `grad_weight`, `grad_bias`, and of `running_mean_after` and `running_var_after`,
    /// with BCNorm behind `bn.`.
    pub expected: BTreeMap<String, Vec<f64>>,
    /// What an error is divided by, under the names of `expected`.
    pub scale: BTreeMap<String, f64>,
    /// PyTorch's own error in f32, under the names of `expected`; nothing of 16-bit cases.
    pub pytorch_f32_error: BTreeMap<String, f64>,
}

impl Golden {
    /// The largest error that an f32 output may have: 1e-6, or PyTorch's own where that is larger.
    pub fn bar(&self, name: &str) -> f64 {
        bar(&self.pytorch_f32_error, name)
    }

    /// The call that the file holds.
    pub fn problem(&self) -> Problem {
        let tensor = |name: &str| self.tensors.get(name).cloned().unwrap_or_default();
        let state = |role| {
            let name = input_name(&self.norm, role);
            name.map(tensor).unwrap_or_default()
        };
        Problem {
            dims: self.dims.clone(),
            norm: self.norm,
            dtype: self.dtype,
            layout: Layout::ChannelsFirst,
            mode: if self.training {
                Mode::Train
            } else {
                Mode::Eval
            },
            fusion: self.fusion,
            backward: true,
            x: tensor("x"),
            residual: tensor("residual"),
            grad_y: tensor("grad_y"),
            bn_weight: tensor("bn.weight"),
            bn_bias: tensor("bn.bias"),
            weight: tensor("weight"),
            bias: tensor("bias"),
            running_mean: state(Role::RunningMean),
            running_var: state(Role::RunningVar),
            num_batches_tracked: self.num_batches_tracked,
        }
    }
}

impl Reader<'_> {
    /// Reads a call of a norm.
    pub(super) fn golden(&mut self) -> Option<Golden> {
        let kind = self.kind();
        let shape = self.shape_of("x")?;
        let standardization = kind == Some(NormKind::WeightStandardization);
        let channels = match standardization {
            true => 1,
            false => shape.get(1).copied().unwrap_or(0),
        };
        self.check_shape(&shape, channels);
        let dtype = self.option("dtype", DType::F32, |text| {
            let all = [DType::F32, DType::F16, DType::BF16];
            all.into_iter().find(|dtype| dtype.name() == text)
        });
        self.option("layout", (), |text| {
            (text == "channels_first").then_some(())
        });
        let activation = self.option("activation", Activation::None, |text| match text {
            "none" => Some(Activation::None),
            "relu" => Some(Activation::Relu),
            "silu" => Some(Activation::Silu),
            _ => None,
        });
        let residual = self.option("residual", false, |text| text.parse().ok());
        let settings = kind.and_then(|kind| self.settings(kind, channels));
        let (settings, dtype) = (settings?, dtype?);
        let norm = settings.norm;
        let fusion = Fusion::NONE
            .with_activation(activation?)
            .with_residual(residual?);

        let elements = shape.iter().product();
        let mut tensors = BTreeMap::new();
        let mut take = |reader: &mut Self, name: &str, stored, len| {
            if let Some(values) = reader.floats(name, stored, len) {
                tensors.insert(name.to_owned(), values);
            }
        };
        let mut whole = vec!["x", "grad_y"];
        whole.extend(fusion.residual.then_some("residual"));
        for name in whole {
            self.check_same_shape(name, &shape);
            take(self, name, dtype, elements);
        }
        for (role, len) in parameters(&norm) {
            if let Some(name) = input_name(&norm, role) {
                take(self, name, DType::F32, len);
            }
        }

        let mut outputs = vec![(Role::Y, elements), (Role::GradX, elements)];
        outputs.extend(fusion.residual.then_some((Role::GradResidual, elements)));
        outputs.extend(parameters(&norm).map(|(role, len)| (gradient_or_state(role), len)));
        let outputs = outputs
            .into_iter()
            .filter_map(|(role, len)| Some((output_name(&norm, role)?, len)));
        let expectations = self.expectations(outputs, dtype);

        let dims = match standardization {
            true => TensorDesc::filters(&shape).map(|tensor| tensor.dims().to_vec()),
            false => Ok(shape),
        };
        Some(Golden {
            name: self.number("name", |text| Some(text.to_owned()))?,
            norm,
            dims: dims.ok()?,
            num_groups: norm.num_groups,
            eps_f64: settings.eps_f64,
            stats: settings.stats,
            training: settings.training,
            dtype,
            fusion,
            num_batches_tracked: settings.num_batches_tracked,
            tensors,
            expected: expectations.expected,
            scale: expectations.scale,
            pytorch_f32_error: expectations.pytorch_f32_error,
        })
    }

    fn kind(&mut self) -> Option<NormKind> {
        self.option("norm", NormKind::BcNorm, |text| {
            NormKind::ALL
                .iter()
                .copied()
                .find(|kind| kind.name() == text)
        })
    }

    /// Compares what the metadata say of the shape with the shape.
    fn check_shape(&mut self, shape: &[usize], channels: usize) {
        if let Some(declared) = self.number("shape", parse_shape)
            && declared != shape
        {
            self.problems.push(format!(
                "x has shape {shape:?}, metadata \"shape\" says {declared:?}"
            ));
        }
        if let Some(declared) = self.number("channels", |text| text.parse::<usize>().ok())
            && declared != channels
        {
            self.problems.push(format!(
                "x of shape {shape:?} has {channels} channels, metadata \"channels\" says {declared}"
            ));
        }
    }

    fn check_same_shape(&mut self, name: &str, shape: &[usize]) {
        if let Ok(tensor) = self.file.tensor(name)
            && tensor.shape() != shape
        {
            self.problems.push(format!(
                "tensor \"{name}\" has shape {:?}, expected {shape:?}",
                tensor.shape()
            ));
        }
    }
}
