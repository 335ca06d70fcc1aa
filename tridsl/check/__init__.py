"""Meaning: from `syntax.nodes.Module` to `ir.op.Op`. Names, types, index ranges, bounds, reducers, calls."""
