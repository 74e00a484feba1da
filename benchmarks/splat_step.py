"""What a training step of `splat_recon` costs: its parts, how it grows, its memory, and against other code.

On a CPU: the step taken apart, its growth with Gaussians and pixels, its peak memory; with `--baseline COMMIT` also the
same steps by an older revision, from a git worktree, in turns with today's (A B A B), so that what else the machine
does falls on both. On CUDA: `SplatTrainer`, with evaluations and checkpoints, against a bare loop around
`gsplat.rasterization` with the same settings. Tables and a JSON file go to --out.

    uv run python benchmarks/splat_step.py --out runs/step [--scenes FOLDER ...] [--baseline COMMIT] [--device cuda]

CPU time is that of the process, all its threads added up; medians over the rounds. Real scenes are COLMAP folders;
their points are filled up to the wanted number, with sizes and opacities like those of a trained splat.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

REPOSITORY = Path(__file__).resolve().parents[1]
NUM_VIEWS = 8
WARM_UP = 6
"""Steps before the first that counts: compilation, and spherical harmonics of all degrees."""


def prepare(folder: Path | None, size: int, num_gaussians: int, out: Path) -> None:
    """Write cameras, photos and Gaussians as arrays, so that every revision starts from the same ones."""
    from rasterizer import make_scene

    from splat_render.cpu.backend import CpuRasterizer

    if folder is None:
        gaussians, camera = make_scene(num_gaussians, size)
        gaussians = gaussians.detach()
        dyed = gaussians.mapped(lambda tensor: tensor.roll(1, dims=0) if tensor.ndim == 3 else tensor)
        rgb = CpuRasterizer()(dyed, camera, sh_degree=3).rgb.clamp(0, 1)
        views = [("generated", camera, (255 * rgb).byte().numpy())]
    else:
        from splat_recon.io.colmap import read_scene
        from splat_recon.scene.normalize import normalized

        scene = normalized(read_scene(folder, max_size=size))
        chosen = scene.views[:: max(1, len(scene.views) // NUM_VIEWS)][:NUM_VIEWS]
        views = [(view.name, view.camera, np.asarray(view.rgb_u8)) for view in chosen]
        gaussians = filled_up(scene.points, num_gaussians)
    arrays = {f"gaussians.{name}": tensor.numpy() for name, tensor in gaussians.parameters().items()}
    for index, (_, camera, rgb_u8) in enumerate(views):
        arrays |= {f"pose.{index}": camera.T_world_cam, f"K.{index}": camera.K, f"photo.{index}": rgb_u8}
    np.savez(out, **arrays)  # pyright: ignore[reportArgumentType]


def filled_up(points: Any, num_gaussians: int) -> Any:
    """So many Gaussians around a scene's points, with the spread of sizes and opacities of a trained splat."""
    from scipy.spatial import KDTree

    from splat_render.gaussians import Gaussians

    rng = np.random.default_rng(0)
    normal = lambda *shape: torch.from_numpy(rng.standard_normal(shape).astype(np.float32))  # noqa: E731
    source = rng.permutation(np.resize(rng.permutation(len(points)), num_gaussians))
    gap = KDTree(points.p_world).query(points.p_world, k=4)[0][:, 1:].mean(axis=1)[source]
    gap = np.minimum(gap, np.quantile(gap, 0.95))
    means = points.p_world[source] + 0.5 * gap[:, None] * rng.standard_normal((num_gaussians, 3))
    gap = KDTree(means).query(means, k=4)[0][:, 1:].mean(axis=1)
    rgb = torch.from_numpy(points.rgb_u8[source].astype(np.float32) / 255)
    return Gaussians(
        means=torch.from_numpy(means.astype(np.float32)),
        log_scales=torch.from_numpy(np.log(0.55 * gap + 1e-6).astype(np.float32))[:, None]
        + 0.4 * normal(len(means), 3),
        quats_wxyz=normal(len(means), 4),
        logit_opacities=0.5 + 2 * normal(len(means)),
        sh0=((rgb - 0.5) / 0.28209479177387814)[:, None],
        sh_rest=0.05 * normal(len(means), 15, 3),
    )


