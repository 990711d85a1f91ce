"""Libraries that only some commands need, as extras of the installation, and the error where one is missing."""

from importlib.util import find_spec

from burnish.errors import MissingExtraError

# The modules of each extra in pyproject.toml.
EXTRAS = {
    "serve": ("fastapi", "uvicorn", "prometheus_client"),
    "report": ("altair", "vl_convert"),
    "train": ("trl", "peft", "datasets", "pyarrow"),
    "eval": ("lm_eval",),
}


def require(extra: str, purpose: str) -> None:
    """Looks for an extra's modules without importing them. To be called before a model is loaded.

    Args:
        extra: a key of `EXTRAS`.
        purpose: what needs it, the subject of the error's sentence.

    Raises:
        MissingExtraError: a module is not installed.
    """
    for module in EXTRAS[extra]:
        if find_spec(module) is None:
            raise MissingExtraError(
                f"{purpose} needs {module}, which is not installed. Run `pip install 'burnish[{extra}]'`."
            )
