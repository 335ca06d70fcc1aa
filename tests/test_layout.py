"""The folders, the links between them, and what a wheel contains."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LINKS = ("backends", "autotune", "grammar", "stdlib")


@pytest.mark.parametrize("name", LINKS)
def test_links_lead_to_the_top_level_folders(name: str) -> None:
    link = ROOT / "tridsl" / name
    assert link.is_symlink()
    assert str(link.readlink()) == f"../{name}"
    assert link.resolve() == ROOT / name


def package_files() -> set[str]:
    """Every module and data file of the package as it is imported, through the links; `git` decides what belongs to it."""
    listed = subprocess.run(["git", "ls-files", "-z", "--", "tridsl", *LINKS], cwd=ROOT, capture_output=True, text=True, check=True)
    found = set()
    for name in filter(None, listed.stdout.split("\0")):
        place = name if name.startswith("tridsl/") else f"tridsl/{name}"
        if (ROOT / name).is_file() and not (ROOT / name).is_symlink():
            found.add(place)
    return found


def test_every_folder_with_modules_is_a_package() -> None:
    folders = {str(Path(name).parent) for name in package_files() if name.endswith(".py")}
    assert [folder for folder in sorted(folders) if not (ROOT / folder / "__init__.py").is_file()] == []


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A wheel built from a copy of what git tracks, and what was said meanwhile; pip fetches the build system that pyproject.toml asks for."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if not (ROOT / name).exists():
            continue
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, source / name, follow_symlinks=False)
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-v", "--no-deps", "-w", str(folder), str(source)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    (file,) = folder.glob("*.whl")
    return file, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(built: tuple[Path, str]) -> Path:
    return built[0]


def test_building_a_wheel_warns_of_nothing(built: tuple[Path, str]) -> None:
    assert [line for line in built[1].splitlines() if "BuildBackendWarning" in line or "absent from the `packages`" in line] == []


def test_the_wheel_has_every_module_and_data_file(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        contents = set(archive.namelist())
    missing = sorted(package_files() - contents)
    assert missing == []
    outside = {name.split("/")[0] for name in contents} - {"tridsl"}
    assert all(name.endswith(".dist-info") for name in outside), f"installed beside the package: {outside}"


def test_an_installed_wheel_works_away_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import tridsl, tridsl.grammar, numpy as np; "
        f"assert tridsl.__file__.startswith({str(tmp_path)!r}), tridsl.__file__; "
        "x = np.ones((2, 8), np.float32); assert np.allclose(tridsl.stdlib.softmax(x), 1 / 8); print(len(tridsl.grammar.explanations()))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 50


def test_data_is_found_through_the_package() -> None:
    assert (files("tridsl.grammar") / "tri.lark").is_file()
    assert any(entry.name.endswith(".toml") for entry in (files("tridsl.grammar") / "errors").iterdir())
    assert any(entry.name.endswith(".toml") for entry in (files("tridsl.devices") / "chips").iterdir())
    assert any(entry.name == "softmax.tri" for entry in files("tridsl.stdlib").iterdir())
    assert (files("tridsl") / "py.typed").is_file()


def test_entry_points_are_those_of_the_project_file() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = project["entry-points"]["tridsl.backends"]
    assert {e.name: e.value for e in entry_points(group="tridsl.backends")}.items() >= declared.items()
    assert all((ROOT / value.split(":")[0].replace(".", "/") / "__init__.py").is_file() for value in declared.values())
    assert set(declared) == {p.parent.name for p in (ROOT / "backends").glob("*/__init__.py")}


def test_layers_name_every_part() -> None:
    """A new package cannot slip past the import rules: each is in a layer of the contract that `lint-imports` checks."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layered = {part.strip() for contract in contracts for layer in contract.get("layers", ()) for part in layer.replace(":", "|").split("|")}
    parts = {p.name for p in (ROOT / "tridsl").iterdir() if p.is_dir() and (p / "__init__.py").exists()} | {
        p.stem for p in (ROOT / "tridsl").glob("*.py") if not p.stem.startswith("__")
    }
    parts -= {"grammar", "backends"}  # data; each of `backends.<name>` stands for itself
    assert parts <= layered, f"in no layer of pyproject.toml: {parts - layered}"


def test_the_readme_names_folders_that_exist() -> None:
    """Every `path/` and `path/file.py` in backticks that begins with a folder of ours."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    tops = {p.name for p in ROOT.iterdir() if p.is_dir() and not p.name.startswith(".")}
    named = {word for word in re.findall(r"`([\w./-]+)`", text) if word.split("/")[0] in tops and "/" in word}
    assert named
    assert [word for word in sorted(named) if not (ROOT / word).exists()] == []
