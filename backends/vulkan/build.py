"""GLSL → SPIR-V: libshaderc where it loads, else a `glslc` on PATH.

What is compiled is the template of a shader (`template.py`), once for all sizes: SPIR-V is kept in this process and, where the caller
has a place for it, beyond.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from tridsl.backend import BackendUnavailable, Binary, Code, Records
from tridsl.backends.vulkan.container import Constant, Module, pack_modules
from tridsl.backends.vulkan.template import split_template
from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import Diagnostic

SHADERC = ("libshaderc_shared.so.1", "libshaderc.so.1", "libshaderc_shared.dylib", "shaderc_shared.dll")
GLSLC = "glslc"
TIMEOUT_SECONDS = 60.0

OPTIMISED = ("-O", "-O0")
"""Options of the program, in the order in which they are tried. Without the optimiser, f32 products of 1024 on an H200 are compiled in 3 ms instead
of 133, and take 7% longer from then on (attention 3, compactions 5, scans and ternary products as long; *measured*)."""

PHASE_MARK = "// ---- phase "
"""Begins the line before each shader in the emitted text; the phase's name follows."""

TEMPLATES_LIMIT = 1024
"""Templates whose SPIR-V (some kilobytes each) this process remembers; past it the table starts anew (`records` keep theirs)."""

NEWER = {"GL_NV_cooperative_matrix2": 3}
"""Extensions whose shaders are for a Vulkan 1.x newer than 1.2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiler:
    """From GLSL to SPIR-V bytes. `name`: the library or program; `version` asks it what it is, since another one may come to be at that place."""

    name: str
    run: Callable[[str], bytes] = field(compare=False)
    version: Callable[[], str] = field(compare=False)

    def __call__(self, source: str) -> bytes:
        return self.run(source)


def build(code: Code, spec: DeviceSpec, records: Records | None = None) -> Binary:
    """SPIR-V of every phase of `code`; a template that this process or `records` has is not compiled again. BackendUnavailable E0708 without
    a GLSL compiler; RuntimeError with the numbered source when the compiler refuses it, which is a fault of the emitter."""
    compiler = find_compiler()
    modules = [_module(compiler, shader, records) for shader in split_phases(code.text)]
    return Binary(
        backend="vulkan", entry=code.entry, blob=pack_modules(modules), signature=code.signature, facts=code.facts
    )


_COMPILED: dict[tuple[str, str], bytes] = {}
"""SPIR-V by the compiler's name and the template."""


def _module(compiler: Compiler, shader: str, records: Records | None) -> Module:
    template, sizes = split_template(shader)
    spirv = _COMPILED.get((compiler.name, template))
    if spirv is None:
        if len(_COMPILED) >= TEMPLATES_LIMIT:
            _COMPILED.clear()
        spirv = _COMPILED[compiler.name, template] = _recorded(compiler, template, records)
    return Module(spirv=spirv, constants=tuple(Constant(number=size.number, width=size.width, value=size.value) for size in sizes))


def _recorded(compiler: Compiler, template: str, records: Records | None) -> bytes:
    """SPIR-V of `template` from `records`, or made and put there."""
    if records is None:
        return compiler(template)
    key = records.key("spirv", compiler.name, compiler.version(), template)
    spirv = records.get(key)
    if spirv is None:
        spirv = compiler(template)
        records.put(key, spirv)
    return spirv


def split_phases(text: str) -> list[str]:
    """The shaders of an emitted text, one per phase. `#version` must be the first thing a compiler sees."""
    parts = ("\n" + text).split("\n" + PHASE_MARK)[1:]
    return [part.split("\n", 1)[1] for part in parts]


def find_compiler(libraries: tuple[str, ...] = SHADERC, program: str = GLSLC) -> Compiler:
    """The first library that loads, else the program."""
    library = _load_shaderc(libraries)
    if library is not None:
        return Compiler(
            name=str(library._name), run=lambda source: _compile_in_process(library, source), version=lambda: _version_of_library(library)
        )
    path = shutil.which(program)
    if path is None:
        raise BackendUnavailable(
            Diagnostic(
                code="E0708",
                message="vulkan: no GLSL compiler: neither libshaderc can be loaded nor is there a `glslc` on PATH",
                help="install one: apt-get install glslc (or the Vulkan SDK)",
            )
        )
    return Compiler(name=path, run=lambda source: _compile_in_child(path, source), version=lambda: _version_of_program(path))


def _version_of_library(library: ctypes.CDLL) -> str:
    """The SPIR-V that it makes, in hexadecimal (0x10600.1): all that it says of itself."""
    version, revision = ctypes.c_uint(), ctypes.c_uint()
    library.shaderc_get_spv_version(ctypes.byref(version), ctypes.byref(revision))
    return f"{version.value:#x}.{revision.value}"


