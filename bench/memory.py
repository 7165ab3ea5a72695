"""Memory of long runs: 2 GB of generated samples through a low-pass filter and a decimation, and a 4-D NIfTI of 2 GB
through a mask and a ridge projection, each into a store."""
import array
import json
import os
import pathlib
import shutil
import struct
import subprocess
import tempfile

from _report import arguments, show

CHANNELS, RATE_HZ, BYTES = 64, 1000, 2_000_000_000
NOISE = f"""
[input]
simulate = "noise"
channels = {CHANNELS}
rate_hz = {RATE_HZ}
duration_s = {BYTES / (4 * CHANNELS * RATE_HZ)}

[[stage]]
use = "fir"
pass = "low"
high_hz = 40.0
transition_hz = 100.0

[[stage]]
use = "decimate"
factor = 10
"""

GRID, TARGETS = (91, 109, 91), 100
VOLUMES = BYTES // (2 * GRID[0] * GRID[1] * GRID[2])
IMAGE = """
[input]
file = "bold.nii"
mask = "mask.nii"

[[stage]]
use = "ridge"
model = "model"
"""


def nifti_header(shape, datatype, bits, step_s):
    """NIfTI-1 with voxels of 2 mm."""
    h = bytearray(352)
    struct.pack_into("<i", h, 0, 348)
    struct.pack_into("<8h", h, 40, len(shape), *shape, *[1] * (7 - len(shape)))
    struct.pack_into("<2h", h, 70, datatype, bits)
    struct.pack_into("<8f", h, 76, 1, 2, 2, 2, step_s, 0, 0, 0)
    struct.pack_into("<3f", h, 108, 352, 1, 0)
    h[123] = 10  # mm and s
    struct.pack_into("<2h", h, 252, 0, 1)
    struct.pack_into("<12f", h, 280, 2, 0, 0, -90, 0, 2, 0, -126, 0, 0, 2, -72)
    h[344:348] = b"n+1\0"
    return bytes(h)


def inside(x, y, z):
    """A ball of about as many voxels as a mask of grey matter keeps."""
    return (x - GRID[0] / 2) ** 2 + (y - GRID[1] / 2) ** 2 + (z - GRID[2] / 2) ** 2 < 22**2


def write_images(folder):
    nx, ny, nz = GRID
    volume = bytes(i * 7 % 251 if i % 2 == 0 else i // 2 % 3 for i in range(2 * nx * ny * nz))
    with open(folder / "bold.nii", "wb") as f:
        f.write(nifti_header((*GRID, VOLUMES), 4, 16, 2.0))
        for t in range(VOLUMES):
            shift = 2 * (t % 97)
            f.write(volume[shift:] + volume[:shift])
    with open(folder / "mask.nii", "wb") as f:
        f.write(nifti_header(GRID, 2, 8, 0.0))
        f.write(bytes(int(inside(x, y, z)) for z in range(nz) for y in range(ny) for x in range(nx)))


def write_model(folder):
    """A ridge map of the voxels, as percept fit writes it. Returns how many there are."""
    voxels = [f"{x}_{y}_{z}" for z in range(GRID[2]) for y in range(GRID[1]) for x in range(GRID[0]) if inside(x, y, z)]
    n = len(voxels)
    arrays = {"offset": array.array("d", [0.0] * TARGETS),
              "weights": array.array("d", [1e-6 * (i % 13 - 6) for i in range(TARGETS * n)]),
              "x_mean": array.array("d", [100.0] * n)}
    shapes = {"offset": [TARGETS], "weights": [TARGETS, n], "x_mean": [n]}
    header, at = {}, 0
    for name, values in arrays.items():
        header[name] = {"dtype": "F64", "shape": shapes[name], "data_offsets": [at, at + 8 * len(values)]}
        at += 8 * len(values)
    text = json.dumps(header).encode()
    (folder / "model").mkdir()
    with open(folder / "model" / "weights.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for values in arrays.values():
            f.write(values.tobytes())
    meta = {"stage": "ridge", "version": 1, "params": {}, "input_rows": voxels,
            "output_rows": [f"target_{i}" for i in range(TARGETS)], "output_units": ["1"] * TARGETS, "rate_hz": 0.5,
            "format_version": 1}
    (folder / "model" / "model.json").write_text(json.dumps(meta))
    return n


def run(program, folder, pipeline):
    """Runs a pipeline in the folder; the program's own figures, and the bytes it wrote."""
    file = folder / "memory.toml"
    file.write_text(pipeline)
    command = [program, "run", file, "--json", "-o", folder / "out"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        result = json.loads(process.stdout.read() or "{}")
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{program} ended with {process.returncode}")
    written = sum(f.stat().st_size for f in (folder / "out").rglob("*") if f.is_file())
    shutil.rmtree(folder / "out")
    return {"seconds": result["seconds"], "written_bytes": written, "peak_rss_bytes": result["peak_rss_bytes"],
            "peak_rss_bytes by the kernel": usage.ru_maxrss * 1024}


def main():
    args = arguments(__doc__)
    figures = {"sample_bytes": BYTES}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        noise = run(args.program, folder, NOISE)
        figures.update(noise)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_images(folder)
        figures["nifti: voxels"] = write_model(folder)
        for file in ("bold.nii", "bold.nii.gz"):
            if file.endswith(".gz"):
                subprocess.run(["gzip", "-1", folder / "bold.nii"], check=True)
            image = run(args.program, folder, IMAGE.replace("bold.nii", file))
            figures.update({f"{file}: {key}": value for key, value in image.items()})
    show(args.json, figures, bars={"peak_rss_bytes": (noise["peak_rss_bytes"], 300e6),
                                   "bold.nii: peak_rss_bytes": (figures["bold.nii: peak_rss_bytes"], 500e6),
                                   "bold.nii.gz: peak_rss_bytes": (figures["bold.nii.gz: peak_rss_bytes"], 500e6)})


if __name__ == "__main__":
    main()
