"""Weights from the hub's cache and from a hub: offline, by revision, uploaded, and never executing anything."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from difix_model import DifixPipeline, InputError, diffusers
from difix_model.formats.hub import WANTED_FILES, weights_folder
from difix_model.formats.released_pickle import read_pickle
from difix_model.formats.sources import load_source

COMMITS = {"main": "1" * 40, "v1": "2" * 40}


def fill_cache(cache: Path, repo_id: str, folders: dict[str, Path]) -> None:
    """Lay out a cache as the hub's client does: blobs, snapshots of links to them, and refs."""
    repo = cache / f"models--{repo_id.replace('/', '--')}"
    for revision, folder in folders.items():
        commit = COMMITS[revision]
        for path in (path for path in folder.rglob("*") if path.is_file()):
            blob = repo / "blobs" / hashlib.sha256(path.read_bytes()).hexdigest()
            blob.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, blob)
            link = repo / "snapshots" / commit / path.relative_to(folder)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(blob, link.parent))
        (repo / "refs").mkdir(exist_ok=True)
        (repo / "refs" / revision).write_text(commit)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def test_offline_every_form_on_the_hub_by_revision(
    cache: Path, published_layout: Path, checkpoint_folder: Path, tmp_path: Path
) -> None:
    with_references = Path(shutil.copytree(published_layout, tmp_path / "ref"))
    index = json.loads((with_references / "model_index.json").read_text())
    index["unet"][0] = "unet_2d_condition"
    (with_references / "model_index.json").write_text(json.dumps(index))
    fill_cache(cache, "someone/difix", {"main": published_layout, "v1": with_references})
    fill_cache(cache, "someone/ours", {"main": checkpoint_folder})
    image = np.random.default_rng(0).random((24, 40, 3), dtype=np.float32)
    main = DifixPipeline.from_pretrained("someone/difix")
    tagged = DifixPipeline.from_pretrained("someone/difix", revision="v1")
    assert (main.uses_reference, tagged.uses_reference) == (False, True)
    assert main.metadata.origin == "someone/difix"
    assert tagged.metadata.origin == "someone/difix@v1"
    np.testing.assert_array_equal(main(image), DifixPipeline.from_pretrained(published_layout)(image))
    assert load_source("someone/difix", revision=COMMITS["v1"]).metadata.uses_reference
    ours = DifixPipeline.from_pretrained("someone/ours")
    np.testing.assert_array_equal(ours(image), DifixPipeline.from_pretrained(checkpoint_folder)(image))


def test_offline_what_the_cache_lacks_is_one_sentence(cache: Path, published_layout: Path) -> None:
    fill_cache(cache, "someone/difix", {"main": published_layout})
    for source, revision in (("someone/difix", "v9"), ("someone/else", None), ("someone/else", "v1")):
        with pytest.raises(InputError, match="HF_HUB_OFFLINE is set and the cache") as caught:
            load_source(source, revision=revision)
        assert "\n" not in str(caught.value)
        assert revision is None or f"at revision {revision}" in str(caught.value)
    with pytest.raises(InputError, match="is a folder, which has no revision v1"):
        load_source(published_layout, revision="v1")


