"""What benchmarks of live sessions have in common: counts of 192 channels, the decoder they go through, percept's packet."""
import struct

CHANNELS, RATE_HZ = 192, 50
HEAD = struct.Struct("<4sBBBBIIqddfI")  # realtime/wire.h
PIPELINE = f"""
[input]
simulate = "reach"
channels = {CHANNELS}
rate_hz = {RATE_HZ}
duration_s = 120
dead_fraction = 0.0
seed = 1
[[stage]]
use = "zscore"
from = "activity"
[[stage]]
name = "map"
use = "ridge"
target = "kinematics"
alpha = [100.0]
covariance = "holdout"
[[stage]]
use = "dkf"
target = "kinematics"
"""
