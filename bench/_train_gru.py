"""Epochs of a GRU on contdata95 in Python's torch, as decoders.py has percept train it; prints CPU seconds of each.

Run by decoders.py in the interpreter that has torch: _train_gru.py DATA.npz EPOCHS
"""
import sys
import time

import numpy as np
import torch

UNITS, CHUNK, WARM_UP, BATCH, DROPOUT, NOISE, RATE, DECAY = 128, 30, 10, 32, 0.3, 0.3, 0.003, 0.02


class Network(torch.nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.cell, self.out = torch.nn.GRU(inputs, UNITS), torch.nn.Linear(UNITS, outputs)
        self.drop = torch.nn.Dropout(DROPOUT)

    def forward(self, x):
        return self.out(self.drop(self.cell(x)[0]))


def main():
    torch.set_num_threads(1)
    torch.manual_seed(1)
    data = np.load(sys.argv[1])
    scaled = [torch.tensor((a - a.mean(0)) / a.std(0), dtype=torch.float32) for a in (data["x"], data["y"])]
    x, y = scaled
    network = Network(x.shape[1], y.shape[1])
    optimiser = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)
    for _ in range(int(sys.argv[2])):
        start = time.process_time()
        first = torch.arange(-int(torch.randint(CHUNK, (1,))), len(x), CHUNK)
        for batch in first[torch.randperm(len(first))].split(BATCH):
            frame = batch[None, :] + torch.arange(-WARM_UP, CHUNK)[:, None]
            counts = ((frame >= batch.clamp(min=0)) & (frame < len(x))).float()[..., None]
            frame = frame.clamp(0, len(x) - 1)
            inputs = x[frame] + NOISE * torch.randn(*frame.shape, x.shape[1])
            error = (network(inputs) - y[frame]) * counts
            optimiser.zero_grad()
            (error.square().sum() / (counts.sum() * y.shape[1])).backward()
            optimiser.step()
        print(time.process_time() - start, flush=True)


if __name__ == "__main__":
    main()
