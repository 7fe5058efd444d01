//! The network, and its state by PyTorch's names and in PyTorch's shapes.

use crate::random::SplitMix64;
use bcnorm_burn::{
    Activation, BatchNorm, BatchNormConfig, BcNorm, BcNormConfig, GroupNorm, GroupNormConfig,
    MovingSpeed, weight_standardization,
};
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{self, Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::activation::relu;
use burn::tensor::module::conv2d;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Tensor, TensorData};
use clap::ValueEnum;
use std::collections::BTreeMap;
use std::fmt;

/// Groups of every group norm and BCNorm.
const NUM_GROUPS: usize = 2;
/// Channels of the first block; the second has twice as many.
const NUM_CHANNELS: usize = 8;
/// Weight Standardization's, as the paper has it.
const WS_EPSILON: f64 = 1e-5;

/// Which norm a network has, and whose.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// bcnorm's batch norm
    Bn,
    /// bcnorm's group norm
    Gn,
    /// bcnorm's BCNorm by the batch's statistics
    Bcn,
    /// bcnorm's BCNorm by running estimates, which move by the learning rate
    BcnEst,
    /// burn's batch norm
    BurnBn,
    /// burn's group norm
    BurnGn,
    /// None: what remains of a step without its norms, to measure
    #[value(skip)]
    None,
}

impl fmt::Display for NormKind {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Bn => "bn",
            Self::Gn => "gn",
            Self::Bcn => "bcn",
            Self::BcnEst => "bcn-est",
            Self::BurnBn => "burn-bn",
            Self::BurnGn => "burn-gn",
            Self::None => "none",
        })
    }
}

/// activation(norm(x) + residual), in one kernel where the norm is bcnorm's.
#[derive(Module, Debug)]
struct Norm {
    layer: Option<Layer>,
    #[module(skip)]
    activation: Activation,
}

#[derive(Module, Debug)]
enum Layer {
    Bn(BatchNorm),
    Gn(GroupNorm),
    Bcn(BcNorm),
    BurnBn(nn::BatchNorm),
    BurnGn(nn::GroupNorm),
}

impl Norm {
    fn forward(&self, x: Tensor<4>, residual: Option<Tensor<4>>) -> Tensor<4> {
        macro_rules! fused {
            ($norm:expr) => {
                match residual {
                    Some(residual) => return $norm.forward_with_residual(x, residual),
                    None => return $norm.forward(x),
                }
            };
        }
        let y = match &self.layer {
            Some(Layer::Bn(norm)) => fused!(norm),
            Some(Layer::Gn(norm)) => fused!(norm),
            Some(Layer::Bcn(norm)) => fused!(norm),
            Some(Layer::BurnBn(norm)) => norm.forward(x),
            Some(Layer::BurnGn(norm)) => norm.forward(x),
            None => x,
        };
        let y = match residual {
            Some(residual) => y + residual,
            None => y,
        };
        match self.activation {
            Activation::Relu => relu(y),
            _ => y,
        }
    }
}

/// What layers of one network have in common.
struct Maker<'a> {
    kind: NormKind,
    speed: &'a MovingSpeed,
    device: &'a Device,
}

impl Maker<'_> {
    fn norm(&self, num_channels: usize, activation: Activation) -> Norm {
        let device = self.device;
        let bcn = |speed: Option<&MovingSpeed>| {
            let config = BcNormConfig::new(NUM_GROUPS, num_channels)
                .with_moving_speed(speed.cloned())
                .with_activation(activation);
            Layer::Bcn(config.init(device))
        };
        let layer = match self.kind {
            NormKind::Bn => {
                let config = BatchNormConfig::new(num_channels).with_activation(activation);
                Some(Layer::Bn(config.init(device)))
            }
            NormKind::Gn => {
                let config = GroupNormConfig::new(NUM_GROUPS, num_channels);
                Some(Layer::Gn(config.with_activation(activation).init(device)))
            }
            NormKind::Bcn => Some(bcn(None)),
            NormKind::BcnEst => Some(bcn(Some(self.speed))),
            NormKind::BurnBn => {
                let config = nn::BatchNormConfig::new(num_channels);
                Some(Layer::BurnBn(config.init(device)))
            }
            NormKind::BurnGn => {
                let config = nn::GroupNormConfig::new(NUM_GROUPS, num_channels);
                Some(Layer::BurnGn(config.init(device)))
            }
            NormKind::None => None,
        };
        Norm { layer, activation }
    }

    /// Without a bias, which the norm behind it would take away.
    fn conv(&self, channels: [usize; 2], size: usize, stride: usize) -> Conv2d {
        let pad = size / 2;
        Conv2dConfig::new(channels, [size; 2])
            .with_stride([stride; 2])
            .with_padding(PaddingConfig2d::Explicit(pad, pad, pad, pad))
            .with_bias(false)
            .init(self.device)
    }

    fn block(&self, channels: [usize; 2], stride: usize) -> Block {
        let [_, out] = channels;
        let downsample = (stride != 1 || channels[0] != out).then(|| Downsample {
            conv: self.conv(channels, 1, stride),
            norm: self.norm(out, Activation::None),
        });
        Block {
            conv1: self.conv(channels, 3, stride),
            norm1: self.norm(out, Activation::Relu),
            conv2: self.conv([out, out], 3, 1),
            norm2: self.norm(out, Activation::Relu),
            downsample,
        }
    }
}

