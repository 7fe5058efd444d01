//! What is normalized, and how: descriptors, checked when they are made into a plan.

pub use crate::dtype::{DType, Layout};

use crate::error::Error;

/// The channel part's eps: PyTorch's default, as in the paper's code.
pub const CHANNEL_EPS: f32 = 1e-5;

/// PyTorch's default momentum.
const MOMENTUM: f32 = 0.1;

/// A momentum and a moving speed.
const BOTH: Refused = Refused {
    given: "momentum and estbn_moving_speed at once",
    way_out: "set the momentum of batch statistics, or the moving speed of estimates (with_stats replaces either)",
};

/// Most elements of one tensor: kernels compute element indices modulo 2^32, in windows.
pub const MAX_ELEMENTS: u64 = 1 << 32;

/// Most elements of one row (one sample and channel): kernels count within a row in u32, with room for
/// rounding up.
pub const MAX_ROW: u64 = 1 << 31;

/// A contiguous tensor of shape (N, C, *spatial).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TensorDesc {
    dims: Vec<usize>,
    dtype: DType,
    layout: Layout,
    num_samples: u32,
    num_channels: u32,
    row_len: u32,
}

impl TensorDesc {
    /// Describes a tensor of shape (N, C, *spatial), rank 2 or more, of f32 with channels first. N and
    /// the spatial sizes may be 0.
    ///
    /// # Errors
    /// [`Error::Rank`], [`Error::TooManyElements`].
    pub fn new(dims: &[usize]) -> Result<Self, Error> {
        let [samples, channels, spatial @ ..] = dims else {
            return Err(Error::Rank { rank: dims.len() });
        };
        // A zero makes the tensor empty whatever the other sizes are; without one, no partial
        // product exceeds the whole.
        let product = |sizes: &[usize]| match sizes.contains(&0) {
            true => 0,
            false => sizes
                .iter()
                .fold(1u128, |product, &size| product.saturating_mul(size as u128)),
        };
        let (elements, sample, row_len) = (product(dims), product(&dims[1..]), product(spatial));
        let too_many = |what, elements, limit, way_out| {
            let dims = dims.to_vec();
            Err(Error::TooManyElements {
                dims,
                what,
                elements,
                limit,
                way_out,
            })
        };
        let most = u128::from(MAX_ELEMENTS);
        if elements > most {
            let way_out = match sample > most {
                true => smaller([false, *channels > 1, row_len > 1]),
                false => smaller([true, false, false]),
            };
            return too_many("elements", elements, MAX_ELEMENTS, way_out);
        }
        if elements > 0 && row_len > u128::from(MAX_ROW) {
            let what = "elements for each sample and channel";
            return too_many(what, row_len, MAX_ROW, "use smaller spatial sizes");
        }
        // Backward writes gradients for the channels of an empty tensor too; its other sizes may be anything, since
        // no kernel runs over them.
        let Ok(num_channels) = u32::try_from(*channels) else {
            let (count, most) = (*channels as u128, u64::from(u32::MAX));
            return too_many("channels", count, most, "use fewer channels");
        };
        let num_samples = match u32::try_from(*samples) {
            Err(_) if elements > 0 => {
                let (count, most) = (*samples as u128, u64::from(u32::MAX));
                return too_many("samples", count, most, "split the batch");
            }
            samples => samples.unwrap_or(u32::MAX),
        };
        Ok(Self {
            num_samples,
            num_channels,
            // At most MAX_ROW, unless the tensor is empty.
            row_len: u32::try_from(row_len).unwrap_or(u32::MAX),
            dims: dims.to_vec(),
            dtype: DType::F32,
            layout: Layout::ChannelsFirst,
        })
    }

