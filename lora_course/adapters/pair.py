r"""The two files of a saved adapter as one: written so that a killed save leaves the old pair or the new one whole.

adapter_model.safetensors holds the tensors and, in its metadata, two SHA-256: of the tensors, and of the
configuration that they belong to (PEFT reads over both, and leaves them out of what it saves). Both files are
first written under other names. Replacing the tensors is the one step that counts: a reader that finds the old
configuration beside them takes the new one, which still lies ready.
"""

import hashlib
import json
import os
import secrets
from contextlib import contextmanager, suppress
from pathlib import Path

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
SEAL, SUM = "lora_course.config_sha256", "lora_course.data_sha256"
LARGEST_CONFIG, LARGEST_HEADER = 2**21, 2**25
# what may be edited without a change of the function that the adapter computes
NOTES = ("base_model_name_or_path", "inference_mode", "peft_version", "revision", "task_type")


class AdapterFileError(ValueError):
    r"""A saved adapter that cannot be read; the message names the file and, where there is one, the key."""

    def __init__(self, message):
        super().__init__(message if len(message) <= 1000 else message[:1000] + " …")  # a file can hold long names


def check_folder(folder):
    r"""Return ``folder`` as a Path; TypeError if it is no path."""
    if not isinstance(folder, (str, os.PathLike)):
        raise TypeError(f"folder must be a path, got {folder!r} of type {type(folder).__name__}")
    return Path(folder)


def write_pair(folder, config, tensors):
    r"""Write ``config`` (a dict) and ``tensors`` ({key: tensor}) into ``folder``, both or none."""
    from safetensors.torch import save  # here, so that importing the package does not load it

    folder.mkdir(parents=True, exist_ok=True)
    new = {name: folder / f".{name}.{secrets.token_hex(8)}.new" for name in (CONFIG, TENSORS)}
    plain = save(tensors)
    data = hashlib.sha256(plain[8 + int.from_bytes(plain[:8], "little") :]).hexdigest()
    try:
        _write(new[TENSORS], save(tensors, metadata={"format": "pt", SEAL: seal(config), SUM: data}))
        _write(new[CONFIG], json.dumps(config, indent=2, sort_keys=True).encode())
        _sync(folder)
        os.replace(new[TENSORS], folder / TENSORS)  # from here on it is the new adapter that is saved
        os.replace(new[CONFIG], folder / CONFIG)
        _sync(folder)
    except BaseException:
        if new[TENSORS].exists():
            for path in new.values():
                path.unlink(missing_ok=True)
        raise
    for left in folder.glob(".adapter_*.new"):  # of a save that was killed
        left.unlink(missing_ok=True)


def seal(config):
    r"""Return the SHA-256 of what in ``config`` decides on the function that the adapter computes."""
    essential = {key: value for key, value in config.items() if key not in NOTES}
    return hashlib.sha256(json.dumps(essential, sort_keys=True).encode()).hexdigest()


@contextmanager
def opened_pair(folder):
    r"""Open the pair in ``folder``: gives (config, a safetensors handle), or raises AdapterFileError."""
    tensors = _regular_file(folder, TENSORS)
    with _opened(tensors) as file:
        yield _matching_config(folder, tensors, (file.metadata() or {}).get(SEAL)), file


def _write(path, content):
    with open(path, "xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder):
    with suppress(OSError):  # some systems cannot open a folder
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def _regular_file(folder, name):
    path = folder / name
    try:
        if not os.path.lexists(path):
            if name == TENSORS and (folder / "adapter_model.bin").exists():
                raise AdapterFileError(
                    f"{folder / 'adapter_model.bin'}: a pickle is not read, since reading it can run any code; "
                    "save it as adapter_model.safetensors where it comes from (PEFT's save_pretrained does)"
                )
            raise AdapterFileError(f"{path}: there is no such file")
        target = path.resolve(strict=True)
        if target.parent != folder.resolve():
            raise AdapterFileError(f"{path}: leads out of its folder, to {target}")
        if not target.is_file():
            raise AdapterFileError(f"{path}: is no regular file")
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a name that no file can have
        raise error if isinstance(error, AdapterFileError) else AdapterFileError(f"{path}: {error}") from None
    return path


@contextmanager
def _opened(path):
    from safetensors import safe_open

    try:
        with open(path, "rb") as file:
            header = int.from_bytes(file.read(8), "little")
        size = path.stat().st_size
        if size < 8 or not 0 < header <= min(size - 8, LARGEST_HEADER):
            claim = f"its header claims {header} bytes of a file of {size}" if size >= 8 else f"it has {size} bytes"
            raise AdapterFileError(f"{path}: damaged or no safetensors file: {claim}")
        handle = safe_open(path, framework="pt")
        wanted = (handle.metadata() or {}).get(SUM)
        with open(path, "rb") as file:
            file.seek(8 + header)
            if wanted not in (None, hashlib.file_digest(file, "sha256").hexdigest()):
                raise AdapterFileError(f"{path}: damaged: its tensors are not those that were saved")
    except AdapterFileError:
        raise
    except Exception as error:  # the library's own class is no subclass of anything nearer
        raise AdapterFileError(f"{path}: damaged or no safetensors file: {error}") from error
    with handle as file:
        yield file


def _matching_config(folder, tensors, wanted):
    """Return the configuration with the seal ``wanted``, or, if that is None, just the one that there is."""
    try:
        config, found = _read_config(_regular_file(folder, CONFIG))
        if wanted in (None, found):
            return config
        problem = f"{folder / CONFIG}: it does not belong to {TENSORS} (another save wrote it, or it was edited)"
    except AdapterFileError as error:
        problem = str(error)
    for path in sorted(folder.glob(f".{CONFIG}.*.new")) if wanted else ():
        with suppress(AdapterFileError):
            config, found = _read_config(_regular_file(folder, path.name))
            if found == wanted:
                return config
    raise AdapterFileError(problem)


def _read_config(path):
    try:
        with open(path, "rb") as file:
            text = file.read(LARGEST_CONFIG + 1)
        if len(text) > LARGEST_CONFIG:
            raise AdapterFileError(f"{path}: larger than {LARGEST_CONFIG} bytes")
        config = json.loads(text)
        if not isinstance(config, dict):
            raise AdapterFileError(f"{path}: holds no JSON object, but {type(config).__name__}")
        return config, seal(config)
    except AdapterFileError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise AdapterFileError(f"{path}: damaged or no JSON: {error}") from error