def load_prepared(path: Path, device: str = "cpu", num_photos: int | None = None) -> tuple[Any, Any, Any]:
    """The scene, its Gaussians and a trainer on them; with public names that older revisions know."""
    from splat_recon.config import AdcConfig, TrainConfig
    from splat_recon.scene.scene import Points, Scene, View
    from splat_recon.trainer import SplatTrainer
    from splat_recon.views.view_set import ViewSet
    from splat_render.cameras import Camera
    from splat_render.gaussians import Gaussians

    with np.load(path) as arrays:
        data = dict(arrays)
    names = [name.removeprefix("gaussians.") for name in data if name.startswith("gaussians.")]
    gaussians = Gaussians(**{name: torch.from_numpy(data[f"gaussians.{name}"]) for name in names})
    count = sum(name.startswith("photo.") for name in data)
    views = []
    for index in range(num_photos or count):
        rgb_u8 = data[f"photo.{index % count}"].copy()
        height, width = rgb_u8.shape[:2]
        camera = Camera(
            T_world_cam=data[f"pose.{index % count}"], K=data[f"K.{index % count}"], width=width, height=height
        )
        views.append(View(name=f"{index:04d}", camera=camera, rgb_u8=rgb_u8))
    points = Points(p_world=np.zeros((1, 3), np.float32), rgb_u8=np.zeros((1, 3), np.uint8))
    scene = Scene(views=tuple(views), points=points)
    # Statistics of density control are kept from the start; nothing grows or goes in so few steps.
    config = TrainConfig(sh_degree_every=1, strategy=AdcConfig())
    trainer = SplatTrainer(scene, ViewSet.from_views(scene.views), config, device=device, gaussians=gaussians)
    return scene, gaussians, trainer


class Parts:
    """Processor time by part of the step, over the calls that a revision makes of its own functions."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}

    def watch(self, owner: Any, name: str, label: str) -> None:
        """Count the time of `owner.name` under `label`; does nothing where a revision has no such function."""
        function = getattr(owner, name, None)
        if function is None:
            return

        def timed(*arguments: Any, **named: Any) -> Any:
            start = time.process_time()
            result = function(*arguments, **named)
            self.spent[label] = self.spent.get(label, 0.0) + time.process_time() - start
            return result

        setattr(owner, name, staticmethod(timed) if label.startswith("rasterizer ") else timed)


def watch_everything(trainer: Any) -> Parts:
    """Put stop watches around what a step calls."""
    from splat_recon import trainer as trainer_module
    from splat_recon.optim import GaussianOptimizer
    from splat_recon.views.view_set import TrainingView, ViewSet
    from splat_render.cpu import backend as cpu_backend

    parts = Parts()
    kernels = ("project", "bin_splats", "blend", "blend_backward", "project_backward")
    labels = ("projection", "tile lists", "blend forward", "blend backward", "projection backward")
    for name, label in zip(kernels, labels, strict=True):
        parts.watch(cpu_backend, name, label)
    parts.watch(cpu_backend._Rasterize, "forward", "rasterizer forward, whole")
    parts.watch(cpu_backend._Rasterize, "backward", "rasterizer backward, whole")
    parts.watch(trainer_module, "photometric", "L1 and SSIM forward")
    parts.watch(torch.Tensor, "backward", "backward, whole")
    parts.watch(GaussianOptimizer, "step", "optimizer")
    parts.watch(trainer._density, "after_step", "density control")
    parts.watch(ViewSet, "sample", "view fetch")
    for kind in (TrainingView, *TrainingView.__subclasses__()):
        parts.watch(kind, "rgb_on", "view fetch")
    return parts


def serve(path: Path, threads: int) -> None:
    """Answer lines of standard input: a number of steps to take; with their mean costs in ms, as JSON."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])
    torch.set_num_threads(threads)
    _, _, trainer = load_prepared(path)
    trainer.train_until(WARM_UP)
    parts = watch_everything(trainer)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        steps, parts.spent = int(line), {}
        cpu, clock = time.process_time(), time.perf_counter()
        trainer.train_until(trainer.step + steps)
        cpu, clock = time.process_time() - cpu, time.perf_counter() - clock
        spent = {"step": cpu, "clock": clock} | parts.spent
        print(json.dumps({name: 1e3 * value / steps for name, value in spent.items()}), flush=True)


class Worker:
    """A process that trains with one revision of the package."""

    def __init__(self, revision: Path, cache: Path, prepared: Path, threads: int) -> None:
        environment = os.environ | {
            "PYTHONPATH": str(revision / "packages" / "splat-recon" / "src"),
            "NUMBA_CACHE_DIR": str(cache),
            "OMP_NUM_THREADS": str(threads),
        }
        command = [sys.executable, __file__, "--serve", str(prepared), "--threads", str(threads)]
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._read()

    def _read(self) -> dict[str, float]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("a worker ended; its message stands above")
        return json.loads(line)

    def steps(self, number: int) -> dict[str, float]:
        """Take steps; mean milliseconds by part."""
        assert self._process.stdin is not None
        print(number, file=self._process.stdin, flush=True)
        return self._read()

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


