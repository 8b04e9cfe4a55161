"""Speech with labels: the same words by many synthetic voices, or one speaker's prompts a language.

    python examples/data/speech.py words --out data/words       # label: word; unseen voices in test
    python examples/data/speech.py pairs --out data/pairs       # likewise, of words that are alike
    python examples/data/speech.py prompts --out data/prompts   # label: language; unseen sentences

The layout is SPLIT/CLASS/FILE.wav; `labels.csv` has the same with the voice of each file.

words: espeak-ng says ten digits in English with variants of its voices, at 22.05 kHz. Pitch and
speed differ from voice to voice, and a voice is in one split only. Licence: espeak-ng is GPL-3+;
what it says is yours.
pairs: the same of 24 words that differ in one sound, such as pat and bat, at 16 kHz, the rate of
most models' spectrograms, and without the silence before and after them.
prompts: telephone prompts of five languages, recorded at 8 kHz, from Debian's
asterisk-core-sounds-*-wav. One speaker recorded each language, so language and voice cannot be told
apart in this set. Licence: CC-BY-SA-3.0, the Russian ones CC-BY-3.0.

The packages are fetched with apt-get and unpacked in a temporary folder; nothing is installed.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from set_files import (
    Missing,
    debian_package,
    make_once,
    sound_of,
    split_of,
    write_manifest,
    write_sound,
    write_table,
)

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PAIRS = (
    "pat", "bat", "cat", "mat", "sat", "fat", "pet", "bet", "met", "set", "pit", "bit", "kit",
    "sit", "fit", "pot", "cot", "got", "dot", "shot", "put", "book", "cook", "look",
)  # fmt: skip
ACCENTS = ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp")
VARIANTS = (
    "Alex", "Alicia", "Andrea", "Andy", "Annie", "Denis", "Diogo", "Gene", "Henrique", "Hugo",
    "Jacky", "Lee", "Marco", "Mario", "Michael", "Mike", "Nguyen", "adam", "anika", "antonio",
    "aunty", "belinda", "benjamin", "boris", "caleb", "david", "ed", "edward", "f1", "f2", "f3",
    "f4", "f5", "grandma", "grandpa", "gustave", "iven", "john", "linda", "m1", "m2", "m3", "m4",
    "m5", "m6", "m7", "m8", "marcelo", "max", "michel", "miguel", "norbert", "pablo", "paul",
    "pedro", "quincy", "rob", "robert", "sandro", "shelby", "steph", "travis", "victor", "zac",
)  # fmt: skip
LANGUAGES = ("en", "es", "fr", "it", "ru")
AUDIBLE = 0.02
SHORTEST, LONGEST = 0.4, 10.0  # seconds, of a prompt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("words", "pairs", "prompts"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--voices", type=int, default=64, help=f"at most {len(VARIANTS)}")
    parser.add_argument("--words", nargs="+", help="in place of those of words or pairs")
    parser.add_argument("--languages", nargs="+", default=LANGUAGES, choices=LANGUAGES)
    parser.add_argument("--prompts", type=int, default=400, help="of each language, at most")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.what != "prompts":
        voices = min(given.voices, len(VARIANTS))
        words = given.words or {"words": WORDS, "pairs": PAIRS}[given.what]
        make_once(given.out, lambda: make_words(given.out, given.what, words, voices, given.seed))
    else:
        make_once(
            given.out,
            lambda: make_prompts(given.out, given.languages, given.prompts, given.seed),
        )


def make_words(out: Path, what: str, words: Sequence[str], voices: int, seed: int) -> None:
    rng = np.random.default_rng([seed, 1])
    variants = [str(v) for v in rng.permutation(VARIANTS)[:voices]]
    rows = []
    with speaker() as espeak:
        for number, variant in enumerate(variants):
            split = split_of(number, voices)
            voice = f"{rng.choice(ACCENTS)}+{variant}"
            pitch, speed = int(rng.integers(30, 70)), int(rng.integers(120, 190))
            for word in words:
                samples, rate = espeak.say(word, voice, pitch, speed)
                if what == "pairs":
                    samples, rate = without_silence(at_16_khz(samples, rate)), 16000
                path = f"{split}/{word}/{variant}.wav"
                write_sound(out / path, samples, rate)
                rows.append({"path": path, "split": split, "word": word, "voice": voice})
        version = espeak.version
    write_table(out / "labels.csv", rows)
    fingerprint = write_manifest(
        out,
        command=f"python examples/data/speech.py {what} --voices {voices} "
        f"--words {' '.join(words)} --seed {seed}",
        licence="espeak-ng: GPL-3+; its output is free",
        sources={"espeak-ng": version},
        packages=("av", "numpy", *(["scipy"] if what == "pairs" else [])),
    )
    print(f"{len(rows)} words in {out}, fingerprint {fingerprint[:16]}")


def at_16_khz(samples: np.ndarray, rate: int) -> np.ndarray:
    """int16 to int16, by way of float64, so that all processors round to the same."""
    from scipy.signal import resample_poly

    shared = math.gcd(16000, rate)
    found = resample_poly(samples.astype(np.float64), 16000 // shared, rate // shared)
    return np.clip(np.rint(found), -(2**15), 2**15 - 1).astype(np.int16)


def without_silence(samples: np.ndarray) -> np.ndarray:
    """From 20 ms before the first sample that reaches `AUDIBLE` of the loudest, until 20 ms behind
    the last one."""
    level = abs(samples.astype(np.int32))
    (audible,) = np.nonzero(level >= AUDIBLE * level.max())
    return samples[max(0, audible[0] - 320) : audible[-1] + 321]


@dataclass(frozen=True)
class Espeak:
    program: Path
    folder: Path  # above espeak-ng-data
    version: str

    def say(self, word: str, voice: str, pitch: int, speed: int) -> tuple[np.ndarray, int]:
        with tempfile.TemporaryDirectory(prefix="smnm-word-") as there:
            path = Path(there) / "word.wav"
            options = f"--path={self.folder} -v {voice} -p {pitch} -s {speed} -w {path}"
            environment = {**os.environ, "LD_LIBRARY_PATH": str(self.folder)}
            words = [str(self.program), *options.split(), word]
            done = subprocess.run(
                words, env=environment, capture_output=True, text=True, check=False
            )
            if done.returncode or not path.exists():
                raise Missing(f"espeak-ng does not run: {done.stderr.strip()}")
            return sound_of(path)


@contextmanager
def speaker() -> Iterator[Espeak]:
    """espeak-ng from Debian's packages, unpacked."""
    names = ("espeak-ng", "espeak-ng-data", "libespeak-ng1", "libpcaudio0", "libsonic0")
    with ExitStack() as stack, tempfile.TemporaryDirectory(prefix="smnm-espeak-") as there:
        found = {name: stack.enter_context(debian_package(name)) for name in names}
        program = found["espeak-ng"][0] / "usr/bin/espeak-ng"
        folder = Path(there)
        for name in names[1:]:  # libraries and data side by side
            for path in (found[name][0] / "usr/lib").glob("*/*"):
                (folder / path.name).symlink_to(path)
        yield Espeak(program, folder, found["espeak-ng"][1])


