#!/usr/bin/env python3
"""Makes the golden vectors of `family`: one call of a norm per file, with what PyTorch makes of it in f64.

README.md beside this file says what a file holds. Every case is drawn from a seed of its own (its
name's CRC), so that a case can be added or made alone without changing the others, and made twice and
compared byte by byte.

    python generate.py                      writes family/*.safetensors
    python generate.py --only .f16          those with .f16 in their names
    python generate.py --check              writes nothing; fails where a file is not what would be written
    python generate.py --given .            recomputes the 48 given cases, and compares
"""

import argparse
import json
import math
import struct
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import nn

HERE = Path(__file__).resolve().parent
TORCH_TYPE = {"f64": torch.float64, "f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
FILE_TYPE = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
# eps of Weight Standardization, of EstBN and of BCNorm's channel part: fixed in the authors' code.
FIXED_EPS = 1e-5
# ReLU: how near to 0 an element may come, in units of the largest.
RELU_MARGIN = 1e-3


@dataclass(frozen=True)
class Case:
    """One file. The options are torch.nn's, where it has them."""

    norm: str
    what: str
    shape: tuple
    groups: int = 1
    training: bool = True
    dtype: str = "f32"
    eps: float = 1e-5
    weight: bool = True
    bias: bool = True
    bn_weight: bool = True
    bn_bias: bool = True
    per_channel: bool = True
    # None: what the norm does by default.
    track: bool | None = None
    estimate: bool = False
    momentum: float | None = 0.1
    moving_speed: float = 0.0
    num_batches_tracked: int = 0
    activation: str = "none"
    residual: bool = False
    mean: float = 0.0
    std: float = 1.0
    constant_filter: bool = False

    @property
    def name(self):
        return f"{self.norm}.{self.what}.{'train' if self.training else 'eval'}"

    @property
    def channels(self):
        return self.shape[1]

    @property
    def tracked(self):
        if self.track is not None:
            return self.track
        return self.norm in ("batch_norm", "est_bn", "bc_norm", "ws_conv_bc_norm")

    @property
    def has_bn(self):
        """Whether the channel part's entries are called `bn.*`."""
        return self.norm in ("bc_norm", "ws_conv_bc_norm")

    @property
    def running(self):
        """Names of the running statistics."""
        prefix = "bn." if self.has_bn else ""
        return [prefix + "running_mean", prefix + "running_var"] if self.tracked else []

    @property
    def parameters(self):
        """Names and lengths of the parameters that there are."""
        if self.norm == "weight_standardization":
            return {}
        length = self.channels if self.per_channel else self.groups
        names = {}
        if self.has_bn and self.bn_weight:
            names["bn.weight"] = self.channels
        if self.has_bn and self.bn_bias:
            names["bn.bias"] = self.channels
        if self.weight:
            names["weight"] = length
        if self.bias:
            names["bias"] = length
        return names


def cases():
    """Every case. Small ones: what a size does to a kernel is the other tests' business."""
    found = []

    def add(norm, what, shape, modes="t", **options):
        for mode in modes:
            found.append(Case(norm, what, shape, training=mode == "t", **options))

    # BatchNorm1d, 2d, 3d.
    add("batch_norm", "nc", (37, 11), "te")
    add("batch_norm", "ncl", (5, 7, 13), "te")
    add("batch_norm", "2d", (4, 8, 4, 4), "te")
    add("batch_norm", "3d", (3, 5, 3, 3, 4), "te")
    add("batch_norm", "long_rows", (1, 3, 257))
    add("batch_norm", "cumulative", (3, 6, 5, 4), momentum=None, num_batches_tracked=3)
    add("batch_norm", "no_affine", (3, 6, 5, 4), weight=False, bias=False)
    add("batch_norm", "weight_only", (3, 6, 5, 4), "te", bias=False)
    add("batch_norm", "untracked", (3, 6, 5, 4), "te", track=False)
    add("batch_norm", "options", (3, 6, 5, 4), eps=1e-3, momentum=0.3)
    add("batch_norm", "offset1e3", (3, 6, 5, 4), mean=1000.0, std=0.5)

    # The authors' EstBN alone.
    add("est_bn", "2d", (3, 6, 5, 5), "te", estimate=True, moving_speed=0.25)
    add("est_bn", "speed0", (4, 6, 3, 5), estimate=True)
    add("est_bn", "speed1", (4, 6, 3, 5), estimate=True, moving_speed=1.0)
    add("est_bn", "weight_only", (4, 6, 3, 5), estimate=True, moving_speed=0.0625, bias=False)

    # GroupNorm.
    add("group_norm", "4groups", (3, 12, 4, 4), groups=4)
    add("group_norm", "1group", (3, 8, 4, 4), groups=1)
    add("group_norm", "c_groups", (3, 8, 4, 4), groups=8)
    add("group_norm", "7x7", (2, 6, 7, 7), groups=3)
    add("group_norm", "1x1", (9, 15, 1, 1), groups=3)
    add("group_norm", "nc", (13, 24), groups=6)
    add("group_norm", "ncl", (3, 6, 23), groups=2)
    add("group_norm", "3d", (2, 6, 3, 4, 3), groups=2)
    add("group_norm", "no_affine", (2, 6, 5, 5), groups=3, weight=False, bias=False)
    add("group_norm", "weight_only", (2, 6, 5, 5), groups=3, bias=False)
    add("group_norm", "bias_only", (2, 6, 5, 5), groups=3, weight=False)
    add("group_norm", "offset1e3", (2, 6, 5, 5), groups=3, mean=1000.0, std=0.5)
    add("group_norm", "eps1e-3", (2, 6, 5, 5), groups=3, eps=1e-3, std=0.05)

    # InstanceNorm1d, 2d, 3d: by default without affine and running statistics.
    plain = {"weight": False, "bias": False}
    for what, shape in ("1d", (3, 5, 19)), ("2d", (3, 5, 5, 5)), ("3d", (2, 4, 3, 4, 3)):
        add("instance_norm", what, shape, groups=shape[1], **plain)
        add("instance_norm", what + "_tracked", shape, "te", groups=shape[1], track=True, **plain)
    add("instance_norm", "eval_as_train", (3, 5, 5, 5), "e", groups=5, **plain)
    add("instance_norm", "affine", (3, 5, 5, 5), groups=5)
    add("instance_norm", "affine_tracked", (3, 4, 6, 5), "te", groups=4, track=True)
    add("instance_norm", "momentum_none", (3, 4, 3, 5), groups=4, track=True, momentum=None)
    add("instance_norm", "offset1e3", (3, 4, 5, 5), groups=4, track=True, mean=1000.0, std=0.5)

    # LayerNorm over (C, *spatial), affine per channel.
    add("layer_norm", "nc", (15, 31))
    add("layer_norm", "ncl", (3, 7, 17))
    add("layer_norm", "2d", (3, 8, 4, 5))
    add("layer_norm", "3d", (2, 5, 3, 4, 3))
    add("layer_norm", "no_affine", (2, 6, 5, 5), weight=False, bias=False)
    add("layer_norm", "weight_only", (2, 6, 5, 5), bias=False)
    add("layer_norm", "offset1e3", (2, 6, 5, 5), mean=1000.0, std=0.5)

    # BCNorm beyond the 48: affine per channel, none, other ranks, other statistics.
    bc = {"groups": 3, "per_channel": False}
    add("bc_norm", "per_channel", (3, 9, 4, 4), "te", groups=3)
    add("bc_norm", "per_channel_estimate", (3, 9, 4, 4), "te", groups=3, estimate=True, moving_speed=0.25)
    add("bc_norm", "no_affine", (3, 6, 5, 4), "te", bn_weight=False, bn_bias=False, **bc, **plain)
    add("bc_norm", "no_group_affine", (3, 6, 5, 4), **bc, **plain)
    add("bc_norm", "no_channel_affine", (3, 6, 5, 4), "te", bn_weight=False, bn_bias=False, **bc)
    add("bc_norm", "weights_only", (3, 6, 5, 4), bias=False, bn_bias=False, **bc)
    add("bc_norm", "untracked", (3, 6, 5, 4), "te", track=False, **bc)
    add("bc_norm", "cumulative", (3, 6, 5, 4), momentum=None, num_batches_tracked=4, **bc)
    add("bc_norm", "nc", (13, 24), groups=4, per_channel=False)
    add("bc_norm", "ncl", (3, 6, 19), **bc)
    add("bc_norm", "3d", (2, 6, 3, 4, 3), **bc)

    # Weight Standardization: filters of the size that an initialization gives.
    add("weight_standardization", "1x1", (20, 24, 1, 1), std=0.1)
    add("weight_standardization", "3x3", (8, 7, 3, 3), std=0.1)
    add("weight_standardization", "depthwise", (40, 1, 3, 3), std=0.2)
    add("weight_standardization", "1d", (12, 8, 5), std=0.1)
    add("weight_standardization", "offset", (8, 7, 3, 3), mean=1.0, std=0.01)
    add("weight_standardization", "constant_filter", (8, 7, 3, 3), std=0.1, constant_filter=True)

    # Fused activations and residuals.
    fused = [
        ("batch_norm", (2, 6, 5, 5), {}),
        ("group_norm", (2, 6, 5, 5), {"groups": 3}),
        ("bc_norm", (2, 6, 5, 5), bc),
    ]
    for norm, shape, options in fused:
        for activation in "relu", "silu":
            add(norm, activation, shape, activation=activation, **options)
            add(norm, activation + "_residual", shape, activation=activation, residual=True, **options)
        add(norm, "residual", shape, residual=True, **options)
    add("batch_norm", "relu_residual", (2, 6, 5, 5), "e", activation="relu", residual=True)
    add("bc_norm", "silu_residual", (2, 6, 5, 5), "e", activation="silu", residual=True, **bc)
    add("bc_norm", "relu_estimate", (2, 6, 5, 5), activation="relu", estimate=True, moving_speed=0.25, **bc)
    relu = {"activation": "relu", "residual": True}
    add("est_bn", "relu_residual", (2, 6, 5, 5), estimate=True, moving_speed=0.25, **relu)
    add("instance_norm", "relu_residual", (3, 5, 5, 5), "te", groups=5, track=True, **relu)
    add("layer_norm", "silu_residual", (2, 6, 5, 5), activation="silu", residual=True)

    # 16 bits. Odd rows and an odd number of elements, then even ones.
    for dtype in "f16", "bf16":
        small = {"dtype": dtype}
        add("batch_norm", dtype, (3, 7, 5, 5), "te", **small)
        add("batch_norm", dtype + "_long_rows", (1, 3, 257), **small)
        add("group_norm", dtype, (3, 9, 5, 5), groups=3, **small)
        add("group_norm", dtype + "_even", (2, 8, 4, 6), groups=2, **small)
        add("bc_norm", dtype, (3, 9, 5, 5), dtype=dtype, **bc)
        add("bc_norm", dtype + "_estimate", (3, 9, 5, 5), dtype=dtype, estimate=True, moving_speed=0.25, **bc)
        add("layer_norm", dtype, (3, 5, 5, 7), **small)
        add("layer_norm", dtype + "_nc", (15, 37), **small)
        add("instance_norm", dtype, (3, 5, 5, 7), groups=5, **small)
        add("weight_standardization", dtype, (9, 7, 3, 3), std=0.1, **small)
        for norm, shape, options in (
            ("batch_norm", (3, 7, 5, 5), {}),
            ("group_norm", (3, 9, 5, 3), {"groups": 3}),
            ("bc_norm", (3, 9, 5, 3), bc),
        ):
            add(norm, dtype + "_relu_residual", shape, **small, **relu, **options)
        add("batch_norm", dtype + "_silu_residual", (2, 8, 4, 6), activation="silu", residual=True, **small)

    # The paper's combination.
    add("ws_conv_bc_norm", "3x3", (2, 6, 6, 6), **bc)

    names = [case.name for case in found]
    assert len(set(names)) == len(names), "two cases of one name"
    return found


# The norms as PyTorch users run them.


class EstBN(nn.Module):
    """Normalizes with running estimates, in training after moving them by the batch; no gradient
    flows through them. The variance is about the estimate of the mean before it is moved."""

    def __init__(self, channels, moving_speed):
        super().__init__()
        self.moving_speed = moving_speed
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x):
        if self.training:
            with torch.no_grad():
                rows = x.transpose(0, 1).flatten(1)
                mean = rows.mean(1)
                variance = (rows - self.running_mean.view(-1, 1)).square().mean(1)
                speed = self.moving_speed
                self.running_mean.mul_(1 - speed).add_(speed * mean)
                self.running_var.mul_(1 - speed).add_(speed * variance)
        z = x - per_channel(self.running_mean, x)
        z = z / per_channel(torch.sqrt(self.running_var + FIXED_EPS), x)
        return affine(z, self.weight, self.bias)


