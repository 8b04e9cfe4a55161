"""PTX text of one kernel, parsed into statements, registers, parameters and shared memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from .errors import InvalidProgram

#: The opcode of a statement that was taken out, which no compiler emits.
REMOVED = "removed"

_ENTRY = re.compile(r"\.entry\s+([\w$]+)\s*\(")
_PARAMETER = re.compile(
    r"\.param\s+(?:\.align\s+(\d+)\s+)?\.[a-z](\d+)\s.*?([\w$]+)(?:\[(\d+)\])?$"
)
_SHARED = re.compile(r"\.shared\s+(?:\.align\s+(\d+)\s+)?\.[a-z](\d+)\s+([\w$]+)((?:\[\d*\])?)\s*;")
_REGISTERS = re.compile(r"\.reg\s+\.(pred|[a-z]\d+)\s+(.*)", re.DOTALL)
_FAMILY = re.compile(r"([%\w$]+)<(\d+)>")
_LABEL = re.compile(r"([\w$]+):(?!:)")
_GUARD = re.compile(r"@(!?)(%?[\w$]+)\s+(.*)", re.DOTALL)
_WITHOUT_RESULT = (
    "st", "bra", "bar", "barrier", "red", "fence", "membar", "stmatrix", "ret", "exit", "cp",
)  # fmt: skip
_FILE = re.compile(r"\.file\s+(\d+)\s+\"([^\"]*)\"")
_LOCATION = re.compile(r"\.loc\s+(\d+)\s+(\d+)\s+(\d+)(?:.*?inlined_at\s+(\d+)\s+(\d+)\s+(\d+))?")
_NAME = re.compile(r"%?[A-Za-z_$][\w$]*")


@dataclass(frozen=True)
class Statement:
    """One instruction. ``text`` is how it is written, guard included, with single spaces."""

    line: int
    text: str
    opcode: str
    operands: tuple[str, ...]
    guard: str | None = None
    guard_negated: bool = False
    #: Names of the registers that it writes, and that it reads, the guard's among them.
    destinations: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    #: Where it comes from, if the text says so: "file:line" of the code, then of the call that it
    #: was inlined at, and so on.
    origin: tuple[str, ...] = ()

    def __str__(self) -> str:
        origin = f" ({' in '.join(self.origin)})" if self.origin else ""
        return f"line {self.line}{origin}: {self.text}"

    @property
    def is_barrier(self) -> bool:
        """Of a block or of a warp."""
        return self.opcode.split(".")[0] in ("bar", "barrier")


@dataclass(frozen=True)
class Register:
    slot: int
    #: 1 for predicates.
    bits: int


@dataclass(frozen=True)
class Parameter:
    name: str
    offset: int
    size: int


@dataclass
class Program:
    """One kernel of a module."""

    name: str
    #: The compute capability it was compiled for, times ten.
    target: int
    parameters: list[Parameter]
    #: Threads of a block, as the kernel's directives have it, or None.
    block_threads: int | None
    statements: list[Statement] = field(default_factory=list)
    #: Label to index of the statement after it.
    labels: dict[str, int] = field(default_factory=dict)
    registers: dict[str, Register] = field(default_factory=dict)
    #: Offset of each variable in shared memory; memory that a launch adds starts after all.
    shared_offsets: dict[str, int] = field(default_factory=dict)
    static_shared_bytes: int = 0

    @property
    def parameter_bytes(self) -> int:
        return max((p.offset + p.size for p in self.parameters), default=0)

    def parameter(self, name: str) -> Parameter | None:
        return next((p for p in self.parameters if p.name == name), None)

    def barriers(self) -> list[int]:
        """Indices of the barriers among the statements."""
        return [i for i, statement in enumerate(self.statements) if statement.is_barrier]

    def without(self, index: int) -> Program:
        """The program with one statement taken out, which leaves a step that does nothing."""
        statements = list(self.statements)
        gone = statements[index]
        statements[index] = replace(
            gone,
            text=f"(removed) {gone.text}",
            opcode=REMOVED,
            operands=(),
            guard=None,
            destinations=(),
            sources=(),
        )
        return replace(self, statements=statements)


def kernel_names(text: str) -> list[str]:
    """Mangled names of a module's kernels."""
    return _ENTRY.findall(_without_comments(text))


