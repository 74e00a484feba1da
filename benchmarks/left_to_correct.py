"""What is wrong with renders, and what of it could be corrected: oracles, which see the photo, on pairs.

    uv run python benchmarks/embedded_quality.py renders --suited --scenes SCENES --out RENDERS
    uv run python benchmarks/left_to_correct.py --pairs RENDERS/pairs.json

Gains of PSNR in dB. *sharpened, by other scenes*: the best gain of every band of frequencies, by the other scenes'
photos. *sharpened, by itself*: by the photo itself. *affine*: one affine change of colors. *cells of N*: the error,
averaged over cells of so many pixels and interpolated, taken away. *reference in place*: `MIXED` of the reference's
colors, averaged over cells of 32 pixels, at the same place of the image; no oracle.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional

EDGES = (0.0, 0.015, 0.03, 0.05, 0.08, 0.12, 0.17, 0.23, 0.3, 0.37, 0.45)
"""Where bands of frequencies begin, in cycles per pixel."""

COARSE = 0.03
"""Errors of less than so many cycles per pixel are coarse."""

CELLS = (8, 16, 32)
MIXED = 0.15

Rgb = Float[Tensor, "c=3 h w"]


def rgb(path: Path) -> Rgb:
    """An image in [0, 1]."""
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).float() / 255


def gain(render: Rgb, corrected: Rgb, photo: Rgb) -> float:
    """By how many dB an image has come closer to the photo."""
    before, after = ((image.clamp(0, 1) - photo).square().mean() for image in (render, corrected))
    return float(10 * torch.log10(before / after))


def frequencies(image: Rgb) -> Float[Tensor, "h w"]:
    """Of an image's Fourier transform, in cycles per pixel."""
    height, width = image.shape[1:]
    return torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.fftfreq(width)[None])


def band_sums(render: Rgb, photo: Rgb) -> Float[Tensor, "n=2 bands"]:
    """What render and photo have in common in every band, and the render's own power, over the size of the error."""
    mean = render.mean(dim=(1, 2), keepdim=True)
    x, y = torch.fft.fft2(render - mean), torch.fft.fft2(photo - mean)
    bands = torch.bucketize(frequencies(render), torch.tensor(EDGES), right=True) - 1
    sums = [
        torch.zeros(len(EDGES)).index_add(0, bands.flatten(), power.sum(dim=0).flatten())
        for power in ((x.conj() * y).real, x.abs().square())
    ]
    return torch.stack(sums) / (x - y).abs().square().sum()


def sharpened(render: Rgb, sums: Float[Tensor, "n=2 bands"]) -> Rgb:
    """The render with the gain of every band that its sums call for."""
    mean = render.mean(dim=(1, 2), keepdim=True)
    bands = torch.bucketize(frequencies(render), torch.tensor(EDGES), right=True) - 1
    return torch.fft.ifft2(torch.fft.fft2(render - mean) * (sums[0] / sums[1])[bands]).real + mean


def affine(render: Rgb, photo: Rgb) -> Rgb:
    """The render with the affine change of colors that fits the photo best."""
    pixels = torch.cat([render.flatten(1), torch.ones(1, render[0].numel())]).T
    return (pixels @ torch.linalg.lstsq(pixels, photo.flatten(1).T).solution).T.reshape(render.shape)


def in_cells(image: Rgb, side: int) -> Rgb:
    """Averaged over cells, and interpolated between them."""
    height, width = (max(1, round(pixels / side)) for pixels in image.shape[1:])
    cells = functional.adaptive_avg_pool2d(image[None], (height, width))
    return functional.interpolate(cells, size=image.shape[1:], mode="bilinear", align_corners=False)[0]


def coarse_fraction(render: Rgb, photo: Rgb) -> float:
    """Fraction of the squared error that is coarse."""
    error = torch.fft.fft2(render - photo).abs().square().sum(dim=0)
    return float(error[frequencies(render) < COARSE].sum() / error.sum())


def main() -> None:
    """Print one row per scene, or one for all where there are many."""
    from difix_model import read_pairs

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, nargs="+", required=True)
    scenes: dict[str, list[tuple[Rgb, Rgb, Rgb]]] = defaultdict(list)
    for path in parser.parse_args().pairs:
        for record in read_pairs(path):
            assert record.ref_image is not None
            images = rgb(record.image), rgb(record.target_image), rgb(record.ref_image)
            scenes[record.id.split("/")[0]].append(images)
    sums = {name: sum(band_sums(x, y) for x, y, _ in pairs) for name, pairs in scenes.items()}
    rows: dict[str, list[dict[str, float]]] = {}
    for name, pairs in scenes.items():
        others = sum(of_scene for other, of_scene in sums.items() if other != name)
        rows[name] = []
        for render, photo, reference in pairs:
            row = {
                "coarse part of the error": coarse_fraction(render, photo),
                "sharpened, by other scenes": gain(render, sharpened(render, torch.as_tensor(others)), photo),
                "sharpened, by itself": gain(render, sharpened(render, band_sums(render, photo)), photo),
                "affine": gain(render, affine(render, photo), photo),
            }
            for side in CELLS:
                row[f"cells of {side}"] = gain(render, render + in_cells(photo - render, side), photo)
            if reference.shape == render.shape:
                mixed = render + MIXED * in_cells(reference - render, CELLS[-1])
                row["reference in place"] = gain(render, mixed, photo)
                row["harmed by it"] = float(row["reference in place"] < 0)
            rows[name].append(row)
    rows["all"] = [row for of_scene in rows.values() for row in of_scene]
    heads = list(rows["all"][0])
    print("| " + " | ".join(["scene", "views", *heads]) + " |")
    print("|---" * (len(heads) + 2) + "|")
    for name, of_scene in rows.items():
        means = (np.mean([row[head] for row in of_scene if head in row]) for head in heads)
        print(f"| {name} | {len(of_scene)} | " + " | ".join(f"{mean:+.2f}" for mean in means) + " |")


if __name__ == "__main__":
    main()