class LayerNorm(nn.Module):
    """Over (C, *spatial), with an affine per channel: nn.LayerNorm's would be per element."""

    def __init__(self, channels, eps):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x):
        return affine(F.layer_norm(x, x.shape[1:], eps=self.eps), self.weight, self.bias)


class BCNorm(nn.Module):
    """Batch-Channel Normalization: a channel normalization, then one of each (sample, group)."""

    def __init__(self, case, channel_part):
        super().__init__()
        self.groups = case.groups
        self.eps = case.eps
        self.bn = channel_part
        length = case.channels if case.per_channel else case.groups
        self.weight = nn.Parameter(torch.ones(length))
        self.bias = nn.Parameter(torch.zeros(length))

    def forward(self, x):
        z = self.bn(x)
        rows = z.reshape(1, x.size(0) * self.groups, -1)
        rows = F.batch_norm(rows, None, None, training=True, momentum=0.0, eps=self.eps)
        return affine(rows.view_as(x), self.weight, self.bias)


class WeightStandardization(nn.Module):
    def forward(self, filters):
        rows = filters.flatten(1)
        variance, mean = torch.var_mean(rows, 1, correction=1, keepdim=True)
        return ((rows - mean) / torch.sqrt(variance + FIXED_EPS)).view_as(filters)


