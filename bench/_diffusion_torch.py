"""The network of diffusion.py in Python's torch: loads percept's weights, shows that it computes the same, and prints the
seconds of a training step and of a sampled image as JSON. Run by diffusion.py with Debian's Python."""
import json
import math
import pathlib
import statistics
import struct
import sys
import time

import numpy as np
import torch
import torch.nn.functional as f
from torch import nn

IMAGES, LEVELS, GROUPS, SIGMA_DATA = 64, 20, 8, 0.5


def safetensors(file):
    data = file.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + length])
    header.pop("__metadata__", None)
    types = {"F32": np.float32, "F64": np.float64}
    return {name: torch.from_numpy(np.frombuffer(data, types[t["dtype"]], int(np.prod(t["shape"])),
                                                 8 + length + t["data_offsets"][0]).reshape(t["shape"]).copy())
            for name, t in header.items() if t["dtype"] in types}


class Block(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, inputs)
        self.inside = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.outside = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.past = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x, gain, offset):
        h = self.inside(f.silu(self.norm(x)))
        h = f.silu(f.group_norm(h, GROUPS) * gain[:, :, None, None] + offset[:, :, None, None])
        return self.outside(h) + (x if self.past is None else self.past(x))


class Unet(nn.Module):
    """Two levels of two blocks on patches of 2 x 2 pixels."""

    def __init__(self, channels=32, blocks=2):
        super().__init__()
        wide = 2 * channels
        self.input = nn.Conv2d(4, channels, 3, padding=1)
        self.halve = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        self.blocks = nn.ModuleDict()
        kept, now = [], channels
        for level, width in enumerate((channels, wide)):
            for b in range(blocks):
                self.blocks[f"down_{level}_{b}"] = Block(now, width)
                kept.append(width)
                now = width
        for b in range(2):
            self.blocks[f"middle_{b}"] = Block(now, now)
        for level, width in ((1, wide), (0, channels)):
            for b in range(blocks):
                self.blocks[f"up_{level}_{b}"] = Block(now + kept.pop(), width)
                now = width
        self.output_norm = nn.GroupNorm(GROUPS, channels)
        self.output = nn.Conv2d(channels, 4, 3, padding=1)
        self.noise = nn.Sequential(nn.Linear(32, 4 * channels), nn.SiLU(), nn.Linear(4 * channels, 4 * channels))
        self.widths = [b.outside.out_channels for b in self.blocks.values()]
        self.gain = nn.Linear(4 * channels, sum(self.widths))
        self.offset = nn.Linear(4 * channels, sum(self.widths))
        self.register_buffer("turns", 2 * math.pi * 2 ** torch.linspace(-3, 4, 16))

    def forward(self, image, noise):
        angle = noise.view(-1, 1) * self.turns
        inside = f.silu(self.noise(torch.cat([angle.cos(), angle.sin()], 1)))
        modulation = iter(zip(self.gain(inside).split(self.widths, 1), self.offset(inside).split(self.widths, 1)))
        x = self.input(f.pixel_unshuffle(image, 2))
        kept = []
        for name, block in self.blocks.items():
            if name == "down_1_0":
                x = self.halve(x)
            if name == "up_0_0":
                x = f.interpolate(x, scale_factor=2.0)
            if name.startswith("up"):
                x = torch.cat([x, kept.pop()], 1)
            x = block(x, *next(modulation))
            if name.startswith("down"):
                kept.append(x)
        return f.pixel_shuffle(self.output(f.silu(self.output_norm(x))), 2)

    def load(self, arrays):
        names = {"norm.gain": "norm.weight", "norm.offset": "norm.bias", "in": "inside", "out": "outside"}
        with torch.no_grad():
            for name, target in self.named_parameters():
                key = name
                if name.startswith("blocks."):
                    _, block, layer, kind = name.split(".")
                    layer = {"inside": "in", "outside": "out"}.get(layer, layer)
                    key = f"{block.replace('_', '.')}.{layer}.{kind}"
                key = key.replace("halve.", "down.0.halve.").replace("output_norm", "output.norm").replace(
                    "noise.2", "noise.1")
                normal = ".norm." in key
                key = key.replace(".weight", ".gain" if normal else ".weights")
                key = key.replace(".bias", ".offset" if normal else ".bias")
                target.copy_(arrays[key])


def denoise(net, x, sigma):
    total = sigma ** 2 + SIGMA_DATA ** 2
    noise = torch.full((1,), math.log(sigma) / 4)
    return SIGMA_DATA ** 2 / total * x + sigma * SIGMA_DATA / math.sqrt(total) * net(x / math.sqrt(total), noise)


def sample(net, memory):
    levels = np.append((80 ** (1 / 7) + np.arange(LEVELS) / (LEVELS - 1) * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7, 0)
    x = (levels[0] * torch.randn(IMAGES, 1, 28, 28)).contiguous(memory_format=memory)
    with torch.inference_mode():
        for sigma, after in zip(levels[:-1], levels[1:]):
            x0 = denoise(net, x, sigma)
            x = x0 + after / sigma * (x - x0)
    return x


class Training:
    def __init__(self, net, memory):
        self.net, self.memory = net, memory
        self.images = 0.5 * torch.randn(1024, 1, 28, 28)
        self.optimiser = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=0)
        self.average = [p.detach().clone() for p in net.parameters()]

    def step(self):
        x0 = self.images[torch.randint(0, 1024, (IMAGES,))]
        sigma = torch.exp(-1.2 + 1.2 * torch.randn(IMAGES, 1, 1, 1))
        total = sigma ** 2 + SIGMA_DATA ** 2
        x = x0 + sigma * torch.randn_like(x0)
        target = (x0 - SIGMA_DATA ** 2 / total * x) * total.sqrt() / (sigma * SIGMA_DATA)
        self.optimiser.zero_grad(set_to_none=True)
        output = self.net((x / total.sqrt()).contiguous(memory_format=self.memory), sigma.log().flatten() / 4)
        loss = (output - target).square().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), 1)
        self.optimiser.step()
        with torch.no_grad():
            parameters = list(self.net.parameters())
            torch._foreach_mul_(self.average, 0.99)
            torch._foreach_add_(self.average, parameters, alpha=0.01)
        return loss.item()


def seconds(work, times):
    cpu, wall = [], []
    for k in range(times + 1):
        begun, before = time.process_time(), time.perf_counter()
        work()
        if k:
            cpu.append(time.process_time() - begun)
            wall.append(time.perf_counter() - before)
    return statistics.median(cpu), statistics.median(wall)


def main():
    torch.set_num_threads(1)
    memory = torch.channels_last if sys.argv[2] == "beside" else torch.contiguous_format
    arrays = safetensors(pathlib.Path(sys.argv[1]) / "weights.safetensors")
    net = Unet()
    net.load(arrays)
    x = arrays["shown.x"].T.reshape(-1, 1, 28, 28)
    expected = arrays["shown.y"].T.reshape(-1, 1, 28, 28)
    with torch.inference_mode():
        off = (net(x, torch.full((1,), 0.3)) - expected).abs().max() / expected.abs().max()
    if not off < 1e-4:
        raise SystemExit(f"the peer computes something else: {off:g} of the largest value off")
    net = net.to(memory_format=memory)
    sampled = seconds(lambda: sample(net, memory), 2)
    training = Training(net, memory)
    trained = seconds(training.step, 8)
    print(json.dumps({"train_step": {"cpu_s": trained[0], "wall_s": trained[1]},
                      "sample": {"cpu_s": sampled[0] / IMAGES, "wall_s": sampled[1] / IMAGES}}))


if __name__ == "__main__":
    main()