def parse(text: str, kernel: str | None = None) -> Program:
    """The kernel whose name contains ``kernel``, or the only one of the module.

    Raises:
        InvalidProgram: if no kernel or several match, or the text does not parse.
    """
    text = _without_comments(text)
    entries = [m for m in _ENTRY.finditer(text) if kernel is None or kernel in m[1]]
    if len(entries) != 1:
        raise InvalidProgram(
            f"one kernel named like {kernel!r} is needed, the module has {_ENTRY.findall(text)}"
        )
    entry = entries[0]
    target = re.search(r"\.target\s+sm_(\d+)", text)
    end_of_parameters = text.index(")", entry.end())
    body = text.index("{", end_of_parameters)
    program = Program(
        name=entry[1],
        target=int(target[1]) if target else 0,
        parameters=_parameters(text[entry.end() : end_of_parameters]),
        block_threads=_block_threads(text[end_of_parameters:body]),
    )
    _Body(program, text, body + 1).parse()
    _place_shared(program, text)
    return program


def _without_comments(text: str) -> str:
    """Lines stay where they are."""
    text = re.sub(r"/\*.*?\*/", lambda m: "\n" * m[0].count("\n"), text, flags=re.DOTALL)
    return re.sub(r"//[^\n]*", "", text)


def _parameters(text: str) -> list[Parameter]:
    parameters, offset = [], 0
    for declared in filter(None, (part.strip() for part in text.split(","))):
        # .ptr says what a pointer points to, with an alignment of its own.
        match = _PARAMETER.match(re.sub(r"\.ptr\b.*?(?=\s[\w$]+$)", "", declared))
        if match is None:
            raise InvalidProgram(f"a parameter that cannot be read: {declared}")
        size = int(match[2]) // 8 * int(match[4] or 1)
        align = int(match[1] or int(match[2]) // 8)
        offset = -(-offset // align) * align
        parameters.append(Parameter(match[3], offset, size))
        offset += size
    return parameters


def _block_threads(directives: str) -> int | None:
    match = re.search(r"\.(?:reqntid|maxntid)\s+([\d,\s]+)", directives)
    if match is None:
        return None
    sides = [int(side) for side in match[1].replace(",", " ").split()]
    if any(side != 1 for side in sides[1:]):
        raise InvalidProgram(f"blocks have one dimension of threads here, not {sides}")
    return sides[0]


def _place_shared(program: Program, text: str) -> None:
    """Variables with a size first, then the memory that a launch adds."""
    used = {name for s in program.statements for o in s.operands for name in _NAME.findall(o)}
    declared = [m for m in _SHARED.finditer(text) if m[3] in used]
    offset = 0
    for has_size in (True, False):
        for align, bits, name, extent in (m.groups() for m in declared):
            if (extent not in ("[]",)) != has_size:
                continue
            step = max(int(align or 1), int(bits) // 8)
            offset = -(-offset // step) * step
            program.shared_offsets[name] = offset
            if has_size:
                offset += int(bits) // 8 * int(extent.strip("[]") or 1)
    program.static_shared_bytes = offset


class _Body:
    """Statements of the braces that open before ``start``."""

    def __init__(self, program: Program, text: str, start: int) -> None:
        self.program, self.text, self.at = program, text, start
        self.line = text.count("\n", 0, start) + 1
        #: Families of registers ("%r" of %r<9>) to their bits.
        self.families: dict[str, int] = {}
        #: For each pair of braces, names declared in it and the registers that they stand for.
        self.scopes: list[dict[str, str]] = [{}]
        self.n_scopes = 0
        self.files = {int(n): path.rsplit("/", 1)[-1] for n, path in _FILE.findall(text)}
        #: Places in the source to those that they are inlined at.
        self.inlined_at: dict[tuple, tuple] = {}
        self.origin: tuple[str, ...] = ()

    def parse(self) -> None:
        while self.scopes:
            self._skip_blanks()
            if self.at >= len(self.text):
                raise InvalidProgram(f"{self.program.name}: its closing brace is missing")
            rest = self.text[self.at : self.at + 200]
            label = _LABEL.match(rest)
            if rest[0] == "{":
                self.scopes.append({})
                self.n_scopes += 1
                self.at += 1
            elif rest[0] == "}":
                self.scopes.pop()
                self.at += 1
            elif label:
                self.program.labels[label[1]] = len(self.program.statements)
                self.at += label.end()
            elif rest.startswith(".loc"):
                self._locate(self._take_until("\n"))
            else:
                line = self.line
                self._statement(line, self._take_until(";"))
        for statement in self.program.statements:
            if statement.opcode.split(".")[0] == "bra" and (
                statement.operands[0] not in self.program.labels
            ):
                raise InvalidProgram(f"{statement}: no such label")

    def _skip_blanks(self) -> None:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.line += self.text[self.at] == "\n"
            self.at += 1

    def _take_until(self, mark: str) -> str:
        end = self.text.find(mark, self.at)
        if end < 0:
            raise InvalidProgram(f"line {self.line}: no {mark!r} ends it")
        taken, self.at = self.text[self.at : end], end + 1
        self.line += taken.count("\n") + (mark == "\n")
        return taken

    def _locate(self, directive: str) -> None:
        numbers = [n and int(n) for n in _LOCATION.match(directive).groups()]
        at, caller = tuple(numbers[:3]), tuple(numbers[3:])
        self.inlined_at[at] = caller if caller[0] is not None else ()
        chain = []
        # Calls of a function at several depths may seem to be inlined at each other.
        seen: set[tuple] = set()
        while at and at not in seen:
            seen.add(at)
            place = f"{self.files.get(at[0], at[0])}:{at[1]}"
            if place not in chain:
                chain.append(place)
            at = self.inlined_at.get(at, ())
        self.origin = tuple(chain)

    def _statement(self, line: int, text: str) -> None:
        text = " ".join(text.split())
        if text.startswith(".reg"):
            self._declare(text)
            return
        if not text or text.startswith((".pragma", ".shared")):
            return
        if text.startswith("."):
            raise InvalidProgram(f"line {line}: a directive that is not known here: {text}")
        guard = _GUARD.match(text)
        negated, predicate, bare = guard.groups() if guard else ("", None, text)
        opcode, _, operands = bare.partition(" ")
        names = tuple(self._resolved(operand) for operand in split_operands(operands))
        if predicate is not None:
            predicate = self._resolved(predicate)
        first, rest = self._registers(*names[:1]), self._registers(*names[1:])
        kind = opcode.split(".")[0]
        without_result = kind in _WITHOUT_RESULT
        sources = first + rest if without_result or kind == "wgmma" else rest
        if predicate is not None:
            sources += self._registers(predicate)
        self.program.statements.append(
            Statement(
                line,
                text,
                opcode,
                names,
                predicate,
                negated == "!",
                () if without_result else first,
                sources,
                self.origin,
            )
        )

    def _declare(self, text: str) -> None:
        kind, names = _REGISTERS.match(text).groups()
        bits = 1 if kind == "pred" else int(kind[1:])
        for name in (part.strip() for part in names.split(",")):
            family = _FAMILY.fullmatch(name)
            if family:
                if self.families.setdefault(family[1], bits) != bits:
                    raise InvalidProgram(f"registers {name} are declared twice, of other sizes")
                continue
            # A block of inline assembly may use the name of another one's register.
            unique = name if len(self.scopes) == 1 else f"{name}$scope{self.n_scopes}"
            self.scopes[-1][name] = unique
            self.program.registers[unique] = Register(len(self.program.registers), bits)

    def _resolved(self, operand: str) -> str:
        def unique(match: re.Match) -> str:
            for scope in reversed(self.scopes):
                if match[0] in scope:
                    return scope[match[0]]
            return match[0]

        return _NAME.sub(unique, operand) if any(self.scopes) else operand

    def _registers(self, *operands: str) -> tuple[str, ...]:
        """Those that the operands name, each with a slot from now on."""
        registers, named = self.program.registers, []
        for name in (name for text in operands for name in _NAME.findall(text)):
            bits = self.families.get(name.rstrip("0123456789"))
            if name not in registers and bits is not None and name[-1].isdigit():
                registers[name] = Register(len(registers), bits)
            if name in registers:
                named.append(name)
        return tuple(named)


def split_operands(text: str) -> Iterator[str]:
    """At the commas outside of brackets."""
    depth, start = 0, 0
    for i, character in enumerate(text):
        if character in "{[(":
            depth += 1
        elif character in "}])":
            depth -= 1
        elif character == "," and depth == 0:
            yield text[start:i].strip()
            start = i + 1
    if text[start:].strip():
        yield text[start:].strip()