def per_channel(values, x):
    """C values for broadcasting against (N, C, *spatial); G values, against its groups of channels."""
    values = values.repeat_interleave(x.size(1) // values.numel())
    return values.view(1, -1, *[1] * (x.dim() - 2))


def affine(z, weight, bias):
    if weight is not None:
        z = per_channel(weight, z) * z
    if bias is not None:
        z = z + per_channel(bias, z)
    return z


def module(case):
    """The case's norm."""
    of_rank = min(max(len(case.shape) - 2, 1), 3)
    channels = case.channels
    tracked = {"track_running_stats": case.tracked}

    def batch_norm(eps):
        kind = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[of_rank - 1]
        return kind(channels, eps=eps, momentum=case.momentum, **tracked)

    if case.norm == "batch_norm":
        norm = batch_norm(case.eps)
    elif case.norm == "est_bn":
        norm = EstBN(channels, case.moving_speed)
    elif case.norm == "group_norm":
        norm = nn.GroupNorm(case.groups, channels, eps=case.eps)
    elif case.norm == "instance_norm":
        kind = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)[of_rank - 1]
        norm = kind(channels, eps=case.eps, momentum=case.momentum, affine=True, **tracked)
    elif case.norm == "layer_norm":
        whole = len(case.shape) == 2
        norm = nn.LayerNorm(channels, eps=case.eps) if whole else LayerNorm(channels, case.eps)
    elif case.has_bn:
        part = EstBN(channels, case.moving_speed) if case.estimate else batch_norm(FIXED_EPS)
        norm = BCNorm(case, part)
    elif case.norm == "weight_standardization":
        norm = WeightStandardization()
    else:
        raise ValueError(case.norm)
    # Without a parameter, torch.nn's functions take None; not every constructor has the choice.
    for name in dict(norm.named_parameters()):
        if name not in case.parameters:
            owner, _, parameter = name.rpartition(".")
            setattr(norm.get_submodule(owner), parameter, None)
    return norm.train(case.training)