/// A residual block.
#[derive(Module, Debug)]
struct Block {
    conv1: Conv2d,
    norm1: Norm,
    conv2: Conv2d,
    norm2: Norm,
    downsample: Option<Downsample>,
}

#[derive(Module, Debug)]
struct Downsample {
    conv: Conv2d,
    norm: Norm,
}

/// A stem, two residual blocks and a head, for images of one channel and ten classes.
#[derive(Module, Debug)]
pub struct Network {
    conv1: Conv2d,
    norm1: Norm,
    layer1: Block,
    layer2: Block,
    fc: Linear,
    /// Whether filters are standardized.
    ws: bool,
}

impl Network {
    /// A network with the initial weights of a seed. The estimates of its norms, if it has such, move by `speed`.
    pub fn new(kind: NormKind, ws: bool, seed: u64, speed: &MovingSpeed, device: &Device) -> Self {
        let maker = Maker {
            kind,
            speed,
            device,
        };
        let network = Self {
            conv1: maker.conv([1, NUM_CHANNELS], 3, 2),
            norm1: maker.norm(NUM_CHANNELS, Activation::Relu),
            layer1: maker.block([NUM_CHANNELS, NUM_CHANNELS], 1),
            layer2: maker.block([NUM_CHANNELS, 2 * NUM_CHANNELS], 2),
            fc: LinearConfig::new(2 * NUM_CHANNELS, 10).init(device),
            ws,
        };
        // Convolutions and the head, in the network's order.
        let mut random = SplitMix64::new(seed);
        let mut fan_in = 0;
        let state = network.state().into_iter().map(|mut entry| {
            if entry.shape.len() == 4 || entry.name == "fc.weight" {
                fan_in = entry.shape[1..].iter().product();
            }
            if entry.shape.len() == 4 || entry.name.starts_with("fc.") {
                entry.values = random.weights(entry.values.len(), fan_in);
            }
            entry
        });
        let state = state.collect();
        network.with_state(state)
    }

    /// Logits `[batch, 10]` of images `[batch, 1, 28, 28]`.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let x = self.convolve(&self.conv1, images);
        let x = self.norm1.forward(x, None);
        let x = self.block(&self.layer2, self.block(&self.layer1, x));
        let pooled = x.mean_dims(&[2, 3]).flatten(1, 3);
        self.fc.forward(pooled)
    }

    fn block(&self, block: &Block, x: Tensor<4>) -> Tensor<4> {
        let shortcut = match &block.downsample {
            Some(Downsample { conv, norm }) => norm.forward(self.convolve(conv, x.clone()), None),
            None => x.clone(),
        };
        let z = block.norm1.forward(self.convolve(&block.conv1, x), None);
        let z = self.convolve(&block.conv2, z);
        block.norm2.forward(z, Some(shortcut))
    }

    fn convolve(&self, conv: &Conv2d, x: Tensor<4>) -> Tensor<4> {
        if !self.ws {
            return conv.forward(x);
        }
        let weight = weight_standardization(conv.weight.val(), WS_EPSILON);
        let pad = [conv.kernel_size[0] / 2; 2];
        conv2d(
            x,
            weight,
            None,
            ConvOptions::new(conv.stride, pad, [1, 1], 1),
        )
    }

    /// Parameters and running statistics, in the order of the layers.
    pub fn state(&self) -> Vec<Entry> {
        let mut collector = Collector::default();
        // Running statistics that a forward moved are in force only then.
        self.valid().visit(&mut collector);
        collector.entries
    }

    /// The network with the values of `entries`, which are those of [`state`](Self::state).
    pub fn with_state(self, entries: Vec<Entry>) -> Self {
        let values = entries.into_iter().map(|entry| {
            let values = entry.reordered(entry.values.clone(), &entry.shape);
            (entry.name, values)
        });
        let mut loader = Loader {
            path: Path::default(),
            values: values.collect(),
        };
        self.map(&mut loader)
    }
}

