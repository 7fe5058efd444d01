#!/usr/bin/env python3
"""Times Batch-Channel Normalization in PyTorch, the module of its authors as they published it, on the
shapes of `bcnorm bench` and with its field names, so that both stand in one table.

Needs PyTorch (`pip install torch`); torch.compile on the CPU also needs a C++ compiler (g++).

    python benches/torch_bcnorm.py                        every default shape, CPU, eager and compiled
    python benches/torch_bcnorm.py --shape 8,64,56,56 --dtype bf16 --threads 1
    python benches/torch_bcnorm.py --device cuda --json > torch.jsonl

What is timed: eval is a forward with running statistics under no_grad; forward is a training forward that
keeps what backward needs; forward_backward is that and the gradients of x and of all parameters. Candidates
are timed in turn, round by round, so that slow moments of the machine hit them all alike; a sample is as
many calls as take --sample-ms; medians count. `bytes` is what the task needs at best (eval 2 tensors,
forward 3, forward_backward 8), not what PyTorch moves: with it, GB/s compare as the times do.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time

import torch
from torch import nn
from torch.nn import Parameter

DEFAULT_SHAPES = [
    (8, 64, 56, 56),
    (4, 256, 56, 56),
    (2, 256, 100, 152),
    (16, 512, 7, 7),
    (1, 64, 224, 224),
]
DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
# Tensors read and written by an implementation that reads x twice only where it must.
TRANSFERS = {"eval": 2, "forward": 3, "forward_backward": 8}
# Of the largest value: f32 sums in another order; else units in the last place of the type.
TOLERANCES = {"f32": 1e-5, "f16": 4e-3, "bf16": 3e-2}


class BCNorm(nn.Module):
    """https://github.com/joe-siyuan-qiao/Batch-Channel-Normalization, without EstBN."""

    def __init__(self, num_channels, num_groups, eps):
        super().__init__()
        self.num_channels = num_channels
        self.num_groups = num_groups
        self.eps = eps
        self.weight = Parameter(torch.ones(1, num_groups, 1))
        self.bias = Parameter(torch.zeros(1, num_groups, 1))
        self.bn = nn.BatchNorm2d(num_channels)

    def forward(self, inp):
        out = self.bn(inp)
        out = out.view(1, inp.size(0) * self.num_groups, -1)
        out = torch.batch_norm(out, None, None, None, None, True, 0, self.eps, True)
        out = out.view(inp.size(0), self.num_groups, -1)
        out = self.weight * out + self.bias
        out = out.view_as(inp)
        return out