def activate(case, t):
    return {"none": lambda t: t, "relu": F.relu, "silu": F.silu}[case.activation](t)


def run(case, tensors, dtype):
    """The case by PyTorch, with tensors of this type; parameters are f32 where it has 16 bits."""
    dtype = TORCH_TYPE[dtype]
    norm = module(case).to(torch.promote_types(dtype, torch.float32))
    state = {name: tensors[name] for name in [*case.parameters, *case.running]}
    if case.tracked and not case.estimate:
        counter = "bn.num_batches_tracked" if case.has_bn else "num_batches_tracked"
        state[counter] = torch.tensor(case.num_batches_tracked)
    norm.load_state_dict(state)

    leaves = {}
    kept = {}

    def leaf(name):
        leaves[name] = tensors[name].detach().to(dtype).requires_grad_()
        return leaves[name]

    if case.norm == "ws_conv_bc_norm":
        kept["conv.standardized"] = WeightStandardization()(leaf("conv.weight"))
        kept["conv.output"] = F.conv2d(leaf("conv.input"), kept["conv.standardized"], padding=1)
        for tensor in kept.values():
            tensor.retain_grad()
        t = norm(kept["conv.output"])
    else:
        t = norm(leaf("x"))
    if case.residual:
        t = t + leaf("residual")
    y = activate(case, t).to(dtype)
    y.backward(tensors["grad_y"].to(dtype))

    results = {"y": y}
    results |= kept
    for name, tensor in [*leaves.items(), *kept.items(), *norm.named_parameters()]:
        results["grad_" + name] = tensor.grad
    for name in case.running:
        results[name + "_after"] = norm.get_buffer(name)
    return {name: tensor.detach().double() for name, tensor in results.items()}


