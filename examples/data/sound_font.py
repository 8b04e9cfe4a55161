"""Notes from a SoundFont (.sf2), as far as the example sets need it.

A font is a RIFF file of recordings and of tables that say which recording plays which keys
(SoundFont Technical Specification 2.04, sections 5 to 8). Here the recording of a key is read at
another pace to have its pitch, goes round its loop, and fades as its volume envelope says. Filters,
vibrato, effects and the second channel of stereo recordings are left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

_TABLES = {
    "phdr": [("name", "S20"), ("preset", "<u2"), ("bank", "<u2"), ("bag", "<u2"), ("_", "V12")],
    "pbag": [("gen", "<u2"), ("mod", "<u2")],
    "inst": [("name", "S20"), ("bag", "<u2")],
    "ibag": [("gen", "<u2"), ("mod", "<u2")],
    "pgen": [("oper", "<u2"), ("amount", "<u2")],
    "igen": [("oper", "<u2"), ("amount", "<u2")],
    "shdr": [
        ("name", "S20"), ("start", "<u4"), ("end", "<u4"), ("loop", "<u4"), ("loop_end", "<u4"),
        ("rate", "<u4"), ("pitch", "u1"), ("correction", "i1"), ("link", "<u2"), ("type", "<u2"),
    ],
}  # fmt: skip
# Generators, section 8.1.2.
_HOLD, _DECAY, _SUSTAIN, _INSTRUMENT, _KEYS = 35, 36, 37, 41, 43
_VELOCITIES, _COARSE, _FINE, _SAMPLE, _MODE, _ROOT = 44, 51, 52, 53, 54, 58
_VELOCITY = 100
_ATTACK = 0.004  # seconds, so that no note begins with a click


class SoundFont:
    def __init__(self, path: Path) -> None:
        chunks = _chunks(path.read_bytes())
        self.pool = np.frombuffer(chunks["smpl"], "<i2")
        self.tables: dict[str, Any] = {
            name: np.frombuffer(chunks[name], np.dtype(fields)) for name, fields in _TABLES.items()
        }

    def note(self, program: int, key: int, length: int, rate: int) -> np.ndarray:
        """float64 [length], about -1 to 1, of a MIDI key by an instrument of General MIDI.

        Raises KeyError where the font has no recording for it.
        """
        zone = self._zone(program, key)
        sample = self.tables["shdr"][zone[_SAMPLE]]
        root = sample["pitch"] if zone.get(_ROOT, 255) > 127 else zone[_ROOT]
        cents = 100 * (key - int(root) + _signed(zone.get(_COARSE, 0)))
        cents += _signed(zone.get(_FINE, 0)) + int(sample["correction"])
        place = np.arange(length) * (sample["rate"] / rate * 2 ** (cents / 1200))
        begin, end = int(sample["start"]), int(sample["end"])
        first, last = int(sample["loop"]) - begin, int(sample["loop_end"]) - begin
        if zone.get(_MODE, 0) & 1 and last > first:
            place = np.where(place < last, place, first + (place - first) % (last - first))
        recorded = self.pool[begin:end] / 32768
        heard = np.interp(place, np.arange(len(recorded)), recorded, right=0.0)
        return heard * _volume(zone, np.arange(length) / rate)

    def _zone(self, program: int, key: int) -> dict[int, int]:
        """The generators of the first recording that this key plays."""
        t = self.tables
        found = np.flatnonzero((t["phdr"]["preset"] == program) & (t["phdr"]["bank"] == 0))
        for preset in _zones(t["phdr"], t["pbag"], t["pgen"], int(found[0])) if len(found) else ():
            if _INSTRUMENT in preset and _plays(preset, key):
                for zone in _zones(t["inst"], t["ibag"], t["igen"], preset[_INSTRUMENT]):
                    if _SAMPLE in zone and _plays(zone, key):
                        return zone
        raise KeyError(f"program {program} has no recording for key {key}")


def _chunks(content: bytes) -> dict[str, bytes]:
    """By name, those within the lists of a RIFF file."""
    found, place = {}, 12
    while place + 8 <= len(content):
        name, size = (
            content[place : place + 4],
            int.from_bytes(content[place + 4 : place + 8], "little"),
        )
        if name == b"LIST":
            place += 12  # into it
            continue
        found[name.decode("ascii")] = content[place + 8 : place + 8 + size]
        place += 8 + size + size % 2
    return found


def _zones(heads: Any, bags: Any, generators: Any, number: int) -> list[dict[int, int]]:
    """Each with the generators of the global zone, the first one, where it has none of its own."""
    zones = []
    for bag in range(int(heads["bag"][number]), int(heads["bag"][number + 1])):
        rows = generators[int(bags["gen"][bag]) : int(bags["gen"][bag + 1])]
        zones.append({int(row["oper"]): int(row["amount"]) for row in rows})
    if zones and not {_INSTRUMENT, _SAMPLE} & zones[0].keys():
        zones = [zones[0] | zone for zone in zones[1:]]
    return zones


def _plays(zone: dict[int, int], key: int) -> bool:
    """Ranges are two bytes, the lowest and the highest."""
    ranges = ((zone.get(_KEYS, 127 << 8), key), (zone.get(_VELOCITIES, 127 << 8), _VELOCITY))
    return all(both & 255 <= value <= both >> 8 for both, value in ranges)


def _volume(zone: dict[int, int], seconds: np.ndarray) -> np.ndarray:
    """After the attack and a hold, 100 dB a decay time down to the sustained level. Times are in
    1200ths of a doubling of one second, the level in tenths of a decibel below the loudest."""
    hold, decay = (2 ** (_signed(zone.get(name, 2**16 - 12000)) / 1200) for name in (_HOLD, _DECAY))
    fallen = np.clip(100 * (seconds - _ATTACK - hold) / decay, 0, zone.get(_SUSTAIN, 0) / 10)
    return np.minimum(1, seconds / _ATTACK) * 10 ** (-fallen / 20)


def _signed(amount: int) -> int:
    return amount - 2**16 if amount >= 2**15 else amount
