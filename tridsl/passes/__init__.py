"""Kernel to Kernel, one pass per file, one public function each; `pipeline.py` lists them in order."""