# The same formulas once more, by hand, where a parameter is a tensor of x's shape: its gradient then is
# the terms of the parameter's, whose magnitudes are the scale; and their sums check the modules above.


def by_hand(case, x, parameters, running):
    """norm(x)."""

    def over(dims, z, mean=None, variance=None, eps=case.eps, correction=0):
        if mean is None:
            mean = z.mean(dims, keepdim=True)
            count = math.prod(z.shape[dim] for dim in dims)
            variance = (z - mean).square().sum(dims, keepdim=True) / (count - correction)
        return (z - mean) / torch.sqrt(variance + eps)

    def with_affine(z, prefix=""):
        if prefix + "weight" in parameters:
            z = z * parameters[prefix + "weight"]
        if prefix + "bias" in parameters:
            z = z + parameters[prefix + "bias"]
        return z

    space = [0, *range(2, x.dim())]

    def channel_part(eps):
        if case.estimate and case.training:
            speed, (mean, variance) = case.moving_speed, running
            fixed = x.detach()
            batch = fixed.mean(space, keepdim=True), (fixed - mean).square().mean(space, keepdim=True)
            mean, variance = ((1 - speed) * old + speed * new for old, new in zip(running, batch))
            return over(space, x, mean, variance, eps)
        if running and not case.training:
            return over(space, x, *running, eps)
        return over(space, x, eps=eps)

    def group_part(z):
        return over([2], z.reshape(z.size(0), case.groups, -1)).view_as(z)

    if case.norm in ("batch_norm", "est_bn"):
        z = channel_part(case.eps)
    elif case.norm == "instance_norm" and running and not case.training:
        z = channel_part(case.eps)
    elif case.has_bn:
        z = group_part(with_affine(channel_part(FIXED_EPS), "bn."))
    elif case.norm == "weight_standardization":
        z = over([1], x.flatten(1), eps=FIXED_EPS, correction=1).view_as(x)
    else:
        z = group_part(x)
    return with_affine(z)


