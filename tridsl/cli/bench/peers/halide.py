"""Halide, with schedules by hand."""

from __future__ import annotations

from tridsl.cli.bench.peers.contract import Table

HALIDE: Table = {}
