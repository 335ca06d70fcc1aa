"""`tridsl cache show|clear`."""

from __future__ import annotations

from tridsl.cli.output import Report
from tridsl.cli.settings import Settings
from tridsl.runtime.artifacts import Artifacts


def show(settings: Settings) -> Report:
    """Folder, numbers of files, bytes and limit."""
    found = Artifacts(settings.cache).show()
    data = {"folder": str(found.folder), "binaries": found.binaries, "notes": found.notes, "bytes": found.size, "limit_bytes": found.limit}
    text = f"{found.folder}\n{found.binaries} kernels and {found.notes} notes, {found.size / 1e6:.1f} MB of at most {found.limit / 1e9:.1f} GB"
    return Report(data=data, text=(text,))


def clear(settings: Settings) -> Report:
    """Delete all; how many files there were."""
    artifacts = Artifacts(settings.cache)
    count = artifacts.clear()
    return Report(data={"folder": str(artifacts.folder), "deleted": count}, text=(f"{count} files deleted from {artifacts.folder}",))