def element_wise(case, tensors):
    """What `by_hand` takes: x, the parameters each of x's shape, and the running statistics, in f64."""
    x = tensors["x"].double()
    parameters = {
        name: per_channel(tensors[name].double(), x).expand_as(x).contiguous() for name in case.parameters
    }
    return x, parameters, [per_channel(tensors[name].double(), x) for name in case.running]


def terms(case, tensors):
    """The sums of the terms of each parameter's gradient, and those of their magnitudes."""
    x, parameters, running = element_wise(case, tensors)
    for tensor in parameters.values():
        tensor.requires_grad_()
    t = by_hand(case, x, parameters, running)
    if case.residual:
        t = t + tensors["residual"].double()
    if parameters:
        activate(case, t).backward(tensors["grad_y"].double())
    sums, magnitudes = {}, {}
    for name, length in case.parameters.items():
        rows = parameters[name].grad.transpose(0, 1).reshape(length, -1)
        sums["grad_" + name] = rows.sum(1)
        magnitudes["grad_" + name] = rows.abs().sum(1)
    return activate(case, t).detach(), sums, magnitudes


def draw(case):
    """The case's tensors, and a sentence about them."""
    generator = torch.Generator().manual_seed(zlib.crc32(case.name.encode()))

    def uniform(low, high, *shape):
        return low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)

    def normal(*shape):
        # A sum of uniform draws: torch.rand is exact, and so the same on every machine; torch.randn,
        # with its logarithms, need not be.
        return uniform(-0.5, 0.5, 12, *shape).sum(0)

    dtype = TORCH_TYPE[case.dtype]
    shape = case.shape
    channel_mean, channel_std = uniform(-1, 1, shape[1]), uniform(0.5, 1.5, shape[1])
    data = "x near normal"
    tensors = {}

    def inputs():
        x = normal(*shape)
        if case.norm != "weight_standardization":
            x = per_channel(channel_mean, x) + per_channel(channel_std, x) * x
        return (case.mean + case.std * x).to(dtype)

    if case.norm == "weight_standardization":
        data += f", mean {case.mean}, standard deviation {case.std}"
        tensors["x"] = inputs()
        if case.constant_filter:
            tensors["x"][2] = 0.125
            data += "; filter 2 is constant"
    elif case.norm == "ws_conv_bc_norm":
        data = "conv.input near normal, conv.weight so with standard deviation 0.1"
        tensors["conv.input"] = normal(shape[0], 4, *shape[2:]).to(dtype)
        tensors["conv.weight"] = (0.1 * normal(shape[1], 4, 3, 3)).to(dtype)
    else:
        data += ", means -1 to 1 and standard deviations 0.5 to 1.5 by channel"
        if (case.std, case.mean) != (1.0, 0.0):
            data += f", then times {case.std} plus {case.mean}"
        tensors["x"] = inputs()
    tensors["grad_y"] = normal(*shape).to(dtype)
    if case.residual:
        tensors["residual"] = normal(*shape).to(dtype)
        data += "; residual near normal"
    for name, length in case.parameters.items():
        values = 1 + 0.5 * normal(length) if name.endswith("weight") else 0.5 * normal(length)
        tensors[name] = values.float()
    for name in case.running:
        if name.endswith("mean"):
            values = case.mean + case.std * uniform(-1, 1, case.channels)
        else:
            values = case.std**2 * uniform(0.5, 2, case.channels)
        tensors[name] = values.float()

    if case.activation == "relu":
        varied = "residual" if case.residual else "x"
        for _ in range(100):
            near = nearest(case, tensors) < RELU_MARGIN
            if not near.any():
                break
            again = normal(*shape).to(dtype) if case.residual else inputs()
            tensors[varied] = torch.where(near, again, tensors[varied])
        else:
            raise RuntimeError(f"{case.name}: elements stay near 0")
        data += f"; {varied} drawn again until no |t| is under {RELU_MARGIN} of the largest"
    return tensors, data