@cache
def _version_of_program(path: str) -> str:
    """What it prints: the versions of shaderc, of SPIR-V Tools and of glslang."""
    try:
        return subprocess.run([path, "--version"], capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False).stdout
    except subprocess.TimeoutExpired:
        return ""


@cache
def _load_shaderc(libraries: tuple[str, ...]) -> ctypes.CDLL | None:
    for name in libraries:
        try:
            library = ctypes.CDLL(name)
        except OSError:  # absent, or (Debian 12) linked against symbols that nothing provides
            continue
        pointer, size = ctypes.c_void_p, ctypes.c_size_t
        signatures: dict[str, tuple[object, list[object]]] = {
            "get_spv_version": (None, [ctypes.POINTER(ctypes.c_uint), ctypes.POINTER(ctypes.c_uint)]),
            "compiler_initialize": (pointer, []),
            "compiler_release": (None, [pointer]),
            "compile_options_initialize": (pointer, []),
            "compile_options_release": (None, [pointer]),
            "compile_options_set_target_env": (None, [pointer, ctypes.c_int, ctypes.c_uint32]),
            "compile_options_set_optimization_level": (None, [pointer, ctypes.c_int]),
            "compile_into_spv": (
                pointer,
                [pointer, ctypes.c_char_p, size, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, pointer],
            ),
            "result_get_compilation_status": (ctypes.c_int, [pointer]),
            "result_get_error_message": (ctypes.c_char_p, [pointer]),
            "result_get_length": (size, [pointer]),
            "result_get_bytes": (pointer, [pointer]),
            "result_release": (None, [pointer]),
        }
        for function, (result, arguments) in signatures.items():
            entry = getattr(library, f"shaderc_{function}")
            entry.restype, entry.argtypes = result, arguments
        library.shaderc_compiler_initialize()  # never released: with the last one the library forgets the language's own declarations (0.35 s a shader, *measured*)
        return library
    return None


def _minor(source: str) -> int:
    """The x of the Vulkan 1.x that a shader is for."""
    return max((minor for extension, minor in NEWER.items() if f"#extension {extension} " in source), default=2)


def _compile_in_process(library: ctypes.CDLL, source: str) -> bytes:
    compute_shader, target_vulkan, version, optimise_speed = 2, 0, 1 << 22 | _minor(source) << 12, 2  # shaderc.h, env.h
    text = source.encode()
    compiler = library.shaderc_compiler_initialize()
    options = library.shaderc_compile_options_initialize()
    result = None
    try:
        library.shaderc_compile_options_set_target_env(options, target_vulkan, version)
        library.shaderc_compile_options_set_optimization_level(options, optimise_speed)
        result = library.shaderc_compile_into_spv(
            compiler, text, len(text), compute_shader, b"kernel.comp", b"main", options
        )
        if library.shaderc_result_get_compilation_status(result) != 0:
            raise _refused(library.shaderc_result_get_error_message(result).decode("utf-8", "replace"), source)
        return ctypes.string_at(library.shaderc_result_get_bytes(result), library.shaderc_result_get_length(result))
    finally:
        if result is not None:
            library.shaderc_result_release(result)
        library.shaderc_compile_options_release(options)
        library.shaderc_compiler_release(compiler)


def _compile_in_child(path: str, source: str) -> bytes:
    """Optimised; without, where the optimiser crashes (that of shaderc 2023.2 does on some shaders with many branches written out)."""
    with tempfile.TemporaryDirectory(prefix="tridsl-glslc-") as folder:
        output = Path(folder, "kernel.spv")
        for level in OPTIMISED:
            command = [path, "-fshader-stage=compute", f"--target-env=vulkan1.{_minor(source)}", level, "-o", str(output), "-"]
            try:
                done = subprocess.run(
                    command, input=source.encode(), capture_output=True, timeout=TIMEOUT_SECONDS, check=False
                )
            except subprocess.TimeoutExpired:
                raise _refused(f"{path} did not finish within {TIMEOUT_SECONDS:g} s", source) from None
            if done.returncode >= 0:
                break
        if done.returncode < 0:
            raise _refused(f"{path} was ended by signal {-done.returncode}", source)
        if done.returncode != 0:
            raise _refused(done.stderr.decode("utf-8", "replace"), source)
        return output.read_bytes()


def _refused(problem: str, source: str) -> RuntimeError:
    numbered = "\n".join(f"{number:>4} | {line}" for number, line in enumerate(source.split("\n"), 1))
    return RuntimeError(
        f"the emitted GLSL does not compile; this is a fault of tridsl's Vulkan emitter\n{problem}\n{numbered}"
    )
