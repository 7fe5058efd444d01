//! What is normalized, and how: descriptors, checked when they are made into a plan.

use crate::error::Error;

/// The channel part's eps: PyTorch's default, as in the paper's code.
pub const CHANNEL_EPS: f32 = 1e-5;

/// Most elements of one tensor: kernels compute word and element indices in u32, with room for the
/// rounding up of the last part.
pub const MAX_ELEMENTS: u64 = 1 << 31;

/// A contiguous tensor (N, C, *spatial) of f32.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TensorDesc {
    dims: Vec<usize>,
    num_samples: u32,
    num_channels: u32,
    row_len: u32,
}

impl TensorDesc {
    /// Describes a tensor of shape (N, C, *spatial), rank 2 or more. N and the spatial sizes may be 0.
    ///
    /// # Errors
    /// [`Error::Rank`], [`Error::TooManyElements`].
    pub fn new(dims: &[usize]) -> Result<Self, Error> {
        let [samples, channels, spatial @ ..] = dims else {
            return Err(Error::Rank { rank: dims.len() });
        };
        // A zero makes the tensor empty whatever the other sizes are; without one, no partial
        // product exceeds the whole.
        let elements = if dims.contains(&0) {
            0
        } else {
            dims.iter()
                .fold(1u128, |product, &size| product.saturating_mul(size as u128))
        };
        let row_len = if spatial.contains(&0) {
            0
        } else {
            spatial
                .iter()
                .fold(1u128, |product, &size| product.saturating_mul(size as u128))
        };
        let too_many = Error::TooManyElements {
            dims: dims.to_vec(),
            elements,
            limit: MAX_ELEMENTS,
        };
        if elements > u128::from(MAX_ELEMENTS) {
            return Err(too_many);
        }
        // The sizes of an empty tensor may be anything; no kernel runs over them.
        let fits = |size: u128| match u32::try_from(size) {
            Err(_) if elements == 0 => Ok(u32::MAX),
            size => size.map_err(|_| too_many.clone()),
        };
        Ok(Self {
            num_samples: fits(*samples as u128)?,
            num_channels: fits(*channels as u128)?,
            row_len: fits(row_len)?,
            dims: dims.to_vec(),
        })
    }

    /// The shape, (N, C, *spatial).
    pub fn dims(&self) -> &[usize] {
        &self.dims
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

    /// Size in bytes.
    pub fn bytes(&self) -> u64 {
        self.elements() * 4
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
            momentum: Some(0.1),
        }
    }
}

/// Training or inference, as `nn.Module.training`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Batch or estimated statistics; running statistics are updated.
    Train,
    /// Running statistics, unchanged.
    Eval,
}

/// Batch-Channel Normalization (Qiao et al. 2019, arXiv:1911.09738): a channel normalization over
/// (N, *spatial) with per-channel affine, then a normalization of each (sample, group) over its
/// C/G channels and space, with per-group affine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BcNormDesc {
    /// C.
    pub num_channels: usize,
    /// G, a divisor of C.
    pub num_groups: usize,
    /// eps of the group part, finite and not negative. The channel part's is [`CHANNEL_EPS`].
    /// With eps = 0, a group of variance 0 yields its bias.
    pub eps: f32,
    /// Where the channel part's statistics come from.
    pub stats: ChannelStats,
}

impl BcNormDesc {
    /// Batch statistics with momentum 0.1 and eps 1e-5.
    pub fn new(num_channels: usize, num_groups: usize) -> Self {
        Self {
            num_channels,
            num_groups,
            eps: 1e-5,
            stats: ChannelStats::default(),
        }
    }

    /// Sets eps of the group part.
    pub fn with_eps(self, eps: f32) -> Self {
        Self { eps, ..self }
    }

    /// Sets where the channel statistics come from.
    pub fn with_stats(self, stats: ChannelStats) -> Self {
        Self { stats, ..self }
    }

    /// Checks the norm by itself.
    ///
    /// # Errors
    /// [`Error::NoChannels`], [`Error::Groups`], [`Error::Parameter`].
    pub fn validate(&self) -> Result<(), Error> {
        let &Self {
            num_channels,
            num_groups,
            eps,
            stats,
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
    /// Those of [`validate`](Self::validate), [`Error::ChannelMismatch`],
    /// [`Error::OneValuePerChannel`].
    pub fn validate_for(&self, tensor: &TensorDesc, mode: Mode) -> Result<(), Error> {
        self.validate()?;
        if tensor.num_channels() as usize != self.num_channels {
            return Err(Error::ChannelMismatch {
                dims: tensor.dims().to_vec(),
                found: tensor.num_channels() as usize,
                expected: self.num_channels,
            });
        }
        let values = u64::from(tensor.num_samples()) * u64::from(tensor.row_len());
        if mode == Mode::Train && matches!(self.stats, ChannelStats::Batch { .. }) && values == 1 {
            return Err(Error::OneValuePerChannel {
                dims: tensor.dims().to_vec(),
            });
        }
        Ok(())
    }
}

/// Whether a gradient replaces what is in its buffer or is added to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Write {
    /// The buffer's old content is not read.
    #[default]
    Replace,
    /// Added, as PyTorch's `.grad` does.
    Accumulate,
}