def nearest(case, tensors):
    """|t| in units of the largest."""
    t = by_hand(case, *element_wise(case, tensors))
    if case.residual:
        t = t + tensors["residual"].double()
    return t.abs() / t.abs().max()


def scales(case, tensors, expected):
    """What an error of each tensor is divided by. Checks `expected` by hand on the way."""
    if case.norm == "ws_conv_bc_norm":
        tensors = {**tensors, "x": expected["conv.output"]}
    y, sums, magnitudes = terms(case, tensors)
    found = {}
    for name, values in expected.items():
        found[name] = magnitudes.get(name, values).abs().max().item()
        assert math.isfinite(found[name]) and found[name] > 0, f"{case.name}: {name} has scale {found[name]}"
    for name, values in {"y": y, **sums}.items():
        error = (values - expected[name]).abs().max().item() / found[name]
        # At mean 1000, f64 itself differs by a tenth of that.
        assert error < 1e-11, f"{case.name}: {name} by hand differs by {error:e}"
    return found


def errors(got, expected, scale):
    """Largest difference of each tensor over its scale."""
    return {name: (got[name] - expected[name]).abs().max().item() / scale[name] for name in expected}


def number(value):
    """Decimal, as short as gives the same f64; None is empty."""
    return "" if value is None else repr(value)


def boolean(value):
    return "true" if value else "false"


def build(case):
    """Tensors and metadata of the case's file."""
    tensors, data = draw(case)
    expected = run(case, tensors, "f64")
    scale = scales(case, tensors, expected)
    own = errors(run(case, tensors, case.dtype), expected, scale)
    filters = case.norm == "weight_standardization"
    metadata = {
        "name": case.name,
        "norm": case.norm,
        "dtype": case.dtype,
        "layout": "channels_first",
        "shape": str(list(case.shape)),
        "channels": str(1 if filters else case.channels),
        "groups": str(case.groups),
        "eps": number(case.eps),
        "stats": "estimate" if case.estimate else "batch",
        "momentum": number(case.momentum),
        "moving_speed": number(case.moving_speed),
        "num_batches_tracked": str(case.num_batches_tracked),
        "track_running_stats": boolean(case.tracked),
        "training": boolean(case.training),
        "affine": "per_channel" if case.per_channel else "per_group",
        "activation": case.activation,
        "residual": boolean(case.residual),
        "data": data,
        # Without the build's suffix: wheels for other devices compute the same on the CPU.
        "torch": torch.__version__.split("+")[0],
    }
    if case.norm == "ws_conv_bc_norm":
        metadata |= {"stride": "1", "padding": "1"}
    key = "pytorch_f32_error." if case.dtype == "f32" else "pytorch_error."
    for name in expected:
        metadata["scale." + name] = number(scale[name])
        metadata[key + name] = f"{own[name]:.3e}"
    entries = {**tensors, **{"expected." + name: values for name, values in expected.items()}}
    return {name: values.contiguous() for name, values in entries.items()}, metadata


