"""Prints `family.rs`: checksums of what PyTorch makes of each norm of the family, in f64.

    python tests/suite/oracle/family.py > tests/oracle/family.rs

Inputs are ramps that `tests/oracle.rs` makes, too, all exact in f32.
"""

from types import SimpleNamespace

import torch
import torch.nn.functional as F

N, C, L, G = 3, 4, 5, 2
EPS, MOMENTUM = 2.0**-10, 0.25


def ramp(count, step, start, modulus, centre, divisor):
    values = [((step * i + start) % modulus - centre) / divisor for i in range(count)]
    return torch.tensor(values, dtype=torch.float64)


def per_channel(values):
    return values.view(1, -1, 1)


def est_bn(x, mean, var, training, eps):
    if training:
        with torch.no_grad():
            second_moment = ((x - per_channel(mean)) ** 2).mean((0, 2))
            var.copy_((1 - MOMENTUM) * var + MOMENTUM * second_moment)
            mean.copy_((1 - MOMENTUM) * mean + MOMENTUM * x.mean((0, 2)))
    return (x - per_channel(mean)) / torch.sqrt(per_channel(var) + eps)


def bc_norm(x, mean, var, estimate, training, weight, bias, bn_weight, bn_bias):
    if estimate:
        z = est_bn(x, mean, var, training, 1e-5)
    else:
        batch = training or mean is None
        z = F.batch_norm(x, mean, var, None, None, batch, MOMENTUM, 1e-5)
    z = z * per_channel(bn_weight) + per_channel(bn_bias)
    if len(weight) == C:
        return F.group_norm(z, G, weight, bias, EPS)
    u = F.group_norm(z, G, None, None, EPS).view(N, G, -1)
    return (u * per_channel(weight) + per_channel(bias)).view(N, C, L)


def weight_standardization(x):
    filters = x.view(N, -1)
    mean, var = filters.mean(1, keepdim=True), filters.var(1, keepdim=True, unbiased=True)
    return ((filters - mean) / torch.sqrt(var + EPS)).view(x.shape)


# (norm, training, running statistics, affine, activation, residual)
CASES = {
    "batch_norm.train": ("batch_norm", True, True, "C", "none", True),
    "batch_norm.eval": ("batch_norm", False, True, "C", "silu", True),
    "batch_norm.untracked": ("batch_norm", False, False, "C", "relu", False),
    "est_bn.train": ("est_bn", True, True, "C", "silu", False),
    "est_bn.eval": ("est_bn", False, True, "C", "relu", True),
    "group_norm": ("group_norm", True, False, "C", "silu", True),
    "instance_norm.train": ("instance_norm", True, True, "C", "relu", True),
    "instance_norm.eval": ("instance_norm", False, True, "C", "none", False),
    "instance_norm.untracked": ("instance_norm", False, False, "", "silu", False),
    "layer_norm": ("layer_norm", True, False, "C", "none", False),
    "layer_norm.flat": ("layer_norm_flat", True, False, "C", "relu", True),
    "bc_norm.channels": ("bc_norm", True, True, "C", "silu", True),
    "bc_norm.untracked": ("bc_norm", False, False, "G", "relu", False),
    "bc_norm.estimate": ("bc_norm_estimate", True, True, "C", "none", True),
    "weight_standardization": ("weight_standardization", True, False, "", "none", False),
    "weight_standardization.fused": ("weight_standardization", True, False, "", "silu", True),
}

print("//! Printed by `family.py` with PyTorch " + torch.__version__.split("+")[0] + ".")
print("\n/// A tensor's name and its two checksums.")
print("pub type Checksums = (&'static str, [f64; 2]);")
print("\n/// The tensors of each case.")
print("pub const FAMILY: &[(&str, &[Checksums])] = &[")
for name, (norm, training, tracked, affine, activation, residual) in CASES.items():
    rows = 1 if norm == "layer_norm_flat" else L
    count = N * C * rows
    shape = (N, C) if rows == 1 else (N, C, L)
    x = ramp(count, 37, 11, 64, 32, 16).view(shape).requires_grad_()
    grad_y = ramp(count, 29, 5, 61, 30, 16).view(shape)
    leaves = {"x": x}

    def leaf(key, *numbers):
        leaves[key] = ramp(*numbers).requires_grad_()
        return leaves[key]

    weight = bias = None
    if affine:
        length = C if affine == "C" else G
        weight, bias = leaf("weight", length, 5, 0, 7, -6, 8), leaf("bias", length, 3, 0, 5, 2, 4)
    mean = ramp(C, 7, 0, 5, 2, 4) if tracked else None
    var = ramp(C, 1, 0, 3, -2, 4) if tracked else None
    batch = training or not tracked
    if norm == "batch_norm":
        t = F.batch_norm(x, mean, var, weight, bias, batch, MOMENTUM, EPS)
    elif norm == "est_bn":
        t = est_bn(x, mean, var, training, EPS) * per_channel(weight) + per_channel(bias)
    elif norm == "group_norm":
        t = F.group_norm(x, G, weight, bias, EPS)
    elif norm == "instance_norm":
        t = F.instance_norm(x, mean, var, weight, bias, batch, MOMENTUM, EPS)
    elif norm == "layer_norm":
        t = F.layer_norm(x, (C, L), None, None, EPS) * per_channel(weight) + per_channel(bias)
    elif norm == "layer_norm_flat":
        t = F.layer_norm(x, (C,), weight, bias, EPS)
    elif norm == "weight_standardization":
        t = weight_standardization(x)
    else:
        bn = leaf("bn_weight", C, 3, 0, 8, -5, 8), leaf("bn_bias", C, 5, 0, 9, 4, 8)
        estimate = norm == "bc_norm_estimate"
        t = bc_norm(x, mean, var, estimate, training, weight, bias, *bn)
    if residual:
        t = t + leaf("residual", count, 23, 7, 59, 29, 16).view(shape)
    y = {"none": lambda t: t, "relu": F.relu, "silu": F.silu}[activation](t)
    y.backward(grad_y)
    outputs = {"y": y, "pre_activation": t}
    if tracked:
        outputs |= {"running_mean": mean, "running_var": var}
    outputs |= {"grad_" + key: value.grad for key, value in leaves.items()}
    print(f'    (\n        "{name}",\n        &[')
    for key, value in outputs.items():
        value = value.detach().flatten()
        weights = ramp(len(value), 29, 3, 17, 8, 1), ramp(len(value), 13, 1, 11, 5, 1)
        sums = [(value * weight).sum().item() for weight in weights]
        print(f'            ("{key}", [{sums[0]!r}, {sums[1]!r}]),')
    print("        ],\n    ),")
print("];")