@pytest.mark.parametrize("variable", ["HF_HUB_CACHE", "HF_HOME"])
def test_the_environments_cache_is_used_without_network(variable: str, published_layout: Path, tmp_path: Path) -> None:
    fill_cache(tmp_path / "hub", "someone/difix", {"main": published_layout})
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGINGFACE"))}
    environment |= {"HF_HUB_OFFLINE": "1", variable: str(tmp_path / "hub" if variable == "HF_HUB_CACHE" else tmp_path)}
    code = (
        "import socket, sys\n"
        "def refuse(*_, **__): raise SystemExit('the network was used')\n"
        "socket.socket.connect = socket.create_connection = refuse\n"
        "from difix_model.formats.hub import weights_folder\n"
        "print(weights_folder('someone/difix'))\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith(COMMITS["main"])
    assert str(tmp_path) in done.stdout


def test_code_in_a_repository_is_neither_fetched_nor_run(
    cache: Path, published_layout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trapped = Path(shutil.copytree(published_layout, tmp_path / "trapped"))
    trap = f"open({str(tmp_path / 'executed')!r}, 'w').close()\n"
    names = ["pipeline.py", "unet/unet_2d_condition.py", "vae/autoencoder_kl.py", "text_encoder/modeling.py"]
    names += ["tokenizer/tokenization.py", "handler.py", "__init__.py", "unet/__init__.py"]
    for name in names:
        (trapped / name).write_text(trap)
    index = json.loads((trapped / "model_index.json").read_text())
    index |= {"_class_name": ["pipeline", "DifixPipeline"], "unet": ["unet_2d_condition", "UNet2DConditionModel"]}
    (trapped / "model_index.json").write_text(json.dumps(index))
    for part, module in (("text_encoder", "modeling.CLIPTextModel"), ("tokenizer", "tokenization.CLIPTokenizer")):
        path = trapped / part / ("config.json" if part == "text_encoder" else "tokenizer_config.json")
        remote = {"auto_map": {"AutoModel": module, "AutoTokenizer": [module, None]}}
        path.write_text(json.dumps(json.loads(path.read_text()) | remote))
    fill_cache(cache, "someone/trapped", {"main": trapped})
    monkeypatch.chdir(trapped)
    for source in (trapped, "someone/trapped"):
        pipe = diffusers.DifixPipeline.from_pretrained(source, trust_remote_code=True)
        assert pipe.pipeline.uses_reference
    assert not (tmp_path / "executed").exists()
    assert not any(pattern.endswith((".py", ".bin", ".pkl", ".pt", "*")) for pattern in WANTED_FILES)


class _Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("how", ["pickle", "torch", "torch_old", "nested"])
def test_a_malicious_pickle_is_refused_and_does_nothing(
    how: str, published_layout: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    mark, path = tmp_path / "executed", tmp_path / "model_1.pkl"
    content: Any = {"rank_vae": 2, "state_dict_unet": _Bomb(mark)} if how == "nested" else _Bomb(mark)
    if how == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how != "torch_old")
    for base in (None, published_layout):
        with pytest.raises(InputError, match="more than tensors and plain values") as caught:
            DifixPipeline.from_pretrained(path, base=base)
        assert "\n" not in str(caught.value)
    assert not mark.exists()
    # The bomb is real: an ordinary unpickler sets it off.
    if how == "pickle":
        pickle.loads(path.read_bytes()).close()
        assert mark.exists()


def test_pickles_are_not_read_by_a_torch_that_reads_them_unsafely(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save({"rank_vae": 2}, tmp_path / "model_1.pkl")
    monkeypatch.setattr(torch, "__version__", "2.9.1+cu128")
    with pytest.raises(InputError, match=r"torch before 2\.10 does not read safely \(this is 2\.9\.1"):
        read_pickle(tmp_path / "model_1.pkl")
    monkeypatch.setattr(torch, "__version__", "2.10.0")
    with pytest.raises(InputError, match="it lacks state_dict_unet"):
        read_pickle(tmp_path / "model_1.pkl")


class FakeHub(ThreadingHTTPServer):
    """As much of the hub's interface as uploading and downloading a small repository takes."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.uploaded: dict[str, bytes] = {}
        self.created: list[dict] = []
        self.tokens: set[str | None] = set()
        self.commit = "3" * 40

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.tokens.add(self.headers.get("Authorization"))
        if self.path == "/api/repos/create":
            self.server.created.append(json.loads(body))
            self._answer({"url": f"{self.server.address}/me/fixer", "name": "me/fixer"})
        elif self.path.startswith("/api/models/me/fixer/preupload/"):
            files = json.loads(body)["files"]
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for file in files
            ]
            self._answer({"files": modes})
        elif self.path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            upload = [
                o | {"actions": {"upload": {"href": f"{self.server.address}/lfs/{o['oid']}", "header": {}}}}
                for o in objects
            ]
            self._answer({"transfer": "basic", "objects": upload})
        elif self.path.startswith("/api/models/me/fixer/commit/"):
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    self.server.files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    self.server.files[value["path"]] = self.server.uploaded[value["oid"]]
            url = f"{self.server.address}/me/fixer/commit/{self.server.commit}"
            self._answer({"commitUrl": url, "commitOid": self.server.commit, "hookOutput": ""})
        elif self.path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        else:
            self._answer({"error": self.path}, status=404)

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.uploaded[self.path.rpartition("/")[2]] = body
        self._answer({})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        name = self.path.partition("?")[0]
        if name.startswith("/api/models/me/fixer/tree/"):
            entries = self.server.files.items()
            self._answer([{"type": "file", "path": p, "size": len(c), "oid": "4" * 40} for p, c in entries])
            return
        if name.startswith("/api/models/me/fixer"):
            known = not name.startswith("/api/models/me/fixer/revision/") or name.endswith(("/main", "/" + "3" * 40))
            siblings = [{"rfilename": file} for file in self.server.files]
            found = {"id": "me/fixer", "sha": self.server.commit, "private": False, "siblings": siblings}
            headers = {} if known else {"X-Error-Code": "RevisionNotFound"}
            self._answer(found if known else {"error": "no"}, status=200 if known else 404, headers=headers)
            return
        content = self.server.files.get(name.partition("/resolve/")[2].partition("/")[2])
        if content is None:
            self._answer({"error": name}, status=404, headers={"X-Error-Code": "RepoNotFound"})
            return
        etag = hashlib.sha256(content).hexdigest()
        self._send(content, 200, {"ETag": f'"{etag}"', "X-Repo-Commit": self.server.commit})

    def _answer(self, values: dict | list, *, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(json.dumps(values).encode(), status, {"Content-Type": "application/json"} | (headers or {}))

    def _send(self, content: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    from huggingface_hub import constants

    server = FakeHub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


# The hub's client uploads in a way that its own HTTP library deprecates.
@pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")
def test_pushed_weights_come_back_the_same(hub: FakeHub, checkpoint_folder: Path) -> None:
    pipe = DifixPipeline.from_pretrained(checkpoint_folder)
    address = pipe.push_to_hub("me/fixer", private=True, token="hf_not_a_real_one", commit_message="First weights")
    assert address.endswith("/commit/" + "3" * 40)
    assert [created["visibility"] for created in hub.created] == ["private"]
    assert hub.tokens == {"Bearer hf_not_a_real_one"}
    assert set(hub.files) == {"README.md", "config.json", "model.safetensors"}
    assert b'from_pretrained("me/fixer")' in hub.files["README.md"]
    image = np.random.default_rng(0).random((24, 40, 3), dtype=np.float32)
    hub.files["evil.py"] = b"raise SystemExit"
    np.testing.assert_array_equal(DifixPipeline.from_pretrained("me/fixer")(image), pipe(image))
    assert not (weights_folder("me/fixer") / "evil.py").exists()
    with pytest.raises(InputError, match="at revision v9: it has no such revision"):
        DifixPipeline.from_pretrained("me/fixer", revision="v9")
    with pytest.raises(InputError, match="does not exist, or is private"):
        DifixPipeline.from_pretrained("me/other")


def test_a_hub_that_refuses_is_one_sentence(hub: FakeHub, checkpoint_folder: Path) -> None:
    pipe = DifixPipeline.from_pretrained(checkpoint_folder)
    with pytest.raises(InputError, match="cannot upload to you/fixer") as caught:
        pipe.push_to_hub("you/fixer", token="hf_not_a_real_one")
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="owner/name"):
        pipe.push_to_hub("no owner")