    /// Describes the filters of a convolution, (O, *rest): what
    /// [`NormDesc::weight_standardization`] takes. Each filter is a sample of one channel.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn filters(dims: &[usize]) -> Result<Self, Error> {
        let [outputs, rest @ ..] = dims else {
            return Err(Error::Rank { rank: 0 });
        };
        let mut with_channel = vec![*outputs, 1];
        with_channel.extend(rest);
        Self::new(&with_channel)
    }

    /// Sets how the elements are stored.
    #[must_use]
    pub fn with_dtype(self, dtype: DType) -> Self {
        Self { dtype, ..self }
    }

    /// Sets their order in memory; the shape stays (N, C, *spatial).
    #[must_use]
    pub fn with_layout(self, layout: Layout) -> Self {
        Self { layout, ..self }
    }

    /// The shape, (N, C, *spatial) in either layout.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// How the elements are stored.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Their order in memory.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// N.
    pub fn num_samples(&self) -> u32 {
        self.num_samples
    }

    /// C.
    pub fn num_channels(&self) -> u32 {
        self.num_channels
    }

    /// Elements of one (sample, channel) plane, L: the product of the spatial sizes (1 without any).
    pub fn row_len(&self) -> u32 {
        self.row_len
    }

    /// Number of rows, N * C.
    pub fn rows(&self) -> u64 {
        u64::from(self.num_samples) * u64::from(self.num_channels)
    }

    /// Number of elements, N * C * L.
    pub fn elements(&self) -> u64 {
        if self.dims.contains(&0) {
            return 0;
        }
        self.rows() * u64::from(self.row_len)
    }

    /// What makes a tensor smaller: advice for where it is too large.
    pub(crate) fn smaller(&self) -> &'static str {
        smaller([self.num_samples, self.num_channels, self.row_len].map(|size| size > 1))
    }

    /// Size in bytes.
    pub fn bytes(&self) -> u64 {
        self.elements() * self.dtype.bytes()
    }

    /// Bytes that a buffer of it must have: storage bindings are a multiple of 4, so that an odd number
    /// of 16-bit elements is followed by one element of padding, which y and the gradients get as 0.
    pub fn buffer_bytes(&self) -> u64 {
        self.bytes().next_multiple_of(4)
    }
}

/// Advice to make smaller those that may be of batch, channels and space.
fn smaller(which: [bool; 3]) -> &'static str {
    match which {
        [true, true, true] => "split the batch, use fewer channels or smaller spatial sizes",
        [true, true, false] => "split the batch or use fewer channels",
        [true, false, true] => "split the batch or use smaller spatial sizes",
        [false, true, true] => "use fewer channels or smaller spatial sizes",
        [false, true, false] => "use fewer channels",
        [false, false, true] => "use smaller spatial sizes",
        [_, false, false] => "split the batch",
    }
}

/// Where the channel part's statistics come from.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum ChannelStats {
    /// `BatchNorm2d`: the batch's in training (biased variance; the gradient flows through them),
    /// the running ones in eval.
    Batch {
        /// Weight of the new batch in the running statistics, 0 to 1 (PyTorch: 0.1), or `None` for
        /// the cumulative average over `num_batches_tracked`.
        momentum: Option<f32>,
    },
    /// The authors' `EstBN`: running estimates normalize, in training too; no gradient flows
    /// through them.
    Estimate {
        /// `estbn_moving_speed`, 0 to 1: weight of the batch in the running estimates.
        moving_speed: f32,
    },
}

impl Default for ChannelStats {
    fn default() -> Self {
        ChannelStats::Batch {
            momentum: Some(MOMENTUM),
        }
    }
}

/// Training or inference, as `nn.Module.training`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Mode {
    /// Batch or estimated statistics; running statistics are updated.
    Train,
    /// Running statistics, unchanged.
    Eval,
}

/// Which norm of the family; it decides the names in a state dict and what is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NormKind {
    /// `nn.BatchNorm1d`, `2d`, `3d`.
    BatchNorm,
    /// The authors' `EstBN` alone.
    EstBn,
    /// `nn.GroupNorm`.
    GroupNorm,
    /// `nn.InstanceNorm1d`, `2d`, `3d`.
    InstanceNorm,
    /// Layer normalization over (C, *spatial) with an affine per channel.
    LayerNorm,
    /// Batch-Channel Normalization.
    BcNorm,
    /// Weight Standardization.
    WeightStandardization,
}

impl NormKind {
    /// Every kind.
    pub const ALL: &[NormKind] = &[
        NormKind::BatchNorm,
        NormKind::EstBn,
        NormKind::GroupNorm,
        NormKind::InstanceNorm,
        NormKind::LayerNorm,
        NormKind::BcNorm,
        NormKind::WeightStandardization,
    ];

    /// Its name in snake case, as the command and the golden files write it.
    pub const fn name(self) -> &'static str {
        match self {
            NormKind::BatchNorm => "batch_norm",
            NormKind::EstBn => "est_bn",
            NormKind::GroupNorm => "group_norm",
            NormKind::InstanceNorm => "instance_norm",
            NormKind::LayerNorm => "layer_norm",
            NormKind::BcNorm => "bc_norm",
            NormKind::WeightStandardization => "weight_standardization",
        }
    }
}

