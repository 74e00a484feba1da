"""Parse, score or compare or run, and tell how it ended by the exit code."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from commands import ended, run_command, verb_of
from difix3d import InputError, RunSettings
from difix3d_eval_app.cli import GROUPS, VERBS, Ablation, Compare, Score
from output_files import write_text_whole

DISTRIBUTION = "difix3d-eval-app"


def main(arguments: list[str] | None = None) -> int:
    """Run `difix3d-eval` and return its exit code: 0, 2 for bad input, 128 + signal when stopped."""
    verb, given = verb_of(
        VERBS,
        arguments,
        prog="difix3d-eval",
        distribution=DISTRIBUTION,
        description="Scores that may be compared: of renders by a stated protocol, of several methods, of the "
        "method's own parts.",
    )
    run: Any = {"score": _score, "compare": _compare, "ablation": _ablation}[verb]
    groups = GROUPS.get(verb)
    return run_command(VERBS[verb], run, given, prog=f"difix3d-eval {verb}", distribution=DISTRIBUTION, groups=groups)


def _score(command: Score) -> int:
    for folder in (command.renders, command.scenes):
        if not folder.is_dir():
            raise InputError(f"there is no folder {folder}")
    from commands import console
    from difix3d.evaluation.protocol import load_protocol
    from difix3d.evaluation.scores import score_renders

    protocol = load_protocol(command.protocol)
    content: dict[str, Any] = {}
    with console.status("Scoring") as status:
        scored = score_renders(command.renders, command.scenes, protocol, method=command.method, masked=command.masked)
        for content in scored:
            status.update(f"Scoring: {len(content['scenes'])} of {len(content['identity']['scenes'])} scenes")
    _write(command.out / "scores.json", content)
    _tables(command.out, "scores", [content], _after_scores(command))
    return 0


def _compare(command: Compare) -> int:
    from difix3d.evaluation.scores import check_comparable, read_scores

    if len(command.scores) < 2:
        raise InputError("name two files of scores or more with --scores")
    contents = [read_scores(path) for path in command.scores]
    check_comparable(command.scores, contents)
    rows = {content["method"]: content["means"] for content in contents}
    if len(rows) < len(contents):
        raise InputError("two of the files have the same method: score one again with another --method")
    _write(command.out / "comparison.json", {"identity": contents[0]["identity"], "methods": rows})
    _tables(command.out, "comparison", contents, _look_at(command.out / "comparison.html"))
    return 0


def _after_scores(command: Score) -> list[str | Path]:
    """What goes on from scores: a table, where others lie beside them, else a look."""
    scores = sorted(path for path in command.out.resolve().parent.glob("*/scores.json"))
    if len(scores) < 2:
        return _look_at(command.out / "scores.html")
    return ["difix3d-eval", "compare", "--scores", *scores, "--out", command.out.with_name("comparison")]


def _look_at(page: Path) -> list[str | Path]:
    return ["python", "-m", "webbrowser", page]


def _tables(out: Path, name: str, contents: list[dict[str, Any]], following: list[str | Path]) -> None:
    from difix3d.evaluation.pages import write_pages

    first = contents[0]
    identity = first["identity"]
    protocol = identity["protocol"]
    notes = [
        f"Protocol {protocol['name']} (version {protocol['version']}), {len(identity['scenes'])} scenes, "
        f"{'masked' if identity['masked'] else 'without masks'}; {identity['lpips']}.",
        *([protocol["missing"]] if protocol["missing"] else []),
        *first["reasons"].values(),
    ]
    if first["scenes_left_out"]:
        notes.insert(1, f"{len(first['scenes_left_out'])} scenes of the protocol are not there.")
    rows = {content["method"]: content["means"] for content in contents}
    *others, last = write_pages(out, name, rows, title=f"Scores: {protocol['name']}", notes=notes, facts=identity)
    for path in others:
        print(path)
    ended(last, *following)


def _ablation(command: Ablation) -> int:
    from difix3d.queue.scenes import check_scene_folder

    if command.run.scene is not None:
        check_scene_folder(Path(command.run.scene))
    from commands import progress_bar
    from difix3d.evaluation.ablation import ablation
    from difix3d.evaluation.pages import write_pages

    with progress_bar(percent=True) as bars:
        tasks: dict[str, Any] = {}
        settings = RunSettings.of(command.run)
        for name, progress in ablation(settings, command.out, frames=command.frames, seeds=command.seeds):
            if name not in tasks:
                tasks[name] = bars.add_task(name.replace("_", " "), note="")
            note = f"{progress.phase} {progress.note}"
            bars.update(tasks[name], completed=progress.done, total=progress.total, note=note)
    content = json.loads((command.out / "ablation.json").read_text(encoding="utf-8"))
    notes = _ablation_notes(content)
    *others, last = write_pages(
        command.out, "ablation", content["rows"], title="Ablation", notes=notes, facts=content["settings"]
    )
    for path in others:
        print(path)
    ended(last, *_look_at(command.out / "ablation.html"))
    return 0


def _ablation_notes(content: dict[str, Any]) -> list[str]:
    seeds = content["seeds"]
    notes = [
        f"Scene: {Path(content['scene']).name}; {content['num_views']} test photos; rows add to the one before.",
        "Consistent pairs: neighboring frames along the captured views whose matched points keep to each other's "
        "epipolar lines (median at most 1 px where the longer side has 256, 10 matches or more). Renders of a splat "
        "show one rigid thing: only fixes can lower this.",
    ]
    if len(seeds) > 1:
        notes.insert(
            1,
            f"Mean over the seeds {', '.join(map(str, seeds))}, ± standard deviation; gains are over the plain splat "
            "of the same seed.",
        )
    if content["saw_test_poses"]:
        notes.append("Novel views moved toward the test poses.")
    return [*notes, *content["reasons"].values()]


def _write(path: Path, content: dict[str, Any]) -> None:
    write_text_whole(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


if __name__ == "__main__":
    sys.exit(main())