def serialize(tensors, metadata):
    """A safetensors file. Not by that library, which writes metadata in an order that varies."""
    # The widest first, so that every entry is aligned.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header = {"__metadata__": dict(sorted(metadata.items()))}
    data = b""
    for name in names:
        values = tensors[name]
        begin = len(data)
        data += values.reshape(-1).view(torch.uint8).numpy().tobytes()
        header[name] = {
            "dtype": FILE_TYPE[values.dtype],
            "shape": list(values.shape),
            "data_offsets": [begin, len(data)],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def make(case):
    """The case's file, made twice, and read back by the safetensors library."""
    tensors, metadata = build(case)
    file = serialize(tensors, metadata)
    assert file == serialize(*build(case)), f"{case.name}: a second run made another file"
    read = safetensors.torch.load(file)
    assert read.keys() == tensors.keys()
    for name, values in tensors.items():
        assert read[name].dtype == values.dtype and torch.equal(read[name], values), f"{case.name}: {name}"
    return file, tensors, metadata


def compare_given(folder):
    """Recomputes the given cases of BCNorm: are the modules here the authors'?"""
    paths = sorted(folder.glob("*.safetensors"))
    worst = {"results": 0.0, "scales": 0.0}
    for path in paths:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        if "norm" in metadata:
            sys.exit(f"{path.name} is none of the given cases")
        case = Case(
            "bc_norm",
            metadata["name"],
            tuple(json.loads(metadata["shape"])),
            groups=int(metadata["groups"]),
            eps=float(metadata["eps"]),
            training=metadata["training"] == "true",
            per_channel=False,
            estimate=metadata["stats"] == "estimate",
            momentum=float(metadata["momentum"]),
            moving_speed=float(metadata["moving_speed"]),
        )
        prefix = "expected."
        expected = {name[len(prefix) :]: tensors[name] for name in tensors if name.startswith(prefix)}
        got = run(case, tensors, "f64")
        assert got.keys() == expected.keys(), path.name
        scale = {name: float(metadata["scale." + name]) for name in expected}
        worst["results"] = max(worst["results"], *errors(got, expected, scale).values())
        magnitudes = terms(case, tensors)[2]
        for name in expected:
            mine = magnitudes.get(name, expected[name]).abs().max().item()
            # A scale of nothing but f64's own rounding (a gradient that is 0) is no scale to compare.
            if scale[name] > 1e-9:
                worst["scales"] = max(worst["scales"], abs(mine / scale[name] - 1))
    differences = ", ".join(f"{what} differ by {by:.1e}" for what, by in worst.items())
    print(f"{len(paths)} given cases recomputed: {differences}")
    if not paths or max(worst.values()) > 1e-9:
        sys.exit("they differ")


def main():
    parser = argparse.ArgumentParser(description="Makes the golden vectors of `family`.")
    parser.add_argument("--out", type=Path, default=HERE / "family", metavar="DIR", help="where (default: %(default)s)")
    parser.add_argument("--only", metavar="NAME", help="cases with this in their names")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a file in DIR differs")
    parser.add_argument("--given", type=Path, metavar="DIR", help="recompute the 48 given cases in DIR instead")
    arguments = parser.parse_args()
    # More threads may sum in another order.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    if arguments.given:
        compare_given(arguments.given)
        return

    chosen = [case for case in cases() if (arguments.only or "") in case.name]
    if not chosen:
        sys.exit(f"no case has '{arguments.only}' in its name")
    arguments.out.mkdir(parents=True, exist_ok=True)
    total, different = 0, []
    print(f"{'file':46} {'shape':18} {'type':5} {'bytes':>7}  PyTorch's own error of y, grad_x, worst")
    for case in chosen:
        file, _, metadata = make(case)
        path = arguments.out / f"{case.name}.safetensors"
        if arguments.check:
            if not path.is_file() or path.read_bytes() != file:
                different.append(path.name)
        else:
            path.write_bytes(file)
        own = {name: float(value) for name, value in metadata.items() if name.startswith("pytorch_")}
        shown = [value for name, value in own.items() if name.split(".", 1)[1] in ("y", "grad_x")]
        shown = " ".join(f"{value:.1e}" for value in [*shown, max(own.values())])
        shape = "x".join(map(str, case.shape))
        print(f"{case.name:46} {shape:18} {case.dtype:5} {len(file):7}  {shown}")
        total += len(file)
    print(f"{len(chosen)} files, {total} bytes")
    if arguments.only is None:
        names = {f"{case.name}.safetensors" for case in chosen}
        stray = sorted(path.name for path in arguments.out.glob("*.safetensors") if path.name not in names)
        if stray:
            sys.exit(f"no case made {', '.join(stray)}")
    if different:
        sys.exit(f"not what would be written: {', '.join(different)}")


if __name__ == "__main__":
    main()
