"""Seccomp programs made shorter, without a change to what they decide.

libseccomp gives each system call instructions of its own. The kernel checks, translates and compiles all of them whenever a
command is started, and then runs the whole for each number of each architecture to see which are always allowed. Neighbours with
the same answer need one comparison for all of them.

Classic BPF as seccomp(2) has it: instructions of eight bytes, forward jumps, an accumulator, and ``struct seccomp_data`` to load
from: the number at 0, the architecture at 4, then what depends on the one call that is made.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

LOAD = 0x20  # ld [k], 32 bits
JUMP, JUMP_EQUAL, JUMP_GREATER, JUMP_GREATER_EQUAL, JUMP_ANY = 0x05, 0x15, 0x25, 0x35, 0x45
RETURN, AND = 0x06, 0x54
CONDITIONAL = frozenset({JUMP_EQUAL, JUMP_GREATER, JUMP_GREATER_EQUAL, JUMP_ANY})
BY_ORDER = CONDITIONAL - {JUMP_ANY}
KNOWN = CONDITIONAL | {LOAD, JUMP, RETURN, AND}
NUMBER, ARCHITECTURE = 0, 4  # offsets in struct seccomp_data
LAST = 0xFFFF_FFFF
PIECE = 100  # intervals, so that no conditional jump is over more than 255 instructions
_INSTRUCTION = struct.Struct("<HBBI")


@dataclass(frozen=True, slots=True)
class Instruction:
    """struct sock_filter. if_true, if_false: how many instructions to jump over."""

    code: int
    if_true: int
    if_false: int
    value: int

    def packed(self) -> bytes:
        return _INSTRUCTION.pack(self.code, self.if_true, self.if_false, self.value)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a program comes to for an architecture and a number: an action, or a place in it that looks at more than these."""

    action: int = 0
    place: int = -1


def shortened(program: bytes) -> bytes:
    """A program with the same answers, or the same one if it cannot be made shorter."""
    instructions = [Instruction(*fields) for fields in _INSTRUCTION.iter_unpack(program)]
    if not _is_plain(instructions):
        return program
    compared = _compared(instructions)
    architectures = sorted(value for offset, value in compared if offset == ARCHITECTURE)
    blocks = [(architecture, _intervals(instructions, architecture)) for architecture in architectures]
    others = next(number for number in range(len(architectures) + 1) if number not in architectures)
    rest = _intervals(instructions, others)
    new = b"".join(one.packed() for one in _joined(instructions, blocks, rest))
    return new if len(new) < len(program) else program


def _is_plain(program: list[Instruction]) -> bool:
    """Whether it is in libseccomp's manner: the architecture is tested for being one, the number for being less, as they are."""
    if any(one.code not in KNOWN for one in program):
        return False
    allowed = {NUMBER: BY_ORDER, ARCHITECTURE: {JUMP_EQUAL}}
    return all(one.code in allowed.get(offset, KNOWN) for offset, one in _steps(program) if offset >= 0)


def _compared(program: list[Instruction]) -> set[tuple[int, int]]:
    """(offset, value) of all comparisons with what was loaded from that offset."""
    return {(offset, one.value) for offset, one in _steps(program) if one.code in CONDITIONAL}


def _steps(program: list[Instruction]) -> Iterator[tuple[int, Instruction]]:
    """What may be done with what was loaded from an offset, -1 before anything was, by a walk along every path."""
    seen: set[tuple[int, int]] = set()
    waiting = [(0, -1)]
    while waiting:
        place, offset = waiting.pop()
        if (place, offset) in seen:
            continue
        seen.add((place, offset))
        one = program[place]
        if one.code in CONDITIONAL or one.code == AND:
            yield offset, one
        if one.code == LOAD:
            offset = one.value
        if one.code == JUMP:
            waiting.append((place + 1 + one.value, offset))
        elif one.code in CONDITIONAL:
            waiting += [(place + 1 + one.if_true, offset), (place + 1 + one.if_false, offset)]
        elif one.code != RETURN:
            waiting.append((place + 1, offset))


def _intervals(program: list[Instruction], architecture: int) -> list[tuple[int, Answer]]:
    """(first number, answer) of each interval of numbers with the same one, in order."""
    values = {value for offset, value in _compared(program) if offset == NUMBER}
    firsts = sorted({0, *values, *(value + 1 for value in values if value < LAST)})
    found: list[tuple[int, Answer]] = []
    for first in firsts:
        answer = _answer(program, architecture, first)
        if not found or found[-1][1] != answer:
            found.append((first, answer))
    return found


def _answer(program: list[Instruction], architecture: int, number: int) -> Answer:
    """Run it up to where it needs to know more."""
    place, accumulator = 0, 0
    while True:
        one = program[place]
        if one.code == RETURN:
            return Answer(action=one.value)
        if one.code == LOAD:
            if one.value not in (NUMBER, ARCHITECTURE):
                return Answer(place=place)  # what was in the accumulator is lost here
            accumulator = number if one.value == NUMBER else architecture
        elif one.code == AND:
            accumulator &= one.value
        elif one.code == JUMP:
            place += one.value
        else:
            place += one.if_true if _holds(one, accumulator) else one.if_false
        place += 1


