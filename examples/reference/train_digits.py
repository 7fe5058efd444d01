"""PyTorch's twin of train-digits (integrations/burn/train-digits): the same network, digits, initial weights and order.

    python train_digits.py --norm bcn-est --ws --log bcn-est.tsv --save bcn-est.safetensors
    cargo xtask train -- --compare --with bcn-est.tsv

BCNorm and EstBN are the authors' (Qiao et al., arXiv:1911.09738, https://github.com/joe-siyuan-qiao/Batch-Channel-Normalization).
It runs on the CPU. Needs torch, and safetensors for checkpoints (pip install torch safetensors numpy).
"""

import argparse
import gzip
import math
import pathlib
import time

import torch
import torch.nn.functional as F
from torch import nn

DIGITS = pathlib.Path(__file__).parent.parent / "digits"
EPS = 1e-5
NUM_GROUPS = 2
NUM_CHANNELS = 8


class SplitMix64:
    """Steele, Lea, Flood 2014: a few lines in any language, so that a seed means the same in all of them."""

    MASK = 2**64 - 1

    def __init__(self, state):
        self.state = state

    def next(self):
        self.state = (self.state + 0x9E3779B97F4A7C15) & self.MASK
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & self.MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & self.MASK
        return z ^ (z >> 31)

    def uniform(self):
        """In [0, 1)."""
        return (self.next() >> 40) / 2**24


class EstBN(nn.Module):
    """A batch norm by running estimates, which the batch moves first."""

    def __init__(self, num_channels):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))
        self.register_buffer("running_mean", torch.zeros(num_channels))
        self.register_buffer("running_var", torch.ones(num_channels))
        self.register_buffer("num_batches_tracked", torch.tensor(0, dtype=torch.long))
        self.register_buffer("estbn_moving_speed", torch.zeros(1))

    def forward(self, x):
        if self.training:
            with torch.no_grad():
                speed = self.estbn_moving_speed.item()
                values = x.transpose(0, 1).flatten(1)
                mean = values.mean(dim=1)
                var = (values - self.running_mean.view(-1, 1)).square().mean(dim=1)
                self.running_mean.mul_(1 - speed).add_(speed * mean)
                self.running_var.mul_(1 - speed).add_(speed * var)
        mean, var, weight, bias = (
            t.view(1, -1, 1, 1) for t in (self.running_mean, self.running_var, self.weight, self.bias)
        )
        return weight * ((x - mean) / torch.sqrt(var + EPS)) + bias


class BCNorm(nn.Module):
    """A channel norm, and a group norm of its output with a weight and a bias for each group."""

    def __init__(self, num_channels, estimate):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, NUM_GROUPS, 1))
        self.bias = nn.Parameter(torch.zeros(1, NUM_GROUPS, 1))
        self.bn = EstBN(num_channels) if estimate else nn.BatchNorm2d(num_channels, eps=EPS)

    def forward(self, x):
        z = self.bn(x).view(1, len(x) * NUM_GROUPS, -1)
        z = F.batch_norm(z, None, None, None, None, True, 0, EPS).view(len(x), NUM_GROUPS, -1)
        return (self.weight * z + self.bias).view_as(x)


NORMS = {
    "bn": lambda num_channels: nn.BatchNorm2d(num_channels, eps=EPS),
    "gn": lambda num_channels: nn.GroupNorm(NUM_GROUPS, num_channels, eps=EPS),
    "bcn": lambda num_channels: BCNorm(num_channels, estimate=False),
    "bcn-est": lambda num_channels: BCNorm(num_channels, estimate=True),
}


class StandardizedConv2d(nn.Conv2d):
    """Weight Standardization (Qiao et al., arXiv:1903.10520)."""

    def forward(self, x):
        filters = self.weight.flatten(1)
        filters = filters - filters.mean(dim=1, keepdim=True)
        filters = filters / torch.sqrt(filters.var(dim=1, keepdim=True) + EPS)
        return F.conv2d(x, filters.view_as(self.weight), None, self.stride, self.padding)


class Block(nn.Module):
    def __init__(self, make, channels, out_channels, stride):
        super().__init__()
        conv, norm = make
        self.conv1, self.norm1 = conv(channels, out_channels, 3, stride), norm(out_channels)
        self.conv2, self.norm2 = conv(out_channels, out_channels, 3, 1), norm(out_channels)
        if stride != 1 or channels != out_channels:
            self.downsample = nn.Sequential(conv(channels, out_channels, 1, stride), norm(out_channels))
        else:
            self.downsample = nn.Identity()

    def forward(self, x):
        z = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(z)) + self.downsample(x))


