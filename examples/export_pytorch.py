"""PyTorch's side of load_pytorch.rs: norms of a trained model into a safetensors file, and back.

    python export_pytorch.py export model.safetensors
    cargo run --features safetensors --example load_pytorch -- model.safetensors after.safetensors
    python export_pytorch.py check model.safetensors after.safetensors

Needs torch and safetensors (pip install torch safetensors numpy).
"""

import sys

import torch
from safetensors.torch import load_file, save_file
from torch import nn


class BCNorm(nn.Module):
    """Batch-Channel Normalization, with the names and shapes of the authors' code (Qiao et al.,
    arXiv:1911.09738, https://github.com/joe-siyuan-qiao/Batch-Channel-Normalization)."""

    def __init__(self, num_channels, num_groups, eps=1e-5):
        super().__init__()
        self.num_groups, self.eps = num_groups, eps
        self.weight = nn.Parameter(torch.ones(1, num_groups, 1))
        self.bias = nn.Parameter(torch.zeros(1, num_groups, 1))
        self.bn = nn.BatchNorm2d(num_channels)

    def forward(self, x):
        z = self.bn(x).view(len(x), self.num_groups, -1)
        var, mean = torch.var_mean(z, dim=2, keepdim=True, correction=0)
        return (self.weight * (z - mean) / (var + self.eps).sqrt() + self.bias).view_as(x)


def new_model():
    return nn.ModuleDict(
        {
            "batch_norm": nn.BatchNorm2d(8),
            "group_norm": nn.GroupNorm(4, 8),
            "bc_norm": BCNorm(8, 2),
        }
    )


def export(path):
    torch.manual_seed(0)
    model = new_model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        for norm in model.values():
            norm(2 + 3 * torch.randn(5, 8, 6, 7))  # so that the running statistics are some
    tensors = model.state_dict()
    tensors["x"] = 1 + 2 * torch.randn(4, 8, 6, 7)
    # Copies of the state before the call: in training, it changes the running statistics.
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    for name, norm in model.items():
        tensors[f"y.{name}"] = norm(tensors["x"]).detach()
    save_file(tensors, path)
    print(f"{path}: {len(tensors)} tensors")


def check(before, after):
    before = load_file(before)
    model, trained = new_model(), new_model()
    model.load_state_dict({k: v for k, v in before.items() if k in model.state_dict()})
    for norm in model.values():
        norm(before["x"])
    # Strict: every name, shape and type that the Rust side saved is what PyTorch expects.
    trained.load_state_dict(load_file(after), strict=True)
    for name, expected in model.state_dict().items():
        torch.testing.assert_close(trained.state_dict()[name], expected, rtol=1e-6, atol=1e-6)
    print(f"{after}: {len(model.state_dict())} tensors, as PyTorch's after the same step")


if __name__ == "__main__":
    commands = {"export": (export, 1), "check": (check, 2)}
    command, count = commands.get(sys.argv[1] if len(sys.argv) > 1 else "", (None, 0))
    if command is None or len(sys.argv) != 2 + count:
        sys.exit(__doc__)
    command(*sys.argv[2:])