def _holds(one: Instruction, accumulator: int) -> bool:
    if one.code == JUMP_EQUAL:
        return accumulator == one.value
    if one.code == JUMP_GREATER:
        return accumulator > one.value
    if one.code == JUMP_GREATER_EQUAL:
        return accumulator >= one.value
    return bool(accumulator & one.value)


class _Program:
    """The new one in the making: a tree over the numbers for each architecture, then what looks at arguments, as it was."""

    def __init__(self, old: list[Instruction]) -> None:
        self.old = old
        self.code: list[Instruction] = []
        self.leaps: list[tuple[int, int]] = []  # from here to that place of the old program

    def add_tree(self, intervals: list[tuple[int, Answer]]) -> None:
        """The number is in the accumulator. A tree is cut into pieces that a conditional jump reaches to the end of."""
        if len(intervals) <= PIECE:
            self._add_piece(intervals)
            return
        middle = len(intervals) // 2
        self.code.append(Instruction(JUMP_GREATER_EQUAL, 0, 1, intervals[middle][0]))
        at = len(self.code)
        self.code.append(Instruction(JUMP, 0, 0, 0))
        self.add_tree(intervals[:middle])
        self.code[at] = Instruction(JUMP, 0, 0, len(self.code) - at - 1)
        self.add_tree(intervals[middle:])

    def _add_piece(self, intervals: list[tuple[int, Answer]]) -> None:
        """Comparisons, then the answers that they jump to."""
        answers = list(dict.fromkeys(answer for _, answer in intervals))
        start, comparisons = len(self.code), len(intervals) - 1

        def target(low: int, high: int) -> int:
            if high - low == 1:
                return start + comparisons + answers.index(intervals[low][1])
            middle = (low + high) // 2
            at = len(self.code)
            self.code.append(Instruction(JUMP, 0, 0, 0))
            below, above = target(low, middle), target(middle, high)
            self.code[at] = Instruction(JUMP_GREATER_EQUAL, above - at - 1, below - at - 1, intervals[middle][0])
            return at

        target(0, len(intervals))
        for answer in answers:
            if answer.place >= 0:
                self.leaps.append((len(self.code), answer.place))
            self.code.append(Instruction(RETURN, 0, 0, answer.action))

    def add_old(self) -> None:
        """What the leaps lead to, and all that it leads to, in its order: so its own jumps get shorter at most."""
        kept = sorted(_reachable(self.old, [place for _, place in self.leaps]))
        new = {place: len(self.code) + at for at, place in enumerate(kept)}
        for place in kept:
            one = self.old[place]
            if one.code == JUMP:
                one = Instruction(JUMP, 0, 0, new[place + 1 + one.value] - new[place] - 1)
            elif one.code in CONDITIONAL:
                if_true, if_false = (new[place + 1 + over] - new[place] - 1 for over in (one.if_true, one.if_false))
                one = Instruction(one.code, if_true, if_false, one.value)
            self.code.append(one)
        for at, place in self.leaps:
            self.code[at] = Instruction(JUMP, 0, 0, new[place] - at - 1)


def _joined(
    old: list[Instruction], blocks: list[tuple[int, list[tuple[int, Answer]]]], rest: list[tuple[int, Answer]]
) -> list[Instruction]:
    program = _Program(old)
    program.code.append(Instruction(LOAD, 0, 0, ARCHITECTURE))
    for architecture, intervals in blocks:
        program.code.append(Instruction(JUMP_EQUAL, 0, 1, architecture))
        program.code.append(Instruction(JUMP, 0, 0, 1))
        at = len(program.code)
        program.code.append(Instruction(JUMP, 0, 0, 0))
        program.code.append(Instruction(LOAD, 0, 0, NUMBER))
        program.add_tree(intervals)
        program.code[at] = Instruction(JUMP, 0, 0, len(program.code) - at - 1)
    program.code.append(Instruction(LOAD, 0, 0, NUMBER))
    program.add_tree(rest)
    program.add_old()
    return program.code


def _reachable(program: list[Instruction], places: list[int]) -> set[int]:
    """All places to which a run from one of these may come, these included."""
    seen: set[int] = set()
    waiting = list(places)
    while waiting:
        place = waiting.pop()
        if place in seen:
            continue
        seen.add(place)
        one = program[place]
        if one.code == JUMP:
            waiting.append(place + 1 + one.value)
        elif one.code in CONDITIONAL:
            waiting += [place + 1 + one.if_true, place + 1 + one.if_false]
        elif one.code != RETURN:
            waiting.append(place + 1)
    return seen
