"""Blocks of Python in README and in docs/ run, links lead somewhere, and tables are complete."""

import pkgutil
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import stand_ins
from testing import ROOT, need_packages

import smnm_kernels as smnm
from smnm_kernels import adapters
from smnm_kernels.cli import COMMANDS, main
from smnm_kernels.kinds import KINDS

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
README = (ROOT / "README.md").read_text()
#: A block, and the comment above it that says what it needs or why it is not run.
BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>stand-ins|not run): (?P<text>.+?) -->\n)?^```python\n(?P<code>.*?)^```",
    flags=re.DOTALL | re.MULTILINE,
)
LINK = re.compile(r"\]\((?!https?://)(?P<path>[^)#\s]*)(?:#(?P<anchor>[^)\s]*))?\)")


@dataclass(frozen=True)
class Block:
    code: str
    line: int
    stand_ins: str | None
    not_run: str | None


def blocks(page: Path):
    text = page.read_text()
    for match in BLOCK.finditer(text):
        mark, line = match["mark"], text[: match.start("code")].count("\n")
        yield Block(
            code=match["code"],
            line=line,
            stand_ins=match["text"] if mark == "stand-ins" else None,
            not_run=match["text"] if mark == "not run" else None,
        )


def run_blocks(page: Path):
    """All blocks in order, in one namespace; an error shows the line of the page."""
    names = {}
    stand_ins.page(names)
    for block in blocks(page):
        if block.not_run:
            continue
        setup = getattr(stand_ins, block.stand_ins)(names) if block.stand_ins else iter([None])
        next(setup)
        exec(compile("\n" * block.line + block.code, str(page), "exec"), names)
        next(setup, None)
    return names


with_python = [page for page in PAGES if "```python" in page.read_text()]


def slow_where_models_train(page):
    marks = [pytest.mark.slow] if page.name in ("adapters.md", "training.md") else []
    return pytest.param(page, marks=marks, id=page.name)


@pytest.mark.parametrize("page", [slow_where_models_train(page) for page in with_python])
def test_every_block_of_python_runs(page):
    assert page.read_text().count("```python") == len(list(blocks(page)))
    run_blocks(page)


def test_readme_gathers_the_visible_tokens():
    assert run_blocks(ROOT / "README.md")["tokens"].shape == (4, 156, 3)


def test_every_stand_in_is_used():
    used = {block.stand_ins for page in with_python for block in blocks(page)} - {None}
    made = {name for name, made in vars(stand_ins).items() if _is_generator(made)}
    assert used == made


def _is_generator(made):
    code = getattr(made, "__code__", None)
    return bool(code and code.co_flags & 0x20)  # inspect.CO_GENERATOR


def test_readme_is_short():
    assert len(README.splitlines()) <= 125


