// Channels as the group part sees them. Without a channel part there is no table of them: z is x, and a channel has the
// group part's weight at most, where that is per channel.
// #import params/groups
// #import tables

// #if channels
@group(0) @binding(1) var<storage, read> channels: array<StoredChannel>;
// #end
// #if weight
@group(0) @binding(2) var<storage, read> weight: array<f32>;
// #end

fn has_channel_part() -> bool {
    var has = false;
    // #if channels
    has = true;
    // #end
    return has;
}

fn weight_per_channel() -> bool {
    return (params.norm.flags & PER_CHANNEL) != 0u;
}

fn channel_entry(c: u32) -> Channel {
    var channel = unchanged_channel();
    // #if channels
    channel = channel_of(channels[c]);
    // #end
    // #if weight
    if (weight_per_channel() && !has_channel_part()) {
        channel.weight = weight[c];
    }
    // #end
    return channel;
}

// The group part's weight where it is per group, else 1: channels have it then.
fn group_weight(g: u32) -> f32 {
    var w = 1.0;
    // #if weight
    if (!weight_per_channel()) {
        w = weight[g];
    }
    // #end
    return w;
}
