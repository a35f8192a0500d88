"""Reports: a study's run folders as frames, statistics and tables. Importing this package does not import torch."""

from mhc_lab.report.frame import read_study
from mhc_lab.report.tables import export
from mhc_lab.report.terminal import print_table

__all__ = ["export", "print_table", "read_study"]
