"""Programs of the Debian sid root that `.ci/sid-root` makes: parts newer than this machine's, run with their own loader and libraries."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import platformdirs

CHECKOUT = Path(__file__).parents[1]


@dataclass(frozen=True, kw_only=True)
class SidRoot:
    folder: Path

    def run(
        self, *command: str | Path, cwd: Path | None = None, environment: Mapping[str, str] | None = None, timeout: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """A program of the root, by its name, and what it said; its status is the caller's to judge."""
        return subprocess.run(
            [str(self.folder / "enter"), *map(str, command)], cwd=cwd, env={**os.environ, **(environment or {})}, capture_output=True,
            text=True, errors="replace", timeout=timeout, check=False,
        )  # fmt: skip

    def tool(self, *command: str | Path, cwd: Path | None = None) -> str:
        """The same where a status other than 0 fails the test; what the program printed."""
        done = self.run(*command, cwd=cwd)
        assert done.returncode == 0, f"{command[0]} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def python(self, *arguments: str | Path, scratch: Path, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """The root's Python with this checkout importable, its entry points, and the binding `vulkan` that is installed here (it is pure
        Python, and Debian has none). Whatever is cached goes to `scratch`."""
        packages = scratch / "packages"
        packages.mkdir(exist_ok=True)
        binding = importlib.util.find_spec("vulkan")
        entry_points = next((file for file in metadata.files("tridsl") or () if file.name == "entry_points.txt"), None)
        wanted = [Path(binding.origin).parent] if binding is not None and binding.origin is not None else []
        wanted += [Path(str(entry_points.locate())).parent] if entry_points is not None else []
        for folder in wanted:
            if not (packages / folder.name).exists():
                (packages / folder.name).symlink_to(folder)
        environment = {
            "PYTHONPATH": f"{CHECKOUT}{os.pathsep}{packages}", "PYTHONDONTWRITEBYTECODE": "1", "TRIDSL_CACHE": str(scratch / "cache"),
            "TRIDSL_PERSONALITY": str(scratch / "personality"),
        }  # fmt: skip
        return self.run("python3", *arguments, cwd=CHECKOUT, environment=environment, timeout=timeout)


def find() -> SidRoot | None:
    """The root, where there is one: `TRIDSL_SID`, else the user's cache, as `.ci/sid-root` has it."""
    folder = Path(os.environ.get("TRIDSL_SID") or Path(platformdirs.user_cache_dir("tridsl")) / "sid")
    return SidRoot(folder=folder) if (folder / "enter").exists() else None