class ChannelsLast(nn.Module):
    """The module refuses channels last (`view`): its user has to change the order, and back."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, inp):
        out = self.module(inp.contiguous())
        return out.contiguous(memory_format=torch.channels_last)


def parse_shape(text):
    sizes = tuple(int(size) for size in text.strip("()[] ").replace("x", ",").split(","))
    if len(sizes) != 4 or min(sizes) < 1:
        raise argparse.ArgumentTypeError("expected N,C,H,W, such as 8,64,56,56")
    return sizes


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--mode", default="both", choices=["eager", "compile", "both"])
    parser.add_argument("--compile", dest="mode", action="store_const", const="compile",
                        help="the same as --mode compile")
    parser.add_argument("--direction", action="append", choices=list(TRANSFERS),
                        help="may be repeated [default: all three]")
    parser.add_argument("--dtype", action="append", choices=list(DTYPES),
                        help="may be repeated [default: f32]")
    parser.add_argument("--layout", default="first", choices=["first", "last"])
    parser.add_argument("--shape", action="append", type=parse_shape, metavar="N,C,H,W",
                        help="may be repeated [default: those of bcnorm bench]")
    parser.add_argument("--groups", type=int, help="[default: 32, or the largest divisor of C below]")
    parser.add_argument("--threads", type=int, help="of the CPU [default: all cores]")
    parser.add_argument("--repeats", type=int, default=15, help="samples whose median is taken")
    parser.add_argument("--sample-ms", type=float, default=20.0, help="how long a sample should take")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    return parser.parse_args()


def adapter_name(device):
    if device == "cuda":
        return torch.cuda.get_device_name()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def divisor_below(channels, most=32):
    return next(groups for groups in range(min(channels, most), 0, -1) if channels % groups == 0)


def synchronize(device):
    if device == "cuda":
        torch.cuda.synchronize()


class Candidate:
    """A call to time, many times over in a sample."""

    def __init__(self, call, device):
        self.call, self.device, self.calls, self.samples = call, device, 1, []

    def sample(self):
        synchronize(self.device)
        start = time.perf_counter()
        for _ in range(self.calls):
            self.call()
        synchronize(self.device)
        return 1e3 * (time.perf_counter() - start)

    def calibrate(self, target_ms):
        # The first calls compile, allocate and fault pages in.
        for _ in range(3):
            self.sample()
        while True:
            ms = self.sample()
            if ms >= 0.7 * target_ms or self.calls >= 1 << 14:
                return
            grown = self.calls * min(16.0, max(1.5, target_ms / max(ms, 1e-3)))
            self.calls = min(int(grown + 0.5), 1 << 14)

    def median_ms(self):
        return statistics.median(self.samples)


def measure(candidates, repeats, sample_ms):
    for candidate in candidates:
        candidate.calibrate(sample_ms)
    for _ in range(repeats):
        for candidate in candidates:
            candidate.samples.append(candidate.sample() / candidate.calls)


def tensors(shape, dtype, args):
    """Normal data, each channel with a mean and a deviation of its own."""
    generator = torch.Generator().manual_seed(0x0BC0)
    channels = (1, shape[1], 1, 1)
    mean = 1 + 3 * torch.randn(channels, generator=generator)
    std = 0.5 + torch.arange(shape[1]).remainder(5).view(channels)
    order = torch.channels_last if args.layout == "last" else torch.contiguous_format

    def stored(values):
        return values.to(args.device, DTYPES[dtype]).contiguous(memory_format=order)

    x = stored(mean + std * torch.randn(shape, generator=generator))
    grad_y = stored(torch.randn(shape, generator=generator))
    return x.requires_grad_(), grad_y


def call_of(module, direction, x, grad_y):
    parameters = list(module.parameters())

    def evaluate():
        with torch.no_grad():
            return module(x)

    def forward():
        return module(x)

    def forward_backward():
        return torch.autograd.grad(module(x), [x, *parameters], grad_y)

    return {"eval": evaluate, "forward": forward, "forward_backward": forward_backward}[direction]


def outputs(call):
    result = call()
    found = result if isinstance(result, tuple) else (result,)
    return [tensor.detach().float() for tensor in found]


def check_equal(eager, compiled, dtype):
    """What compiles wrongly is not timed."""
    for a, b in zip(outputs(eager), outputs(compiled)):
        scale = a.abs().max().item() + 1e-30
        error = (a - b).abs().max().item() / scale
        # Also false for NaN.
        if not error <= TOLERANCES[dtype]:
            raise RuntimeError(f"compiled differs from eager by {error:.1e} of the largest value")


def measure_shape(shape, dtype, args):
    groups = args.groups or divisor_below(shape[1])
    x, grad_y = tensors(shape, dtype, args)
    module = BCNorm(shape[1], groups, 1e-5).to(args.device, DTYPES[dtype])
    if args.layout == "last":
        module = ChannelsLast(module)
    modes = ["eager", "compile"] if args.mode == "both" else [args.mode]
    rows = []
    for direction in args.direction or list(TRANSFERS):
        module.train(direction != "eval")
        torch._dynamo.reset()
        eager = call_of(module, direction, x, grad_y)
        source, destination = x.detach(), torch.empty_like(x)
        candidates = [Candidate(lambda: destination.copy_(source), args.device)]
        for mode in modes:
            call = eager
            if mode == "compile":
                call = call_of(torch.compile(module, dynamic=False), direction, x, grad_y)
                check_equal(eager, call, dtype)
            candidates.append(Candidate(call, args.device))
        measure(candidates, args.repeats, args.sample_ms)
        tensor_bytes = x.numel() * x.element_size()
        copy_ms = candidates[0].median_ms()
        for mode, candidate in zip(modes, candidates[1:]):
            ms = candidate.median_ms()
            moved = TRANSFERS[direction] * tensor_bytes
            rows.append({
                "adapter": adapter_name(args.device),
                "backend": f"torch-{mode}",
                "shape": list(shape),
                "groups": groups,
                "dtype": dtype,
                "layout": "nhwc" if args.layout == "last" else "nchw",
                "norm": "bc_norm",
                "direction": direction,
                "ms": ms,
                "bytes": moved,
                "gb_per_s": moved / ms / 1e6,
                "copy_ms": copy_ms,
                "copy_bytes": 2 * tensor_bytes,
                "ratio_to_copy": ms / copy_ms,
                "torch": torch.__version__,
                "threads": torch.get_num_threads(),
            })
    return rows


def print_table(rows):
    first = rows[0]
    print(f"{tuple(first['shape'])}, {first['groups']} groups, {first['dtype']} {first['layout']}, "
          f"on {first['adapter']}, {first['threads']} threads, PyTorch {first['torch']}")
    print(f"  {'direction':<18}{'backend':<15}{'ms':>9}{'copies':>9}{'GB/s':>8}{'copy ms':>9}")
    for row in rows:
        print(f"  {row['direction']:<18}{row['backend']:<15}{row['ms']:>9.3f}"
              f"{row['ratio_to_copy']:>9.2f}{row['gb_per_s']:>8.1f}{row['copy_ms']:>9.3f}")
    print(flush=True)


def main():
    args = arguments()
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("error: this PyTorch finds no CUDA device: use --device cpu")
    torch.set_num_threads(args.threads or len(os.sched_getaffinity(0)))
    failed = False
    for shape in args.shape or DEFAULT_SHAPES:
        for dtype in args.dtype or ["f32"]:
            try:
                rows = measure_shape(shape, dtype, args)
            except Exception as error:  # A type that a device lacks, no compiler: the others go on.
                failed = True
                print(f"error: {shape} {dtype}: {error}", file=sys.stderr)
                continue
            if args.json:
                for row in rows:
                    print(json.dumps(row), flush=True)
            else:
                print_table(rows)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