@contextmanager
def worktree(commit: str, folder: Path) -> Iterator[Path]:
    """A checkout of an older revision, for as long as it is needed."""
    path = folder / "baseline"
    git = ["git", "-C", str(REPOSITORY), "worktree"]
    subprocess.run([*git, "add", "--detach", "--force", str(path), commit], check=True, capture_output=True)
    try:
        yield path
    finally:
        subprocess.run([*git, "remove", "--force", str(path)], check=True, capture_output=True)


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Median of every part over the rounds."""
    names = dict.fromkeys(name for found in rounds for name in found)
    return {name: statistics.median(found.get(name, 0.0) for found in rounds) for name in names}


def with_rest(parts: dict[str, float]) -> dict[str, float]:
    """Parts that add up to the step: what is inside a whole is taken out of it."""
    kernels = [parts.get(name, 0.0) for name in ("projection", "tile lists", "blend forward")]
    kernels_back = [parts.get(name, 0.0) for name in ("blend backward", "projection backward")]
    inside = parts["rasterizer forward, whole"] + parts["backward, whole"] + parts["L1 and SSIM forward"]
    inside += parts["optimizer"] + parts["density control"] + parts["view fetch"]
    return {
        **{name: value for name, value in parts.items() if "whole" not in name and name != "clock"},
        "rasterizer, outside its kernels": parts["rasterizer forward, whole"] + parts["rasterizer backward, whole"]
        - sum(kernels) - sum(kernels_back),
        "loss backward and autograd": parts["backward, whole"] - parts["rasterizer backward, whole"],
        "everything else": parts["step"] - inside,
    }  # fmt: skip


def compare(folder: Path, scene: Path | None, options: argparse.Namespace, baseline: Path | None) -> dict[str, Any]:
    """One scene at one size, today's revision and the baseline in turns."""
    prepared = folder / f"{scene.name if scene else 'generated'}.npz"
    prepare(scene, options.size, options.gaussians[0], prepared)
    revisions = {"today": REPOSITORY} | ({"baseline": baseline} if baseline else {})
    workers = {
        name: Worker(path, folder / f"cache_{name}", prepared, options.threads) for name, path in revisions.items()
    }
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in workers}
    for _ in range(options.rounds):
        for name, worker in workers.items():
            rounds[name].append(worker.steps(options.steps))
    for worker in workers.values():
        worker.close()
    found: dict[str, Any] = {name: with_rest(medians(of_one)) for name, of_one in rounds.items()}
    if baseline:
        pairs = list(zip(rounds["baseline"], rounds["today"], strict=True))
        for kind in ("step", "clock"):
            found[f"ratio_{kind}"] = statistics.median(old[kind] / new[kind] for old, new in pairs)
        found["ratios"] = [old["step"] / new["step"] for old, new in pairs]
    return found


def growth(folder: Path, scene: Path | None, options: argparse.Namespace) -> dict[str, Any]:
    """Step time over Gaussians and pixels, with the exponent of its growth at every image size."""
    rows = []
    for size in options.sizes:
        for number in options.gaussians:
            prepared = folder / "growth.npz"
            prepare(scene, size, number, prepared)
            seen, pairs = visible(prepared)
            worker = Worker(REPOSITORY, folder / "cache_today", prepared, options.threads)
            cost = medians([worker.steps(options.steps) for _ in range(options.rounds)])
            worker.close()
            rows.append(
                {"size": size, "gaussians": number, "visible": seen, "intersections": pairs, "step": cost["step"]}
            )
            print(f"  {rows[-1]}", flush=True)
    exponents = {
        f"{size} px, by {by}": slope([row for row in rows if row["size"] == size], by)
        for size in options.sizes
        for by in ("visible", "intersections")
        if len(options.gaussians) > 1
    }
    return {"rows": rows, "exponents": exponents}


def slope(rows: list[dict[str, Any]], by: str) -> float:
    """Exponent p of step ~ by^p, fitted to logarithms."""
    return float(np.polyfit(np.log([row[by] for row in rows]), np.log([row["step"] for row in rows]), 1)[0])


