"""Benchmarks that run on every core, and go on where they were stopped."""

from uotcell.benchmark._result import BenchmarkResult
from uotcell.benchmark._run import run_benchmark
from uotcell.benchmark._screen import Screen, read_screen

__all__ = ["BenchmarkResult", "Screen", "read_screen", "run_benchmark"]
