"""A report ends with a decision: which splat to take, and what would help most."""

from __future__ import annotations

from dataclasses import replace

import pytest

from difix3d.report.curves import Curves
from difix3d.report.decision import decided
from difix3d.report.page import score_cards
from splat_recon import Split, ViewScore
from support.run_results import facts, results

MANY = Split(train=tuple(f"{index}" for index in range(40)), test=("b",), policy="p")


def curves(*psnrs: float, variant: str = "plain") -> Curves:
    found = Curves()
    for index, psnr in enumerate(psnrs):
        found.add({"step": 100 * index, "variant": variant, "psnr": psnr, "ssim": 0.5})
    return found


@pytest.mark.parametrize(
    ("plain", "loop", "fixed", "splat", "words"),
    [
        (20.0, 21.0, 21.3, "loop", ["the loop's splat, 21.00 dB", "+1.00 dB", "worth fixing once more (+0.30 dB)"]),
        (20.0, 19.0, 19.0, "plain", ["plain training's splat, 20.00 dB", "the loop's is 1.00 dB below"]),
        (20.0, 20.01, 20.01, "plain", ["not clearly better", "a final fix adds nothing here"]),
    ],
)
def test_the_better_splat_is_taken(plain: float, loop: float, fixed: float, splat: str, words: list[str]) -> None:
    decision = decided(facts(split=MANY), results(plain, loop, fixed), curves())
    assert decision.splat == splat
    for word in words:
        assert word in decision.take
    assert decision.sentences == f"{decision.take} {decision.helps_most}"


def test_where_psnr_does_not_tell_flip_does() -> None:
    given = [
        replace(each, evaluation=replace(each.evaluation, flip=0.2 if each.name.startswith("plain") else 0.19))
        for each in results(20.0, 19.99, 19.99)
    ]
    decision = decided(facts(split=MANY), given, curves())
    assert decision.splat == "loop"
    assert "by FLIP nearer" in decision.take


def test_what_would_help_most() -> None:
    same = results(20.0, 20.0, 20.0)
    longer = decided(facts(split=MANY), same, curves(18.0, 19.0, 19.9)).helps_most
    assert "longer training" in longer
    assert "--max-steps 20" in longer
    assert "more photos" in decided(facts(), same, curves(20.0, 20.0, 20.0)).helps_most
    assert "more photos" in decided(facts(split=MANY, missing=0.5), same, curves()).helps_most
    assert "more photos" not in decided(facts(split=MANY, transparency=0.5), same, curves()).helps_most
    assert "1 was trained on" in decided(facts(), same, curves()).helps_most
    assert "nvidia/difix_ref" in decided(facts(split=MANY), same, curves()).helps_most


def test_two_photos_are_not_told_to_hold_one_out() -> None:
    same = results(20.0, 20.0, 20.0)
    for number, words in ((2, "more photos. From three on"), (3, "run again without --split none")):
        split = Split(train=tuple("abc"[:number]), test=(), policy="none")
        assert words in decided(facts("distillation", split=split), same, curves()).helps_most


def test_the_worst_test_views_are_named_as_places_for_more_photos() -> None:
    scores = {f"{index}.png": ViewScore(psnr=20.0 - index, ssim=0.5, lpips=None) for index in range(8)}
    given = [replace(each, evaluation=replace(each.evaluation, per_view=scores)) for each in results(20.0, 20.0, 20.0)]
    words = decided(facts(), given, curves()).helps_most
    assert words.endswith("They are missing most toward 7.png (13.0 dB) and 6.png (14.0 dB).")
    assert "missing" not in decided(facts(), results(20.0, 20.0, 20.0), curves()).helps_most


def test_no_gain_is_shown_where_there_is_none() -> None:
    shown = [(card["kind"], card["gain"]) for card in score_cards(results(20.0, 20.001, 21.0))]
    assert "+0.00" not in str(shown)
    assert shown.count(("same", "no clear difference")) == 2
    assert shown.count(("gain", "+1.00 dB")) == 1