def visible(prepared: Path) -> tuple[float, float]:
    """Mean number of visible Gaussians and of tile intersections over the views."""
    from splat_render.cpu import backend

    cpu_backend: Any = backend
    scene, gaussians, _ = load_prepared(prepared)
    counts: list[int] = []
    binned = cpu_backend.bin_splats

    def count(*arguments: Any) -> Any:
        bins = binned(*arguments)
        counts.append(len(bins[0]))
        return bins

    cpu_backend.bin_splats = count
    try:
        with torch.no_grad():
            renders = [cpu_backend.CpuRasterizer()(gaussians, view.camera, sh_degree=0) for view in scene.views]
    finally:
        cpu_backend.bin_splats = binned
    return statistics.mean(int((render.stats.radii_px > 0).sum()) for render in renders), statistics.mean(counts)


def peak_bytes(prepared: Path, num_photos: int) -> None:
    """Print the peak memory of a process that trains some steps."""
    torch.set_num_threads(1)
    _, _, trainer = load_prepared(prepared, num_photos=num_photos)
    trainer.train_until(WARM_UP)
    print(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def memory(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Peak memory per Gaussian and per photo, as differences between processes."""

    def peak(gaussians: int, photos: int) -> int:
        prepare(None, options.size, gaussians, folder / "memory.npz")
        command = [sys.executable, __file__, "--peak", str(folder / "memory.npz"), "--photos", str(photos)]
        environment = os.environ | {"NUMBA_CACHE_DIR": str(folder / "cache_today")}
        return int(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)

    few, many = 20_000, 220_000
    peak(few, 1)  # Compiling needs memory of its own.
    small = peak(few, 1)
    return {
        "peak_mb": small / 1e6,
        "bytes_per_gaussian": (peak(many, 1) - small) / (many - few),
        "bytes_per_photo": (peak(few, 201) - small) / 200,
        "photo_bytes": 3.0 * options.size**2,
    }


def on_cuda(folder: Path, scene: Path | None, options: argparse.Namespace) -> dict[str, Any]:
    """Steps per second of `SplatTrainer` and of a bare gsplat loop, in turns; PSNR of both at the end."""
    from splat_recon.evaluate import evaluate

    prepared = folder / "cuda.npz"
    prepare(scene, options.size, options.gaussians[-1], prepared)
    scene_, gaussians, trainer = load_prepared(prepared, device="cuda")
    bare = BareLoop(gaussians, scene_, trainer)
    rounds: dict[str, list[float]] = {"trainer": [], "bare": []}

    def ours(steps: int) -> None:
        trainer.train_until(trainer.step + steps)
        evaluate(lambda camera: trainer.render(camera).rgb, scene_.views)
        trainer.save(folder / f"checkpoint_{trainer.step}")

    for number in range(options.rounds + 1):
        for name, run in (("trainer", ours), ("bare", bare.run)):
            torch.cuda.synchronize()
            start = time.perf_counter()
            run(options.steps)
            torch.cuda.synchronize()
            if number:  # The first round compiles.
                rounds[name].append(options.steps / (time.perf_counter() - start))
    scores = {
        "trainer": evaluate(lambda camera: trainer.render(camera).rgb, scene_.views).psnr,
        "bare": evaluate(bare.render, scene_.views).psnr,
    }
    speeds = {name: statistics.median(values) for name, values in rounds.items()}
    ratio = statistics.median(a / b for a, b in zip(rounds["trainer"], rounds["bare"], strict=True))
    return {"steps_per_second": speeds, "ratio": ratio, "psnr": scores, "gaussians": len(gaussians)}


class BareLoop:
    """The least that trains on gsplat: its rasterization, the same loss, and Adam with the trainer's rates."""

    def __init__(self, gaussians: Any, scene: Any, trainer: Any) -> None:
        from splat_recon.losses import photometric

        self._loss = photometric
        self._parameters = {
            name: tensor.cuda().requires_grad_() for name, tensor in gaussians.clone().parameters().items()
        }
        rates = trainer.learning_rates()
        groups = [{"params": [tensor], "lr": rates[name]} for name, tensor in self._parameters.items()]
        self._adam = torch.optim.Adam(groups, eps=1e-15, fused=True)
        self._photos = [torch.from_numpy(np.array(view.rgb_u8)).cuda().float() / 255 for view in scene.views]
        self._cameras = [view.camera for view in scene.views]
        self._step = 0

    def render(self, camera: Any) -> torch.Tensor:
        """One image."""
        import gsplat

        values = self._parameters
        colors, _, _ = gsplat.rasterization(
            means=values["means"],
            quats=values["quats_wxyz"],
            scales=values["log_scales"].exp(),
            opacities=values["logit_opacities"].sigmoid(),
            colors=torch.cat([values["sh0"], values["sh_rest"]], dim=1),
            viewmats=torch.as_tensor(camera.T_cam_world, dtype=torch.float32, device="cuda")[None],
            Ks=torch.as_tensor(camera.K, dtype=torch.float32, device="cuda")[None],
            width=camera.width,
            height=camera.height,
            sh_degree=3,
            packed=False,
        )
        return colors[0]

    def run(self, steps: int) -> None:
        """Train."""
        for _ in range(steps):
            index = self._step % len(self._photos)
            self._adam.zero_grad(set_to_none=True)
            self._loss(self.render(self._cameras[index]), self._photos[index], ssim_weight=0.2).backward()
            self._adam.step()
            self._step += 1


def tables(results: dict[str, Any]) -> str:
    """The results as markdown."""
    lines = []
    for name, found in results.get("parts", {}).items():
        revisions = [key for key in ("baseline", "today") if key in found]
        lines += [f"\n{name}, {results['setting']}: CPU ms per step\n", f"| part | {' | '.join(revisions)} |"]
        lines += ["|---" * (1 + len(revisions)) + "|"]
        labels = dict.fromkeys(label for key in revisions for label in found[key])
        lines += [
            f"| {label} | {' | '.join(f'{found[key].get(label, 0):.2f}' for key in revisions)} |" for label in labels
        ]
        if "ratios" in found:
            spread = f"{min(found['ratios']):.2f} to {max(found['ratios']):.2f}"
            lines += [
                f"\nratio of the whole step: {found['ratio_step']:.2f} ({spread}); clock {found['ratio_clock']:.2f}"
            ]
    for name, found in results.get("growth", {}).items():
        lines += [
            f"\n{name}\n",
            "| pixels | Gaussians | visible | tile intersections | CPU ms per step |",
            "|---|---|---|---|---|",
        ]
        lines += [
            f"| {row['size']} | {row['gaussians']} | {row['visible']:.0f} | {row['intersections']:.0f} "
            f"| {row['step']:.1f} |"
            for row in found["rows"]
        ]
        lines += ["", *(f"exponent at {label}: {value:.2f}" for label, value in found["exponents"].items())]
    for name in ("memory", "cuda"):
        lines += [f"\n{name}: {json.dumps(results[name])}"] if name in results else []
    return "\n".join(lines)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for the tables")
    parser.add_argument("--scenes", type=Path, nargs="*", default=[], help="COLMAP folders beside the generated scene")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--baseline", help="commit to compare with, in turns")
    parser.add_argument(
        "--only", nargs="+", choices=["parts", "growth", "memory"], default=["parts", "growth", "memory"]
    )
    parser.add_argument("--size", type=int, default=256, help="longer side where the size does not vary")
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256, 384, 512])
    parser.add_argument("--gaussians", type=int, nargs="+", default=[10_000, 20_000, 50_000, 100_000])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=10, help="steps per round")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--peak", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--photos", type=int, default=1, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    options = parse()
    if options.serve:
        serve(options.serve, options.threads)
        return
    if options.peak:
        peak_bytes(options.peak, options.photos)
        return
    torch.set_num_threads(1)
    scenes: dict[str, Path | None] = {"generated": None} | {path.name: path for path in options.scenes}
    results: dict[str, Any] = {
        "setting": f"{options.gaussians[0]} Gaussians, {options.size} px, {options.threads} thread(s)",
        "arguments": sys.argv[1:],
    }
    jobs: dict[str, Callable[[Path], Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.device == "cuda":
            jobs["cuda"] = lambda at: {key: on_cuda(at, path, options) for key, path in scenes.items()}
        else:
            if "growth" in options.only:
                jobs["growth"] = lambda at: {key: growth(at, path, options) for key, path in scenes.items()}
            if "memory" in options.only:
                jobs["memory"] = lambda at: memory(at, options)
            if "parts" in options.only and options.baseline:
                with worktree(options.baseline, folder) as baseline:
                    results["parts"] = {key: compare(folder, path, options, baseline) for key, path in scenes.items()}
            elif "parts" in options.only:
                results["parts"] = {key: compare(folder, path, options, None) for key, path in scenes.items()}
        for job, run in jobs.items():
            results[job] = run(folder)
    print(tables(results))
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "splat_step.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        (options.out / "splat_step.md").write_text(tables(results) + "\n", encoding="utf-8")
        print(f"\n{options.out / 'splat_step.md'}")


if __name__ == "__main__":
    main()
