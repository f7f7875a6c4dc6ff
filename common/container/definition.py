"""A strict reader of Apptainer definitions: what Apptainer would refuse, or silently misread, ends here first.

Stricter than Apptainer in three ways: a Docker base must carry its digest, a declared build argument must be used,
and the label of the lock must be the hash of the file that is copied in.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from common.errors import BadInputError, unknown
from common.files import sha256

SECTIONS = (
    "arguments", "environment", "files", "help", "labels", "post", "pre", "runscript", "setup", "startscript", "test",
)  # fmt: skip
# What the bootstrap agents need, and all header keywords that we use.
AGENTS = {
    "debootstrap": ("OSVersion", "MirrorURL"),
    "docker": ("From",),
    "localimage": ("From",),
    "scratch": (),
}
KEYWORDS = ("Bootstrap", "From", "Stage", "OSVersion", "MirrorURL", "Include", "Registry", "Namespace")
LOCK_LABEL = "org.rethesis.lock.sha256"
LOCK_IN_IMAGE = "/opt/rethesis/lock.txt"
SCRIPTS = ("environment", "post", "pre", "runscript", "setup", "startscript", "test")
_ARGUMENT = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_PINNED = re.compile(r"@sha256:[0-9a-f]{64}$")


@dataclass
class Section:
    """``%name words`` and the lines below it; `line` is the number of its own."""

    name: str
    words: list[str]
    line: int
    body: list[str] = field(default_factory=list[str])


@dataclass
class Stage:
    """One ``Bootstrap:`` header, by lower-case keyword, and its sections."""

    header: dict[str, str] = field(default_factory=dict[str, str])
    sections: list[Section] = field(default_factory=list[Section])

    def body(self, name: str) -> list[str]:
        """Lines of the section, without blank ones and comments; empty if there is none."""
        lines = [line.strip() for section in self.sections if section.name == name for line in section.body]
        return [line for line in lines if line and not line.startswith("#")]


def check(definition: Path, given: Mapping[str, str], folder: Path) -> list[Stage]:
    """Read a definition, put in its build arguments, and refuse what cannot be right.

    Args:
        definition: the file.
        given: build arguments of the command line.
        folder: where the build starts: what relative paths of %files are relative to.

    Raises:
        BadInputError: with the line or the name that is wrong, and what to do.
    """
    try:
        stages = parse(definition.read_text(encoding="utf-8"))
        _substitute(stages, given)
        names: set[str] = set()
        for stage in stages:
            _check_header(stage)
            _check_files(stage, folder, names)
            _check_scripts(stage)
            _check_lock(stage, folder)
            names.add(stage.header.get("stage", ""))
    except BadInputError as error:
        raise BadInputError(f"{definition}: {error}") from error
    return stages


def parse(text: str) -> list[Stage]:
    """The stages of a definition, build arguments not yet put in.

    Raises:
        BadInputError: an unknown or repeated section or keyword, or text where none may stand.
    """
    stages: list[Stage] = []
    section: Section | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        if re.match(r"bootstrap\s*:", line, re.IGNORECASE) and (section or not stages):
            stages.append(Stage())
            section = None
        if line.startswith("%"):
            section = _open(line, number, stages)
        elif section:
            section.body.append(line)
        elif line.strip() and not line.lstrip().startswith("#"):
            _keyword(line, number, stages)
    if not stages:
        raise BadInputError("there is no Bootstrap line.")
    return stages


def _open(line: str, number: int, stages: list[Stage]) -> Section:
    name, *words = line[1:].split() or [""]
    if name not in SECTIONS:
        raise BadInputError(f"line {number}: {unknown('section', name, SECTIONS)}")
    if not stages:
        raise BadInputError(f"line {number}: %{name} stands before the Bootstrap line.")
    if any(name == other.name and name != "files" for other in stages[-1].sections):
        raise BadInputError(f"line {number}: %{name} is there twice; join the two.")
    section = Section(name, words, number)
    stages[-1].sections.append(section)
    return section


def _keyword(line: str, number: int, stages: list[Stage]) -> None:
    name, colon, value = line.partition(":")
    known = {keyword.lower() for keyword in KEYWORDS}
    if not colon or name.strip().lower() not in known:
        raise BadInputError(f"line {number}: {unknown('keyword', name.strip(), KEYWORDS)}")
    if not stages:
        raise BadInputError(f"line {number}: the first keyword must be Bootstrap.")
    if name.strip().lower() in stages[-1].header:
        raise BadInputError(f"line {number}: {name.strip()} is there twice.")
    stages[-1].header[name.strip().lower()] = value.strip()


def _substitute(stages: list[Stage], given: Mapping[str, str]) -> None:
    declared: dict[str, str] = {}
    for line in (line for stage in stages for line in stage.body("arguments")):
        name, sign, value = line.partition("=")
        if not sign or not re.fullmatch(r"\w+", name):
            raise BadInputError(f"%arguments: {line!r} is not NAME=VALUE.")
        declared[name] = value
    if strange := sorted(given.keys() - declared.keys()):
        raise BadInputError(str(unknown("build argument", strange[0], declared)))
    used: set[str] = set()

    def put(text: str) -> str:
        used.update(names := _ARGUMENT.findall(text))
        if missing := [name for name in names if name not in declared]:
            raise BadInputError(
                f"the build argument {missing[0]} is not declared in %arguments: {text.strip()!r}"
            )
        return _ARGUMENT.sub(lambda match: {**declared, **given}[match[1]], text)

    for stage in stages:
        stage.header = {name: put(value) for name, value in stage.header.items()}
        for section in stage.sections:
            section.words = [put(word) for word in section.words]
            section.body = [put(line) for line in section.body]
    if unused := sorted(declared.keys() - used):
        raise BadInputError(f"the build argument {unused[0]} is declared in %arguments and used nowhere.")


def _check_header(stage: Stage) -> None:
    agent = stage.header["bootstrap"]
    if agent not in AGENTS:
        raise unknown("Bootstrap agent", agent, AGENTS)
    for name in AGENTS[agent]:
        if not stage.header.get(name.lower()):
            hint = (
                ": give the build argument MIRROR, a mirror of the distribution"
                if name == "MirrorURL"
                else ""
            )
            raise BadInputError(f"Bootstrap: {agent} needs {name}, which is empty{hint}.")
    if agent == "docker" and not _PINNED.search(stage.header["from"]):
        raise BadInputError(
            f"the base {stage.header['from']!r} is not pinned. Give the build argument DIGEST=sha256:..., the digest "
            "that its registry shows for this tag."
        )


def _check_files(stage: Stage, folder: Path, earlier: set[str]) -> None:
    for section in (section for section in stage.sections if section.name == "files"):
        if section.words:
            if section.words[0] != "from" or len(section.words) != 2 or section.words[1] not in earlier:
                raise BadInputError(
                    f"line {section.line}: %files {' '.join(section.words)}: no such earlier stage."
                )
            continue
        for number, line in enumerate(section.body, start=section.line + 1):
            if line.strip() and not line.strip().startswith("#") and not _found(shlex.split(line)[0], folder):
                raise BadInputError(f"line {number}: {shlex.split(line)[0]} does not exist in {folder}.")


def _check_scripts(stage: Stage) -> None:
    for section in (section for section in stage.sections if section.name in SCRIPTS):
        script = "\n".join(section.body)
        done = subprocess.run(["sh", "-n"], input=script, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise BadInputError(
                f"line {section.line}: %{section.name} is no shell script: {done.stderr.strip()}"
            )


def _found(pattern: str, folder: Path) -> bool:
    path = Path(pattern)
    base, rest = (
        (Path(path.anchor), str(path.relative_to(path.anchor))) if path.is_absolute() else (folder, pattern)
    )
    return any(base.glob(rest))


def _check_lock(stage: Stage, folder: Path) -> None:
    labels = dict(line.split(maxsplit=1) for line in stage.body("labels") if " " in line)
    copied = [shlex.split(line) for line in stage.body("files")]
    sources = [words[0] for words in copied if words[-1] == LOCK_IN_IMAGE]
    if LOCK_LABEL not in labels and not sources:
        return  # a stage that installs nothing
    if not sources or LOCK_LABEL not in labels:
        raise BadInputError(
            f"the label {LOCK_LABEL} and the file {LOCK_IN_IMAGE} belong together; one is missing."
        )
    found = sha256(folder / sources[0])
    if found != labels[LOCK_LABEL]:
        raise BadInputError(
            f"the lock {sources[0]} has the hash {found[:16]}…, the label says {labels[LOCK_LABEL][:16]}…: one of "
            "them was altered. `make container` writes both anew."
        )