/// A norm of the family: a channel part (a normalization of each channel over (N, *spatial)), a group
/// part (of each sample's groups of channels over their channels and space), or both, the group part on
/// the channel part's output.
///
/// Make one with the constructor of its name; the fields hold what `torch.nn`'s arguments of these names
/// hold. A momentum or moving speed that the norm has no use for, or one after the other, is an error
/// ([`validate`](Self::validate)); other fields that it has no use for are ignored.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct NormDesc {
    /// Which norm.
    pub kind: NormKind,
    /// C.
    pub num_channels: usize,
    /// G of the group part, a divisor of C.
    pub num_groups: usize,
    /// eps, finite and not negative: the group part's, where there is one (with BCNorm the channel
    /// part's is [`CHANNEL_EPS`]). With eps = 0, a variance of 0 yields the bias.
    pub eps: f32,
    /// Where the channel part's statistics come from; for InstanceNorm the momentum of its running
    /// statistics.
    pub stats: ChannelStats,
    /// Whether there is a `weight`.
    pub weight: bool,
    /// Whether there is a `bias`.
    pub bias: bool,
    /// BCNorm: whether there is a `bn.weight`.
    pub bn_weight: bool,
    /// BCNorm: whether there is a `bn.bias`.
    pub bn_bias: bool,
    /// BCNorm: `weight` and `bias` per channel, (C), rather than per group, (G), as in the paper.
    pub per_channel_affine: bool,
    /// Whether there are running statistics. Without them the input's own are used in eval too.
    pub track_running_stats: bool,
    /// What was asked of `stats` and cannot be.
    pub(crate) refused: Option<Refused>,
}

/// Why channel statistics cannot be had.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Refused {
    given: &'static str,
    way_out: &'static str,
}

impl ChannelStats {
    const fn given(self) -> &'static str {
        match self {
            ChannelStats::Batch { .. } => "momentum",
            ChannelStats::Estimate { .. } => "estbn_moving_speed",
        }
    }
}

impl NormKind {
    /// Why it cannot have such channel statistics, if it cannot.
    const fn refuses(self, stats: ChannelStats) -> Option<Refused> {
        let way_out = match (self, stats) {
            (NormKind::BatchNorm, ChannelStats::Estimate { .. }) => {
                "a batch norm with estimates is est_bn"
            }
            (NormKind::EstBn, ChannelStats::Batch { .. }) => {
                "its estimates move by estbn_moving_speed, and with batch statistics it is batch_norm"
            }
            (NormKind::InstanceNorm, ChannelStats::Estimate { .. }) => {
                "its running statistics have a momentum"
            }
            (NormKind::GroupNorm | NormKind::LayerNorm | NormKind::WeightStandardization, _) => {
                "it has no running statistics"
            }
            _ => return None,
        };
        let given = stats.given();
        Some(Refused { given, way_out })
    }
}

/// What the channel part does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChannelPart {
    /// There is none.
    None,
    /// The batch's statistics normalize; gradients flow through them.
    Batch,
    /// Estimates are moved first, then normalize.
    Estimate,
    /// Running statistics as they are.
    Running,
}

impl ChannelPart {
    /// Whether this batch's values enter the statistics in force.
    pub fn reads_batch(self) -> bool {
        matches!(self, ChannelPart::Batch | ChannelPart::Estimate)
    }
}

impl NormDesc {
    const fn new(kind: NormKind, num_channels: usize, num_groups: usize) -> Self {
        Self {
            kind,
            num_channels,
            num_groups,
            eps: 1e-5,
            stats: ChannelStats::Batch {
                momentum: Some(MOMENTUM),
            },
            weight: true,
            bias: true,
            bn_weight: true,
            bn_bias: true,
            per_channel_affine: true,
            track_running_stats: true,
            refused: None,
        }
    }

    /// `nn.BatchNorm1d/2d/3d(num_channels)`: eps 1e-5, momentum 0.1, affine, running statistics.
    pub const fn batch_norm(num_channels: usize) -> Self {
        Self::new(NormKind::BatchNorm, num_channels, 1)
    }

    /// The authors' `EstBN(num_channels)`: moving speed 0, affine.
    pub const fn est_bn(num_channels: usize) -> Self {
        let mut norm = Self::new(NormKind::EstBn, num_channels, 1);
        norm.stats = ChannelStats::Estimate { moving_speed: 0.0 };
        norm
    }

    /// `nn.GroupNorm(num_groups, num_channels)`: eps 1e-5, affine per channel.
    pub const fn group_norm(num_groups: usize, num_channels: usize) -> Self {
        let mut norm = Self::new(NormKind::GroupNorm, num_channels, num_groups);
        norm.track_running_stats = false;
        norm
    }