def table_after(text, heading):
    rows = text[text.index(heading) :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_every_kind_is_in_the_table():
    in_table = {
        name for row in table_after(README, "| kind |") for name in re.findall(r"`(\w+)`", row[0])
    }
    assert in_table == KINDS.keys()


def test_the_table_of_presets_is_what_the_code_says():
    need_packages("av", "tqdm")
    from smnm_kernels.train.tasks.presets import PRESETS

    in_table = {}
    training = (ROOT / "docs" / "training.md").read_text()
    for names, modality, _, masks, batch, rate, decay, length in table_after(
        training, "| preset |"
    ):
        for name in re.findall(r"`([\w-]+)`", names):
            in_table[modality, name] = (masks, int(batch), float(rate), float(decay), length)
    assert in_table == {
        (modality, name): _row(preset)
        for modality, presets in PRESETS.items()
        for name, preset in presets.items()
    }


def _row(preset):
    how = preset.optimisation
    epochs = f"{how.epochs}, {how.warmup_epochs}"
    length = f"{how.steps} steps, {how.warmup_steps}" if how.steps else epochs
    kinds = {name: f"{m.kind} {round(m.ratio, 2):g}" for name, m in preset.masks.items()}
    if len(kinds) > 1:
        kinds = {name: f"{name} {kind}" for name, kind in kinds.items()}
    rate = float(f"{how.base_lr:.5g}")
    return ", ".join(kinds.values()), how.batch_size, rate, how.weight_decay, length


def test_the_table_of_fine_tuning_presets_is_what_the_code_says():
    need_packages("av", "tqdm", "scipy")
    from smnm_kernels.train.tasks.finetune_presets import PRESETS

    in_table = {}
    page = (ROOT / "docs" / "evaluation.md").read_text()
    for names, modalities, *row in table_after(page[page.index("## Fine-tuning") :], "| preset |"):
        for name in re.findall(r"`([\w-]+)`", names):
            for modality in modalities.split(", "):
                in_table[modality, name] = row
    assert in_table == {
        (modality, name): _tuning_row(preset)
        for modality, presets in PRESETS.items()
        for name, preset in presets.items()
    }


def _tuning_row(preset):
    how, mix = preset.optimisation, preset.mix
    epochs = f"{how.epochs}, {how.warmup_epochs}"
    length = f"{how.steps} steps, {how.warmup_steps}" if how.steps else epochs
    mixed = f"{mix.mixup:g}, {f'{mix.cutmix:g}' if mix.cutmix else 'no'}" if mix.on else "no"
    numbers = (how.batch_size, how.base_lr, how.weight_decay)
    views = "x".join(map(str, preset.views))
    return [*(f"{n:g}" for n in numbers), length, f"{preset.layer_decay:g}", mixed, views]


def test_the_table_of_adapters_names_what_there_is():
    rows = table_after(README, "| codebase |")
    written = " ".join(row[1] for row in rows)
    for name in (*adapters.__all__, "MaskCollator", "WithSampleIds"):
        assert name in written or name in ("Installed", "epoch_callback", "hf_sampler"), name
    for view in re.findall(r"\)\.(\w+)", written):
        assert hasattr(smnm.Masks, view), view


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_a_file_and_a_heading_that_are_there(page):
    for match in LINK.finditer(re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)):
        target = (page.parent / match["path"]).resolve() if match["path"] else page
        assert target.exists(), f"{page.name}: {match[0]}"
        if match["anchor"]:
            assert match["anchor"] in anchors(target), f"{page.name}: {match[0]}"


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_files_that_pages_name_are_there(page):
    folders = "bench|csrc|docs|examples|smnm_kernels|tests"
    named = re.findall(
        rf"(?<![\w/])((?:{folders})/[\w./]*\w\.(?:py|sh|md|h|cpp|cu))\b", page.read_text()
    )
    assert not [name for name in named if "NAME" not in name and not (ROOT / name).exists()]


def anchors(page: Path):
    """Of its headings, as GitHub and mkdocs make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}


def test_every_public_name_is_on_a_page_in_words_or_code():
    text = "".join(page.read_text() for page in PAGES if page.name != "api.md")
    names = {*smnm.__all__, *adapters.__all__, "MaskCollator", "WithSampleIds"}
    assert not {name for name in names if not re.search(rf"\b{name}\b", text)}


def commands(page: Path):
    """Arguments of each `smnm ...` in blocks of bash and between backticks."""
    text = page.read_text()
    for block in re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL):
        for found in re.findall(r"(?:^|&& )smnm ([^\n&]+)", block, flags=re.MULTILINE):
            yield shlex.split(found, comments=True)
    for found in re.findall(r"`smnm ([^`]+)`", text):
        yield shlex.split(found)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_have_the_options_that_pages_name(page):
    need_packages("tyro")
    import tyro

    for name, *arguments in commands(page):
        assert name in COMMANDS, name
        if arguments not in ([], ["--help"]):
            tyro.cli(pkgutil.resolve_name(COMMANDS[name].options), args=arguments)


def pictures():
    """Picture in docs/: the arguments of `smnm show` that a page says it was made with."""
    made = {}
    for page in PAGES:
        for name, *arguments in commands(page):
            if name == "show" and arguments and arguments[-1].startswith("docs/"):
                made[arguments[-1]] = arguments[:-1]
    return made


def test_every_picture_is_on_a_page_with_the_command_that_makes_it():
    in_folder = {
        f"docs/{path.name}" for path in (ROOT / "docs").glob("*.*") if path.suffix != ".md"
    }
    assert in_folder - {"docs/pages_outside.py"} == pictures().keys()


@pytest.mark.slow
@pytest.mark.parametrize("picture", [p for p in pictures() if p != "docs/spectra.png"])
def test_pictures_are_what_their_commands_draw(picture, tmp_path):
    need_packages("tyro", "PIL", "matplotlib")
    from PIL import Image

    made = tmp_path / Path(picture).name
    assert main(["show", *pictures()[picture], str(made)]) == 0
    with Image.open(made) as ours, Image.open(ROOT / picture) as theirs:
        assert (ours.size, getattr(ours, "n_frames", 1)) == (
            theirs.size,
            getattr(theirs, "n_frames", 1),
        )
        differ = np.any(
            np.asarray(ours.convert("RGB")) != np.asarray(theirs.convert("RGB")), axis=2
        )
    assert differ.mean() < 0.01  # letters may be drawn otherwise by another version
