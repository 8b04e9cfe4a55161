"""Bars of long work."""

import io
import sys

from smnm_kernels.train.data import bars


class Terminal(io.StringIO):
    def isatty(self):
        return True


def drawn(monkeypatch, stream, steps=5, seconds=4.0):
    """What is written where each step takes so many seconds."""
    now = [100.0]
    monkeypatch.setattr(sys, "stderr", stream)
    with bars.bar("reading", steps) as bar:
        monkeypatch.setattr(bar, "_time", lambda: now[0])
        bar.last_print_t = bar.start_t = now[0]
        for _ in range(steps):
            now[0] += seconds
            bar.update()
    return stream.getvalue()


def test_a_log_file_gets_whole_lines_now_and_then(monkeypatch):
    said = drawn(monkeypatch, io.StringIO(), steps=10)
    assert "\r" not in said
    assert [line.partition("%")[0] for line in said.splitlines()] == [
        "reading:  30",
        "reading:  60",
        "reading:  90",
    ]
    assert drawn(monkeypatch, io.StringIO(), seconds=0.1) == ""


def test_on_a_terminal_the_bar_moves_and_is_gone_at_the_end(monkeypatch):
    said = drawn(monkeypatch, Terminal(), steps=3)
    assert said.count("\rreading:") == 4
    assert said.rsplit("\r", 2)[1].strip() == ""


def test_a_bar_goes_through_what_it_is_given(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert list(bars.bar("probes", over=[1, 2])) == [1, 2]
    assert sys.stderr.getvalue() == ""