    /// `nn.InstanceNorm1d/2d/3d(num_channels)`: eps 1e-5, momentum 0.1, no affine, no running
    /// statistics.
    pub const fn instance_norm(num_channels: usize) -> Self {
        let mut norm = Self::new(NormKind::InstanceNorm, num_channels, num_channels);
        norm.weight = false;
        norm.bias = false;
        norm.track_running_stats = false;
        norm
    }

    /// The norm of a kind as its own constructor makes it; kinds without groups or channels ignore these numbers.
    pub const fn of_kind(kind: NormKind, num_channels: usize, num_groups: usize) -> Self {
        match kind {
            NormKind::BatchNorm => Self::batch_norm(num_channels),
            NormKind::EstBn => Self::est_bn(num_channels),
            NormKind::GroupNorm => Self::group_norm(num_groups, num_channels),
            NormKind::InstanceNorm => Self::instance_norm(num_channels),
            NormKind::LayerNorm => Self::layer_norm(num_channels),
            NormKind::BcNorm => Self::bc_norm(num_channels, num_groups),
            NormKind::WeightStandardization => Self::weight_standardization(),
        }
    }

    /// Layer normalization over (C, *spatial): eps 1e-5, affine per channel (`nn.GroupNorm(1, C)`; on
    /// (N, C) it is `nn.LayerNorm(C)`).
    pub const fn layer_norm(num_channels: usize) -> Self {
        let mut norm = Self::new(NormKind::LayerNorm, num_channels, 1);
        norm.track_running_stats = false;
        norm
    }

    /// Batch-Channel Normalization (Qiao et al. 2019, arXiv:1911.09738): a channel normalization over
    /// (N, *spatial) with per-channel affine, then a normalization of each (sample, group) over its
    /// C/G channels and space, with per-group affine. Batch statistics with momentum 0.1, eps 1e-5.
    pub const fn bc_norm(num_channels: usize, num_groups: usize) -> Self {
        let mut norm = Self::new(NormKind::BcNorm, num_channels, num_groups);
        norm.per_channel_affine = false;
        norm
    }

    /// Weight Standardization (Qiao et al. 2019, arXiv:1903.10520): each filter less its mean, divided
    /// by the square root of its unbiased variance + 1e-5. Its tensor is
    /// [`TensorDesc::filters`]. `docs/weights.md` says how to have the forms of timm and mmcv.
    pub const fn weight_standardization() -> Self {
        let mut norm = Self::new(NormKind::WeightStandardization, 1, 1);
        norm.weight = false;
        norm.bias = false;
        norm.track_running_stats = false;
        norm
    }

    /// Sets eps.
    #[must_use]
    pub const fn with_eps(mut self, eps: f32) -> Self {
        self.eps = eps;
        self
    }

    /// Sets where the channel statistics come from, in place of what was set before. A norm that has no such
    /// statistics is refused ([`validate`](Self::validate)).
    #[must_use]
    pub const fn with_stats(mut self, stats: ChannelStats) -> Self {
        self.refused = self.kind.refuses(stats);
        if self.refused.is_none() {
            self.stats = stats;
        }
        self
    }

    /// Sets batch statistics with this momentum (`None`: the cumulative average). After
    /// [`with_moving_speed`](Self::with_moving_speed) the norm is refused: it has one or the other.
    #[must_use]
    pub const fn with_momentum(self, momentum: Option<f32>) -> Self {
        let both = matches!(self.stats, ChannelStats::Estimate { .. });
        self.with_one(ChannelStats::Batch { momentum }, both)
    }

    /// Sets estimated statistics with this moving speed. After a
    /// [`with_momentum`](Self::with_momentum) of another than the default the norm is refused: it has one or
    /// the other.
    #[must_use]
    pub const fn with_moving_speed(self, moving_speed: f32) -> Self {
        let both = match self.stats {
            ChannelStats::Batch { momentum } => !matches!(momentum, Some(MOMENTUM)),
            ChannelStats::Estimate { .. } => false,
        };
        self.with_one(ChannelStats::Estimate { moving_speed }, both)
    }

    /// Sets one of momentum and moving speed; what was refused before stays so.
    const fn with_one(self, stats: ChannelStats, both: bool) -> Self {
        let mut norm = self.with_stats(stats);
        norm.refused = match (self.refused, norm.refused) {
            (Some(before), _) => Some(before),
            (None, None) if both => Some(BOTH),
            (None, now) => now,
        };
        norm
    }