def make_prompts(out: Path, languages: list[str], most: int, seed: int) -> None:
    sounds: dict[str, dict[str, Path]] = {}
    versions = {}
    with ExitStack() as stack:
        for language in languages:
            package = f"asterisk-core-sounds-{language}-wav"
            folder, versions[package] = stack.enter_context(debian_package(package))
            (speaker_folder,) = (folder / "usr/share/asterisk/sounds").iterdir()
            sounds[language] = {
                path.relative_to(speaker_folder).with_suffix("").as_posix().replace("/", "-"): path
                for path in sorted(speaker_folder.rglob("*.wav"))
            }
        # A sentence and its translations are in the same split.
        shared = sorted(set.intersection(*(set(of) for of in sounds.values())))
        order = [str(name) for name in np.random.default_rng([seed, 2]).permutation(shared)]
        rows = []
        for number, name in enumerate(order[:most]):
            split = split_of(number, min(most, len(order)))
            for language in languages:
                samples, rate = sound_of(sounds[language][name])
                if not SHORTEST <= len(samples) / rate <= LONGEST or abs(samples).max() < 500:
                    continue
                path = f"{split}/{language}/{name}.wav"
                write_sound(out / path, samples, rate)
                rows.append({"path": path, "split": split, "language": language, "prompt": name})
    write_table(out / "labels.csv", rows)
    fingerprint = write_manifest(
        out,
        command=f"python examples/data/speech.py prompts --languages {' '.join(languages)} "
        f"--prompts {most} --seed {seed}",
        licence="CC-BY-SA-3.0 (Russian: CC-BY-3.0); see the packages' copyright files",
        sources=versions,
        packages=("av", "numpy"),
    )
    print(f"{len(rows)} prompts in {out}, fingerprint {fingerprint[:16]}")


if __name__ == "__main__":
    main()