/// A tensor of the network's state as PyTorch has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its name in the state dict.
    pub name: String,
    /// burn's name for it.
    pub id: ParamId,
    /// PyTorch's shape.
    pub shape: Vec<usize>,
    /// burn's shape.
    pub dims: Vec<usize>,
    /// In row-major order of PyTorch's shape.
    pub values: Vec<f32>,
}

impl Entry {
    /// Values in burn's order, in PyTorch's; and those in PyTorch's, in burn's, if these are the `dims` of the values.
    pub fn reordered(&self, values: Vec<f32>, dims: &[usize]) -> Vec<f32> {
        match dims {
            &[rows, columns] if self.shape != self.dims => transpose(&values, [rows, columns]),
            _ => values,
        }
    }
}

/// Where a walk through the network is.
#[derive(Default)]
struct Path(Vec<(String, String)>);

impl Path {
    /// PyTorch's name.
    fn name(&self) -> String {
        let parts =
            self.0.iter().map(
                |(container, field)| match (container.as_str(), field.as_str()) {
                    ("Struct:Norm", "layer") => "",
                    ("Enum:Layer", _) => "",
                    ("Struct:Downsample", "conv") => "0",
                    ("Struct:Downsample", "norm") => "1",
                    ("Struct:BcNorm", "bn_gamma") => "bn.weight",
                    ("Struct:BcNorm", "bn_beta") => "bn.bias",
                    ("Struct:BcNorm", "running_mean") => "bn.running_mean",
                    ("Struct:BcNorm", "running_var") => "bn.running_var",
                    (_, "gamma") => "weight",
                    (_, "beta") => "bias",
                    (_, field) => field,
                },
            );
        let parts: Vec<&str> = parts.filter(|part| !part.is_empty()).collect();
        parts.join(".")
    }

    fn at(&self, container: &str, fields: &[&str]) -> bool {
        let last = self.0.last();
        last.is_some_and(|(c, field)| c == container && fields.contains(&field.as_str()))
    }

    /// PyTorch's shape of a tensor of burn's.
    fn shape(&self, dims: &[usize]) -> Vec<usize> {
        match dims {
            [inputs, outputs] if self.at("Struct:Linear", &["weight"]) => vec![*outputs, *inputs],
            [groups] if self.at("Struct:BcNorm", &["gamma", "beta"]) => vec![1, *groups, 1],
            dims => dims.to_vec(),
        }
    }
}

/// The values of a matrix of `rows` x `columns`, column by column.
fn transpose(values: &[f32], [rows, columns]: [usize; 2]) -> Vec<f32> {
    let at = |i: usize| values[i % rows * columns + i / rows];
    (0..values.len()).map(at).collect()
}

#[derive(Default)]
struct Collector {
    path: Path,
    entries: Vec<Entry>,
}

impl ModuleVisitor for Collector {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.0.push((container_type.into(), name.into()));
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.0.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = param.val();
        let mut entry = Entry {
            name: self.path.name(),
            id: param.id,
            shape: self.path.shape(&tensor.dims()),
            dims: tensor.dims().to_vec(),
            values: Vec::new(),
        };
        entry.values = entry.reordered(read(tensor), &entry.dims);
        self.entries.push(entry);
    }
}

struct Loader {
    path: Path,
    values: BTreeMap<String, Vec<f32>>,
}

impl ModuleMapper for Loader {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.0.push((container_type.into(), name.into()));
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.0.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.path.name();
        let values = self.values.remove(&name);
        let values = values.unwrap_or_else(|| panic!("no values for {name}"));
        param.map(|tensor| {
            let data = TensorData::new(values, tensor.dims());
            let loaded = Tensor::from_data(data, &tensor.device());
            loaded.set_require_grad(tensor.is_require_grad())
        })
    }
}

/// The values of a tensor, once they are computed.
pub fn read<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    let data = tensor.into_data().convert::<f32>();
    data.try_to_vec().expect("values of f32")
}