    /// Sets whether there is a `weight`.
    #[must_use]
    pub const fn with_weight(mut self, weight: bool) -> Self {
        self.weight = weight;
        self
    }

    /// Sets whether there is a `bias`.
    #[must_use]
    pub const fn with_bias(mut self, bias: bool) -> Self {
        self.bias = bias;
        self
    }

    /// Sets whether BCNorm's channel part has a `bn.weight`.
    #[must_use]
    pub const fn with_bn_weight(mut self, weight: bool) -> Self {
        self.bn_weight = weight;
        self
    }

    /// Sets whether BCNorm's channel part has a `bn.bias`.
    #[must_use]
    pub const fn with_bn_bias(mut self, bias: bool) -> Self {
        self.bn_bias = bias;
        self
    }

    /// Sets whether BCNorm's `weight` and `bias` are per channel.
    #[must_use]
    pub const fn with_per_channel_affine(mut self, per_channel: bool) -> Self {
        self.per_channel_affine = per_channel;
        self
    }

    /// Sets whether there are running statistics.
    #[must_use]
    pub const fn with_track_running_stats(mut self, track: bool) -> Self {
        self.track_running_stats = track;
        self
    }

    /// Whether backward reads `weight`: without a channel part no table of channels has it.
    pub(crate) fn backward_reads_weight(&self, mode: Mode) -> bool {
        self.weight && self.channel_part(mode) == ChannelPart::None
    }

    /// What the channel part does in this mode.
    pub(crate) fn channel_part(&self, mode: Mode) -> ChannelPart {
        let training = mode == Mode::Train;
        match self.kind {
            NormKind::GroupNorm | NormKind::LayerNorm | NormKind::WeightStandardization => {
                ChannelPart::None
            }
            // In eval the running statistics of InstanceNorm are a batch norm's.
            NormKind::InstanceNorm if training || !self.track_running_stats => ChannelPart::None,
            NormKind::InstanceNorm => ChannelPart::Running,
            NormKind::BatchNorm | NormKind::EstBn | NormKind::BcNorm => match self.stats {
                ChannelStats::Estimate { .. } if training => ChannelPart::Estimate,
                ChannelStats::Batch { .. } if training || !self.track_running_stats => {
                    ChannelPart::Batch
                }
                _ => ChannelPart::Running,
            },
        }
    }

    /// Whether there is a group part in this mode.
    pub(crate) fn has_group_part(&self, mode: Mode) -> bool {
        match self.kind {
            NormKind::BatchNorm | NormKind::EstBn => false,
            NormKind::InstanceNorm => self.channel_part(mode) == ChannelPart::None,
            _ => true,
        }
    }

    /// Whether this norm keeps running statistics at all.
    pub fn has_running_stats(&self) -> bool {
        match self.kind {
            NormKind::InstanceNorm => self.track_running_stats,
            NormKind::BatchNorm | NormKind::EstBn | NormKind::BcNorm => {
                self.track_running_stats || matches!(self.stats, ChannelStats::Estimate { .. })
            }
            NormKind::GroupNorm | NormKind::LayerNorm | NormKind::WeightStandardization => false,
        }
    }

    /// Values of `weight` and `bias`: (G) for BCNorm as in the paper, else (C).
    pub fn affine_len(&self) -> usize {
        match self.kind {
            NormKind::BcNorm if !self.per_channel_affine => self.num_groups,
            _ => self.num_channels,
        }
    }

    /// Checks the norm by itself.
    ///
    /// # Errors
    /// [`Error::NoChannels`], [`Error::Groups`], [`Error::Parameter`], [`Error::Stats`].
    pub fn validate(&self) -> Result<(), Error> {
        let &Self {
            num_channels,
            num_groups,
            eps,
            stats,
            ..
        } = self;
        if num_channels == 0 {
            return Err(Error::NoChannels);
        }
        if num_groups == 0 || num_channels % num_groups != 0 {
            return Err(Error::Groups {
                num_groups,
                num_channels,
            });
        }
        // `contains` is false for NaN.
        if !(0.0..=f32::MAX).contains(&eps) {
            return Err(Error::Parameter {
                name: "eps",
                value: eps,
                range: "finite and not negative",
            });
        }
        // What no constructor and no call of with_stats sets is someone's choice.
        let untouched = match self.kind {
            NormKind::GroupNorm | NormKind::LayerNorm | NormKind::WeightStandardization => {
                stats == ChannelStats::default()
            }
            _ => false,
        };
        let refused = self.kind.refuses(stats).filter(|_| !untouched);
        if let Some(Refused { given, way_out }) = self.refused.or(refused) {
            return Err(Error::Stats {
                norm: self.kind.name(),
                given,
                way_out,
            });
        }
        let (name, value) = match stats {
            ChannelStats::Batch { momentum: None } => return Ok(()),
            ChannelStats::Batch {
                momentum: Some(momentum),
            } => ("momentum", momentum),
            ChannelStats::Estimate { moving_speed } => ("estbn_moving_speed", moving_speed),
        };
        if !(0.0..=1.0).contains(&value) {
            return Err(Error::Parameter {
                name,
                value,
                range: "from 0 to 1",
            });
        }
        Ok(())
    }

