"""What is said where other settings are asked for than a run was begun with."""

from smnm_kernels.train.models.settings import VIDEOMAE
from smnm_kernels.train.run.differing import differing
from smnm_kernels.train.tasks.objectives import OBJECTIVES, WORDS

RUN = {
    "modality": "video",
    "lr": 0.5,
    "mask": {"video": "green3d", "audio": "rbn"},
    "objective": {"name": "CavMae", "weight": 0.01, "model": {"dim": 8, "depth": 2}},
    "clip": {"frames": 16, "size": 96},
    "measured": None,
}


def said(words=WORDS, **asked):
    return differing({**RUN, **asked}, RUN, words).split("; ")


def test_what_is_the_same_is_not_told():
    assert said() == [""]


def test_settings_are_told_by_name_also_those_of_groups():
    assert said(lr=0.25, mask={"video": "tube", "audio": "rbn"}) == [
        "lr is 0.5 there, 0.25 was asked for",
        "mask.video is 'green3d' there, 'tube' was asked for",
    ]


def test_of_another_modality_nothing_else_is_told():
    assert said(modality="audio", lr=1, clip={}) == [
        "modality is 'video' there, 'audio' was asked for"
    ]


def test_another_objective_is_told_by_its_name_alone_and_first():
    avt = {"name": "Avt", "segment": 0.4, "model": {"dim": 16}}
    assert said(lr=1, mask="activity", objective=avt) == [
        "objective is 'cav-mae' there, 'avt' was asked for",
        "lr is 0.5 there, 1 was asked for",
    ]


def test_of_many_differences_within_groups_some_are_told_and_the_others_counted():
    objective = {"name": "CavMae", "weight": 1, "model": {"dim": 16, "depth": 4}}
    assert said(clip={"frames": 8, "size": 48}, objective=objective) == [
        "objective.weight is 0.01 there, 1 was asked for",
        "objective.model.dim is 8 there, 16 was asked for",
        "objective.model.depth is 2 there, 4 was asked for",
        "2 more in clip",
    ]


def test_a_long_value_is_cut():
    [told] = said(measured={"mean": list(range(128))})
    assert told.startswith("measured is None there, {'mean': [0, 1, 2, ")
    assert len(told) < 120


def test_every_objective_has_its_name_on_the_command_line():
    for name in ("mae", "sigma"):
        made = OBJECTIVES["video"][name](
            OBJECTIVES["video"]["mae"](type("", (), {"model": VIDEOMAE}))
        )
        assert WORDS[type(made).__name__] == name
    assert {*WORDS.values()} == {name for table in OBJECTIVES.values() for name in table}


def test_what_is_asked_for_no_more_is_told_also_within_groups():
    held = {"modality": "video", "parameters": {"video": {"sigma": 2.0}}}
    asked = {"modality": "video", "parameters": {"video": {}}}
    assert differing(asked, held, WORDS) == (
        "parameters.video.sigma is 2.0 there, None was asked for"
    )
