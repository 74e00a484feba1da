"""What a reader of a report must know about its run, in sentences."""

from collections.abc import Sequence

from difix3d.loop.rollback import RollbackPolicy
from difix3d.report.facts import RunFacts
from difix3d.report.results import VariantResult
from difix_model.gate.verdict import verdict_summary

WHERE = {
    "photos-between": "between neighboring captured views",
    "path": "along a path through the captured views",
    "orbit": "on a circle around the scene",
    "spiral": "on a spiral in front of the scene",
    "perturbed": "beside the captured views",
    "spread": "between neighboring captured views and around them",
    "test": "toward the poses of the test photos",
}
"""Where novel views go, in words."""


def run_notes(facts: RunFacts, results: Sequence[VariantResult]) -> list[str]:
    """Photos, start, rounds and what became of them, fixes."""
    return [*_notes(facts), *_fix_notes(facts, results)]


def curves_note(facts: RunFacts) -> str:
    """What the curves show."""
    if facts.distilled:
        return (
            "Plain training comes first; splats that only teach are not shown; then comes the one that learns from "
            "what they show together."
        )
    return (
        "Up to the first round (first dotted line) both trainings are the same; at each dotted line the loop gets new "
        "fixed views."
    )


def _notes(facts: RunFacts) -> list[str]:
    train, test = len(facts.split.train), len(facts.split.test)
    tested = f"{test} to test on" if test else "none to test on: all figures are of photos that were trained on"
    notes = [
        f"{'Scene' if facts.settings.scene else 'A generated scene'} {facts.scene_name}: {train} photos to learn "
        f"from, {tested} ({facts.split.policy})."
    ]
    if facts.points is not None:
        notes.append(facts.points.sentence())
    if facts.stereo is not None:
        notes.append(facts.stereo)
    if facts.distilled:
        notes.append(_distillation_note(facts))
    elif facts.num_rounds:
        where = WHERE.get(facts.settings.targets or "", f"toward the cameras of {facts.settings.targets}")
        made = f"{facts.num_rounds} rounds of {facts.num_novel or 'no kept'} novel views"
        if facts.policy is not None:
            made += f", {facts.policy.num_rounds_undone} of them undone"
        if not facts.config.rounds.learn_unchanged:
            made += f", {facts.num_rounds_learned} of them with changes to learn from"
        known = "" if facts.saw_test_poses else "; no test pose was used"
        notes.append(f"{made}, {where}; they came {facts.progress:.0%} of their way{known}.")
    else:
        same = ": both trainings are the same" if facts.splat_step == facts.step else ""
        notes.append(f"No round of novel views{same}.")
    if facts.policy is not None:
        notes.append(_validation_note(facts, facts.policy))
    if facts.saw_test_poses:
        notes.append(
            "The loop knew where the test photos were taken (not what they show): its figures are for places that "
            "it was trained for, as in the published method. With --targets photos-between it does not."
        )
    return notes


def _fix_notes(facts: RunFacts, results: Sequence[VariantResult]) -> list[str]:
    """What became of the fixes, and why not all of them were let through."""
    if not facts.fixed:
        return []
    notes = []
    if facts.novel is not None:
        notes.append(f"The newest round: {facts.novel.summary()}.")
    final = [verdict for result in results if result.name == "loop_fixed" for verdict in result.verdicts.values()]
    if final:
        notes.append(f"The final fix: {verdict_summary(final, 'test view')}.")
    return notes


def _distillation_note(facts: RunFacts) -> str:
    """What distillation did, and what each part of it was worth."""
    where = WHERE.get(facts.settings.targets or "", f"at the cameras of {facts.settings.targets}")
    known = "" if facts.saw_test_poses else "; no test pose was used"
    worth = ", ".join(f"{name} {psnr:.2f} dB" for name, psnr in facts.parts.items())
    return (
        f"Several splats taught one more what they show together at {facts.num_novel} novel views, {where}{known}. "
        f"On the {facts.side} photos: {worth}."
    )


def _validation_note(facts: RunFacts, policy: RollbackPolicy) -> str:
    best, num_undone = policy.best, len(policy.undone)
    note = (
        f"Beside the loop, a second splat learned without {', '.join(facts.held_back)} and was scored there "
        f"{len(policy.scores)} times"
        + (f", {best.psnr:.2f} dB at best, after step {best.splat_step}" if best else "")
        + f". What lowered the score was undone, {num_undone} times, {policy.num_rounds_undone} of them rounds."
    )
    if policy.stopped:
        note += (
            f" Nothing helped any more: training stopped early, and the loop's splat is that of step "
            f"{facts.splat_step}."
        )
    if facts.num_rounds <= policy.num_rounds_undone:
        note += (
            " No round was kept: where the loop differs from plain training, it is by stopping in time and not by "
            "fixed views."
            if facts.splat_step < facts.step
            else " No round was kept: the loop is plain training."
        )
    return note
