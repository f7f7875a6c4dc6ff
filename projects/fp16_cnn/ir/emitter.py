"""Writes one LLVM function: fresh names, addresses, and loops whose carried values are phis."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

ATTRIBUTES = 'attributes #0 = { nounwind "prefer-vector-width"="512" "min-legal-vector-width"="512" }'


@dataclass
class Loop:
    """One loop while it is being written.

    Attributes:
        index: name of the i64 counter.
        carried: names of the carried values at the start of a turn.
        following: their names at its end: the body must set them; after the loop they are the results.
    """

    index: str
    carried: list[str]
    following: list[str] = field(default_factory=list[str])


class Emitter:
    """A growing function body; `value` names an expression, `loop` opens a counted loop."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.declarations: set[str] = set()
        self.globals: list[str] = []
        self._count = 0
        self._block = "entry"

    def _fresh(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}{self._count}"

    def line(self, text: str) -> None:
        """Append one instruction that has no result."""
        self.lines.append(f"  {text}")

    def value(self, expression: str) -> str:
        """Append an instruction and return its result's name."""
        name = self._fresh("%v")
        self.lines.append(f"  {name} = {expression}")
        return name

    def call(self, result: str, function: str, arguments: Sequence[tuple[str, str]]) -> str:
        """Call an intrinsic (declared on the way): `arguments` are pairs (type, value)."""
        types = ", ".join(kind for kind, _ in arguments)
        self.declarations.add(f"declare {result} @{function}({types})")
        return self.value(
            f"call {result} @{function}({', '.join(f'{kind} {name}' for kind, name in arguments)})"
        )

    def multiply(self, index: str, factor: int) -> str:
        """The i64 `index` times a constant."""
        return "0" if factor == 0 else index if factor == 1 else self.value(f"mul i64 {index}, {factor}")

    def add(self, *terms: str) -> str:
        """The sum of i64 values, zeros left out."""
        kept = [term for term in terms if term != "0"]
        total = kept[0] if kept else "0"
        for term in kept[1:]:
            total = self.value(f"add i64 {total}, {term}")
        return total

    def minimum(self, left: str, right: str) -> str:
        """The smaller of two signed i64 values."""
        return self.call("i64", "llvm.smin.i64", [("i64", left), ("i64", right)])

    def maximum(self, left: str, right: str) -> str:
        """The larger of two signed i64 values."""
        return self.call("i64", "llvm.smax.i64", [("i64", left), ("i64", right)])

    def address(self, base: str, offset: str | int) -> str:
        """`base` plus `offset` bytes."""
        return base if str(offset) == "0" else self.value(f"getelementptr i8, ptr {base}, i64 {offset}")

    @contextmanager
    def loop(
        self, stop: str | int, start: str | int = 0, step: int = 1, carried: Sequence[tuple[str, str]] = ()
    ) -> Generator[Loop]:
        """A loop that runs at least once: for index = start, start + step, ... while index < stop.

        Args:
            carried: (type, first value) of what a turn hands to the next.
        """
        head, exit_ = self._fresh("loop"), self._fresh("done")
        entered = self._block
        index, following = self._fresh("%i"), self._fresh("%i")
        state = Loop(index, [self._fresh("%c") for _ in carried])
        self.line(f"br label %{head}")
        self._open(head)
        phis = len(self.lines)
        self.lines.extend("" for _ in range(len(carried) + 1))
        yield state
        latch = self._block
        self.lines[phis] = f"  {index} = phi i64 [{start}, %{entered}], [{following}, %{latch}]"
        values = zip(carried, state.carried, state.following, strict=True)
        for row, ((kind, first), name, last) in enumerate(values, phis + 1):
            self.lines[row] = f"  {name} = phi {kind} [{first}, %{entered}], [{last}, %{latch}]"
        self.line(f"{following} = add i64 {index}, {step}")
        more = self.value(f"icmp slt i64 {following}, {stop}")
        self.line(f"br i1 {more}, label %{head}, label %{exit_}")
        self._open(exit_)

    def _open(self, label: str) -> None:
        self.lines.append(f"{label}:")
        self._block = label

    def function(self, name: str, parameters: Sequence[tuple[str, str]]) -> str:
        """The module's text: declarations, then `void name(parameters)` with the body written so far."""
        listed = ", ".join(f"{kind} {parameter}" for kind, parameter in parameters)
        head = [*sorted(self.declarations), *self.globals, f"define void @{name}({listed}) #0 {{", "entry:"]
        return "\n".join([*head, *self.lines, "  ret void", "}", ATTRIBUTES, ""])