    /// Checks the norm against a tensor.
    ///
    /// # Errors
    /// Those of [`validate`](Self::validate), [`Error::ChannelMismatch`], and, as in PyTorch,
    /// [`Error::OneValuePerChannel`]: statistics of a single value, with batch statistics (BatchNorm,
    /// BCNorm), per instance (InstanceNorm), per filter (Weight Standardization), or in the only group
    /// of the batch (GroupNorm).
    pub fn validate_for(&self, tensor: &TensorDesc, mode: Mode) -> Result<(), Error> {
        self.validate()?;
        if tensor.num_channels() as usize != self.num_channels {
            return Err(Error::ChannelMismatch {
                dims: tensor.dims().to_vec(),
                found: tensor.num_channels() as usize,
                expected: self.num_channels,
            });
        }
        let samples = u64::from(tensor.num_samples());
        let row = u64::from(tensor.row_len());
        let group = (self.num_channels / self.num_groups) as u64;
        let whose = |training, eval| match mode {
            Mode::Train => training,
            Mode::Eval => eval,
        };
        // Values behind the statistics, and what they are of.
        let (values, of) = match self.kind {
            _ if tensor.elements() == 0 => return Ok(()),
            NormKind::InstanceNorm if self.has_group_part(mode) => {
                let eval = "sample and channel without running statistics";
                (row, whose("sample and channel when training", eval))
            }
            NormKind::WeightStandardization => (row, "filter"),
            NormKind::GroupNorm => (samples * group * row, "group"),
            NormKind::LayerNorm => return Ok(()),
            _ if self.channel_part(mode) == ChannelPart::Batch => {
                let eval = "channel without running statistics";
                (samples * row, whose("channel when training", eval))
            }
            _ => return Ok(()),
        };
        if values > 1 {
            return Ok(());
        }
        // Running statistics are what eval uses instead, where there are any.
        let eval = match (mode, self.has_running_stats()) {
            (Mode::Train, true) => "use eval(), or ",
            _ => "use ",
        };
        let larger = match self.kind {
            NormKind::InstanceNorm => "larger spatial sizes",
            NormKind::WeightStandardization => "larger filters",
            NormKind::GroupNorm => "a larger batch, larger spatial sizes or fewer groups",
            _ => "a larger batch, larger spatial sizes or estimated statistics (EstBN's)",
        };
        Err(Error::OneValuePerChannel {
            dims: tensor.dims().to_vec(),
            of,
            way_out: format!("{eval}{larger}"),
        })
    }
}

/// What the second pass applies after the norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Activation {
    /// Nothing.
    #[default]
    None,
    /// max(t, 0); a NaN stays.
    Relu,
    /// t / (1 + exp(-t)).
    Silu,
}

/// What is fused into the second pass: y = activation(norm(x) + residual).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub struct Fusion {
    /// The activation, applied last.
    pub activation: Activation,
    /// Whether a residual of x's shape, type and layout is added before the activation.
    pub residual: bool,
}

impl Fusion {
    /// Nothing is fused: y = norm(x).
    pub const NONE: Fusion = Fusion {
        activation: Activation::None,
        residual: false,
    };

    /// Sets the activation.
    #[must_use]
    pub const fn with_activation(mut self, activation: Activation) -> Self {
        self.activation = activation;
        self
    }

    /// Sets whether a residual is added before the activation.
    #[must_use]
    pub const fn with_residual(mut self, residual: bool) -> Self {
        self.residual = residual;
        self
    }
}

/// Whether a gradient replaces what is in its buffer or is added to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum GradientMode {
    /// The buffer's old content is not read.
    #[default]
    Replace,
    /// Added, as PyTorch's `.grad` does.
    Accumulate,
}
