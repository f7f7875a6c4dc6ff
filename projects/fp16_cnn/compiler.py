"""From LLVM's intermediate language to a function that Python calls: LLVM's own just-in-time compiler, by llvmlite."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import llvmlite.binding as llvm

from common.errors import BadInputError
from projects.fp16_cnn import cpu

_LOCK = threading.Lock()


@dataclass(frozen=True)
class Compiled:
    """One compiled function.

    Attributes:
        address: of its machine code.
        seconds: that parsing, verifying and compiling took; a cached function keeps its own.
    """

    call: Callable[..., None]
    address: int
    seconds: float
    engine: Any  # owns the machine code


@functools.cache
def _start() -> None:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    with contextlib.suppress(RuntimeError):  # conversions that the CPU lacks become calls into this library
        llvm.load_library_permanently("libgcc_s.so.1")


def _machine(name: str, features: str, jit: bool) -> Any:
    _start()
    target = llvm.Target.from_default_triple()
    model = "jitdefault" if jit else "default"
    return target.create_target_machine(cpu=name, features=features, opt=3, jit=jit, codemodel=model)


def compile_function(ir: str, name: str, parameters: int, integers: int = 0) -> Compiled:
    """Compile `name` of the module `ir`; the same text is compiled once in a process.

    Args:
        parameters: pointers that the function takes.
        integers: 64-bit integers that it takes after them.

    Raises:
        BadInputError: it needs what neither the CPU nor its library has.
        RuntimeError: the text is no valid module.
    """
    with _LOCK:
        return _compile(ir, name, parameters, integers)


def _check_library(ir: str) -> None:
    """LLVM ends the process when it cannot find a function: look for those that replace missing instructions.

    Raises:
        BadInputError: one is missing.
    """
    needed: list[str] = []
    if " half" in ir and not cpu.has("f16c"):
        needed += ["__extendhfsf2", "__truncsfhf2"]
    if "f16(" in ir and not cpu.has("avx512fp16"):
        needed += ["__truncdfhf2"]
    missing = [name for name in needed if llvm.address_of_symbol(name) is None]
    if missing:
        raise BadInputError(
            f"{cpu.cpu_name()} has no instructions for this fp16 kernel, and the system's libgcc no {missing[0]} to "
            "replace them (GCC 12 or newer has it): use f32 or bf16."
        )


@functools.cache
def _compile(ir: str, name: str, parameters: int, integers: int) -> Compiled:
    _start()
    _check_library(ir)
    started = time.perf_counter()
    machine = _machine(llvm.get_host_cpu_name(), cpu.flattened(), jit=True)
    module = llvm.parse_assembly(ir)
    module.verify()
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    address = engine.get_function_address(name)
    seconds = time.perf_counter() - started
    kinds = [ctypes.c_void_p] * parameters + [ctypes.c_int64] * integers
    return Compiled(ctypes.CFUNCTYPE(None, *kinds)(address), address, seconds, engine)


def assembly(ir: str, name: str | None = None, features: str | None = None) -> str:
    """The machine code of `ir` as text, for this CPU or for another that LLVM knows (e.g. "sapphirerapids").

    Args:
        features: beyond those of the named CPU; None: this CPU's when `name` is None, else none.
    """
    _start()
    if features is None:
        features = cpu.flattened() if name is None else ""
    machine = _machine(name or llvm.get_host_cpu_name(), features, jit=False)
    return machine.emit_assembly(llvm.parse_assembly(ir))
