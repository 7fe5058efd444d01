//! Twin of `shaders/parts/layout/channel_table.wgsl`: channels as the group part sees them.

use super::Call;
use crate::params::PER_CHANNEL;
use crate::tables::Channel;
use std::borrow::Cow;

/// Every channel. Without a channel part there is no table of them: z is x, and a channel has the group part's weight at
/// most, where that is per channel.
#[derive(Debug, Clone)]
pub(crate) struct ChannelTable<'a> {
    pub entries: Cow<'a, [Channel]>,
    pub has_channel_part: bool,
}

impl<'a> ChannelTable<'a> {
    /// Of the bindings of a kernel; `flags` are its norm's.
    pub fn new(
        flags: u32,
        num_channels: u32,
        channels: Option<&'a [Channel]>,
        weight: Option<&[f32]>,
    ) -> Self {
        let weight = weight.filter(|_| flags & PER_CHANNEL != 0);
        let unchanged = |c: usize| Channel {
            weight: weight.map_or(1.0, |weight| weight[c]),
            ..Channel::UNCHANGED
        };
        Self {
            has_channel_part: channels.is_some(),
            entries: match channels {
                Some(channels) => Cow::Borrowed(channels),
                None => (0..num_channels as usize).map(unchanged).collect(),
            },
        }
    }

    /// Of the bindings `channels` and `weight` of a step.
    pub fn of(call: &Call<'a>, flags: u32, num_channels: u32) -> Self {
        let weight = call.optional_table("weight");
        Self::new(flags, num_channels, call.optional_table("channels"), weight)
    }
}