class Network(nn.Module):
    def __init__(self, norm, ws):
        super().__init__()
        convolution = StandardizedConv2d if ws else nn.Conv2d
        conv = lambda i, o, size, stride: convolution(i, o, size, stride, size // 2, bias=False)
        make = conv, NORMS[norm]
        self.conv1, self.norm1 = conv(1, NUM_CHANNELS, 3, 2), make[1](NUM_CHANNELS)
        self.layer1 = Block(make, NUM_CHANNELS, NUM_CHANNELS, 1)
        self.layer2 = Block(make, NUM_CHANNELS, 2 * NUM_CHANNELS, 2)
        self.fc = nn.Linear(2 * NUM_CHANNELS, 10)

    def forward(self, x):
        x = F.relu(self.norm1(self.conv1(x)))
        return self.fc(self.layer2(self.layer1(x)).mean(dim=(2, 3)))

    @torch.no_grad()
    def initialize(self, seed):
        """PyTorch's default distributions, by a generator of our own."""
        random = SplitMix64(seed)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                bound = 1 / math.sqrt(module.weight[0].numel())
                for tensor in (module.weight, module.bias):
                    if tensor is not None:
                        values = [(2 * random.uniform() - 1) * bound for _ in range(tensor.numel())]
                        tensor.copy_(torch.tensor(values, dtype=torch.float64).view_as(tensor))


def order(seed, epoch, len):
    """The images of an epoch, shuffled."""
    random = SplitMix64(seed + (epoch + 1) * 2**32)
    indices = list(range(len))
    for i in range(len - 1, 0, -1):
        j = random.next() % (i + 1)
        indices[i], indices[j] = indices[j], indices[i]
    return torch.tensor(indices)


def read_digits(folder, name):
    with gzip.open(folder / f"{name}-images.idx3.gz") as file:
        images = torch.tensor(list(file.read()[16:]), dtype=torch.uint8).view(-1, 1, 28, 28)
    with gzip.open(folder / f"{name}-labels.idx1.gz") as file:
        labels = torch.tensor(list(file.read()[8:]))
    return (images.float() / 255 - 0.1307) / 0.3081, labels


@torch.no_grad()
def accuracy(network, images, labels):
    network.eval()
    right = network(images).argmax(dim=1) == labels
    network.train()
    return right.float().mean().item()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--norm", choices=NORMS, default="bcn-est")
    parser.add_argument("--ws", action="store_true", help="Weight Standardization of every convolution")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--steps", type=int, help="stop after so many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lr", type=float, default=0.02, help="at the beginning; a cosine takes it to 0")
    parser.add_argument("--data", type=pathlib.Path, default=DIGITS)
    parser.add_argument("--log", help="a TSV file")
    parser.add_argument("--log-every", type=int, default=100)
    parser.add_argument("--init", help="start from the weights of this safetensors file")
    parser.add_argument("--save", help="the trained weights, as safetensors")
    args = parser.parse_args()
    torch.set_num_threads(1)

    network = Network(args.norm, args.ws)
    network.initialize(args.seed)
    if args.init:
        from safetensors.torch import load_file

        network.load_state_dict(load_file(args.init))
    optimizer = torch.optim.SGD(network.parameters(), args.lr)
    images, labels = read_digits(args.data, "train")
    tests = read_digits(args.data, "test")
    per_epoch = len(images) // args.batch
    total = args.epochs * per_epoch

    log = open(args.log, "w") if args.log else None

    def report(*row):
        print("\t".join(row), flush=True)
        if log:
            print("\t".join(row), file=log, flush=True)

    settings = f"norm={args.norm} ws={int(args.ws)} batch={args.batch} lr={args.lr}"
    report(f"# source=pytorch {settings} epochs={args.epochs} seed={args.seed}")
    report("step", "loss", "accuracy", "seconds")
    losses, seconds = [], 0.0
    for step in range(min(total, args.steps or total)):
        if step % per_epoch == 0:
            indices = order(args.seed, step // per_epoch, len(images))
        start = time.perf_counter()
        lr = args.lr * 0.5 * (1 + math.cos(math.pi * step / total))
        optimizer.param_groups[0]["lr"] = lr
        for module in network.modules():
            if isinstance(module, EstBN):
                module.estbn_moving_speed.fill_(lr)
        first = step % per_epoch * args.batch
        batch = indices[first : first + args.batch]
        loss = F.cross_entropy(network(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        seconds += time.perf_counter() - start
        done = step + 1
        evaluated = f"{accuracy(network, *tests):.4f}" if done % per_epoch == 0 else ""
        if evaluated or done % args.log_every == 0:
            report(str(done), f"{sum(losses) / len(losses):.6f}", evaluated, f"{seconds:.3f}")
            losses = []

    if args.save:
        from safetensors.torch import save_file

        metadata = {"norm": args.norm, "ws": str(int(args.ws))}
        save_file(network.state_dict(), args.save, metadata)


if __name__ == "__main__":
    main()
