"""The report of a sweep: its best trials, what they depend on, and figures. Importing it does not import torch."""

from mhc_lab.report.sweep.data import Objective, Parameter, Sweep, SweepTrial
from mhc_lab.report.sweep.terminal import print_sweep
from mhc_lab.report.sweep.write import write

__all__ = ["Objective", "Parameter", "Sweep", "SweepTrial", "print_sweep", "write"]
