"""Clips of Atari games with labels from the console's memory: game, positions, directions, actions.

    pip install ale-py
    python examples/data/atari.py --out data/atari

ale-py's wheel brings the games. Each game is played for several episodes by a seeded player, which
follows the ball where there is one and else moves at random. `labels.csv` has a row a clip: path,
split (by episode: no episode is in two splits), game, and what holds at the clip's middle frame;
`GAME.csv` has a game's own columns, none empty. Two console frames make one frame of a clip, their
brighter pixels, since some games draw a sprite only every other frame. Addresses: the annotated
memory of AtariARI (Anand et al. 2019).

`--sound` records what the console's sound chip plays, too, in step with the frames. Many games are
silent for long; a clip that is silent throughout is not kept. `--stills` writes of each clip its
middle frame alone, as a picture.

Licence: ale-py is GPL-2.0. The games belong to their publishers; ale-py carries their ROMs for
research. The set is made on your machine and is not handed on.
"""

from __future__ import annotations

import argparse
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from set_files import (
    Missing,
    make_once,
    split_of,
    write_film,
    write_manifest,
    write_picture,
    write_table,
    write_video,
)

NEAR = 3  # frames on either side of the middle in which a direction is read
RATE = 30
#: Samples that ale-py gives for one console frame, of which there are 2 RATE a second.
FRAME_SAMPLES = 512
SOUND_RATE = FRAME_SAMPLES * 2 * RATE  # Hz


@dataclass(frozen=True)
class Game:
    rows: tuple[int, int]  # of the console's 210: where the game is
    numbers: dict[str, int]  # label -> address
    #: Numbers whose change is a label, too: up, down or not, and how far in 2 NEAR frames.
    moving: tuple[str, ...] = ()
    #: A clip counts only where these are above 0 around its middle and, if moving, do not turn.
    ball: tuple[str, ...] = ()
    #: (address of the ball, of the paddle, actions that lower and raise the paddle's number)
    follow: tuple[int, int, str, str] | None = None


GAMES = {
    "pong": Game(
        (34, 194),
        {"ball_x": 49, "ball_y": 54, "player_y": 51, "enemy_y": 50},
        moving=("ball_x", "ball_y", "player_y", "enemy_y"),
        ball=("ball_x", "ball_y"),
        follow=(54, 51, "RIGHT", "LEFT"),
    ),
    "breakout": Game(
        (32, 196),
        {"ball_x": 99, "ball_y": 101, "player_x": 72},
        moving=("ball_x", "ball_y", "player_x"),
        ball=("ball_x", "ball_y"),
        follow=(99, 72, "LEFT", "RIGHT"),
    ),
    "tennis": Game(
        (4, 204),
        {"ball_x": 16, "ball_y": 17, "player_x": 26, "enemy_x": 27},
        moving=("ball_x", "player_x", "enemy_x"),
        ball=("ball_x",),
    ),
    "boxing": Game(
        (36, 180),
        {"player_x": 32, "player_y": 34, "enemy_x": 33, "enemy_y": 35},
        moving=("player_x", "player_y", "enemy_x", "enemy_y"),
    ),
    "freeway": Game((14, 196), {"player_y": 14, "car_x": 108}, moving=("player_y",)),
    "ms_pacman": Game(
        (0, 172),
        {"player_x": 10, "player_y": 16, "ghost_x": 6, "ghost_y": 12},
        moving=("player_x", "player_y", "ghost_x", "ghost_y"),
    ),
}
#: An episode is given up after so many times the frames of its clips.
_MOST_ATTEMPTS = 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--games", nargs="+", default=list(GAMES), choices=list(GAMES))
    parser.add_argument("--clips", type=int, default=96, help="of each game")
    parser.add_argument("--episodes", type=int, default=16, help="of each game")
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--size", type=int, default=96, help="pixels, of either side; even")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sound", action="store_true", help="of the console, too")
    parser.add_argument("--stills", action="store_true", help="middle frames in place of clips")
    given = parser.parse_args()
    if given.sound and given.stills:
        parser.error("--sound: pictures have none; leave out --stills")
    make_once(given.out, lambda: make(**vars(given)))


