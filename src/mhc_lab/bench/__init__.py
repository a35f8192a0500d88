"""Timings of operations and training steps, and memory: `mhc-lab bench ops|step|memory`.

`python -m mhc_lab.bench ops` needs torch and triton alone; `step` and `memory` need the whole package.
"""