def make(
    out: Path,
    games: list[str],
    clips: int,
    episodes: int,
    frames: int,
    size: int,
    seed: int,
    sound: bool = False,
    stills: bool = False,
) -> None:
    rows, suffix = [], ".png" if stills else ".mkv" if sound else ".mp4"
    for name in games:
        for episode in range(episodes):
            count = clips * (episode + 1) // episodes - clips * episode // episodes
            split = split_of(episode, episodes)
            console = Console(name, seed, episode, size, sound)
            for number, (shown, labels) in enumerate(console.clips(count, frames)):
                path = f"clips/{name}-{episode:02d}-{number:02d}{suffix}"
                pictures = [moment.picture for moment in shown]
                if stills:
                    write_picture(out / path, pictures[frames // 2])
                elif sound:
                    samples = np.concatenate([moment.samples for moment in shown])
                    write_film(out / path, pictures, RATE, samples, SOUND_RATE)
                else:
                    write_video(out / path, pictures, RATE)
                rows.append({"path": path, "split": split, "game": name, "episode": episode})
                rows[-1].update(labels)
    columns = dict.fromkeys(column for row in rows for column in row)
    write_table(out / "labels.csv", [{c: row.get(c) for c in columns} for row in rows])
    for name in games:
        write_table(out / f"{name}.csv", [row for row in rows if row["game"] == name])
    options = f"--games {' '.join(games)} --clips {clips} --episodes {episodes} --frames {frames}"
    fingerprint = write_manifest(
        out,
        command=f"python examples/data/atari.py {options} --size {size} --seed {seed}"
        f"{' --sound' if sound else ''}{' --stills' if stills else ''}",
        licence="ale-py: GPL-2.0; the games belong to their publishers, for research",
        sources={"ale-py": _ale().__version__},
        packages=("ale-py", "av", "numpy", "pillow"),
    )
    print(
        f"{len(rows)} {'pictures' if stills else 'clips'} in {out}, fingerprint {fingerprint[:16]}"
    )


def _ale() -> Any:
    try:
        import ale_py.roms
    except ImportError as error:
        raise Missing(f"pip install ale-py ({error})") from error
    return ale_py


@dataclass(frozen=True)
class Moment:
    picture: np.ndarray  # uint8 [size, size, 3]
    memory: np.ndarray  # int64 [128]
    action: str
    reward: int
    samples: np.ndarray  # int16, of the console frames that the picture shows; none without sound


class Console:
    """One episode of a game."""

    def __init__(self, name: str, seed: int, episode: int, size: int, sound: bool = False) -> None:
        ale = _ale()
        ale.ALEInterface.setLoggerMode(ale.LoggerMode.Error)
        self.game, self.size, self.sound = GAMES[name], size, sound
        number = list(GAMES).index(name)
        self.rng = np.random.default_rng([seed, number, episode])
        self.ale = ale.ALEInterface()
        self.ale.setInt("random_seed", int(self.rng.integers(1, 2**31)))
        # Chance is the player's alone.
        self.ale.setFloat("repeat_action_probability", 0.0)
        self.ale.setBool("sound_obs", sound)
        self.ale.loadROM(ale.roms.get_rom_path(name))
        self.actions = {action.name: action for action in self.ale.getMinimalActionSet()}
        self.held, self.held_for, self.follows = "NOOP", 0, False

    def clips(self, count: int, frames: int) -> Iterator[tuple[list[Moment], dict[str, int | str]]]:
        """(moments, labels) of so many clips, some time apart."""
        shown: deque[Moment] = deque(maxlen=frames)
        wait, made = self.pause(), 0
        for _ in range(_MOST_ATTEMPTS * frames * max(1, count)):
            if made == count:
                return
            if self.ale.game_over():
                self.ale.reset_game()
                shown.clear()
                wait = self.pause()
            if wait > 0:
                wait -= 1
                self.act()
                continue
            shown.append(self.moment())
            if len(shown) == frames and self.is_in_play(list(shown)) and self.sounds(shown):
                yield list(shown), self.labels(list(shown))
                shown.clear()
                wait = self.pause()
                made += 1
        if made < count:
            raise RuntimeError(f"only {made} of {count} clips of an episode had the ball in play")

    def pause(self) -> int:
        """Frames that are played and not recorded: games begin with a tune, and alike."""
        begins = self.ale.getEpisodeFrameNumber() == 0
        return int(self.rng.integers(*((150, 400) if begins else (10, 80))))

    def act(self) -> tuple[str, int]:
        """The action of one console frame, and its reward."""
        action = self.choose()
        return action, int(self.ale.act(self.actions[action]))

    def moment(self) -> Moment:
        top, bottom = self.game.rows
        rewards, screens = 0, []
        samples = [np.zeros(0, np.int16)]
        for _ in range(2):
            action, reward = self.act()
            rewards += reward
            screens.append(self.ale.getScreenRGB()[top:bottom])
            if self.sound:  # unsigned bytes, 128 is silence
                samples.append((self.ale.getAudio().astype(np.int16) - 128) * 256)
        picture = PIL.Image.fromarray(np.maximum(*screens))
        picture = picture.resize((self.size, self.size), PIL.Image.Resampling.BOX)
        memory = self.ale.getRAM().astype(np.int64)
        return Moment(np.asarray(picture), memory, action, rewards, np.concatenate(samples))

    def choose(self) -> str:
        """For some frames at a time: a random action or, where there is a ball, after it."""
        if self.held_for == 0:
            self.held = str(self.rng.choice(list(self.actions)))
            self.held_for = int(self.rng.integers(4, 17))
            self.follows = bool(self.rng.random() < 0.75)
        self.held_for -= 1
        if self.game.follow is None or not self.follows:
            return self.held
        ball, paddle, less, more = self.game.follow
        memory = self.ale.getRAM().astype(int)
        if memory[self.game.numbers["ball_y"]] == 0:
            return "FIRE"  # a new ball
        return less if memory[ball] < memory[paddle] else more

    def is_in_play(self, shown: list[Moment]) -> bool:
        """Around the middle the ball is there and does not turn."""
        near = _around_middle(shown)
        for label in self.game.ball:
            steps = self.steps(near, label)
            if min(m.memory[self.game.numbers[label]] for m in near) <= 0:
                return False
            if label in self.game.moving and not ((steps > 0).all() or (steps < 0).all()):
                return False
        return True

    def sounds(self, shown: Iterable[Moment]) -> bool:
        """Whether there is anything to hear, where sound is recorded."""
        return not self.sound or any(np.ptp(moment.samples) > 0 for moment in shown)

    def steps(self, near: list[Moment], label: str) -> np.ndarray:
        return np.diff([moment.memory[self.game.numbers[label]] for moment in near])

    def labels(self, shown: list[Moment]) -> dict[str, int | str]:
        middle, near = shown[len(shown) // 2], _around_middle(shown)
        labels: dict[str, int | str] = {
            label: int(middle.memory[address]) for label, address in self.game.numbers.items()
        }
        for label in self.game.moving:
            moved = int(self.steps(near, label).sum())
            labels[f"{label}_moves"] = "up" if moved > 0 else "down" if moved < 0 else "not"
            labels[f"{label}_speed"] = abs(moved)
        labels["action"] = middle.action.lower()
        rewards = [moment.reward for moment in shown]
        labels["score"] = "won" if max(rewards) > 0 else "lost" if min(rewards) < 0 else "same"
        return labels


def _around_middle(shown: list[Moment]) -> list[Moment]:
    middle = len(shown) // 2
    return shown[max(0, middle - NEAR) : middle + NEAR + 1]


if __name__ == "__main__":
    main()
