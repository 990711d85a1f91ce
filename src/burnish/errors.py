"""Everything Burnish raises on purpose. Each message says what, why and what to do next.

BurnishError                      exit  HTTP
├── InputError                      2    400   something in the call is wrong
│   ├── PromptFileError             2    400   a prompt file cannot be read as prompts
│   ├── LayerError                  2    400   a layer that does not exist
│   ├── ModelNotFoundError          2    404   no such folder, file, packaged name or hub id
│   └── MissingExtraError           2    400   a library of an extra is not installed
├── ModelError                      3    422   the model cannot be used this way
│   ├── NoProjectionError           3    422   no attention output projection was found
│   ├── QuantisedModelError         3    422   weights that cannot be edited in place
│   ├── WrongModelError             3    409   made for another model, or already enhanced
│   └── ProcessError                3    422   another process of the same job failed
├── NoDirectionError                4    422   the prompts do not differ inside this model
├── OutputError                     5    409   the output cannot be written
│   ├── OutputExistsError           5    409
│   └── DiskFullError               5    507
├── VerificationError               6    409   two checkpoints differ in a way that was not asked for
├── DownloadError                   7    502   a packaged model could not be fetched or is not the one pinned
├── HubError                        9    502   the hub cannot be reached, or refuses
├── JudgeError                      8    502   the judge model cannot be reached or does not answer as asked
└── RefusedError                    1    own   the server does not do what a request asks
"""


class BurnishWarning(UserWarning):
    """Something the caller should know but that does not stop the work."""


class ContextWarning(UserWarning):
    """A sequence is longer than what the model was made for."""


class BurnishError(Exception):
    """The root of the tree. `exit_code` is the command's, `http_status` the server's."""

    exit_code = 1
    http_status = 500


class InputError(BurnishError):
    exit_code = 2
    http_status = 400


class PromptFileError(InputError):
    pass


class LayerError(InputError):
    pass


class ModelNotFoundError(InputError):
    http_status = 404


class MissingExtraError(InputError):
    pass


class ModelError(BurnishError):
    exit_code = 3
    http_status = 422


class NoProjectionError(ModelError):
    pass


class QuantisedModelError(ModelError):
    pass


class WrongModelError(ModelError):
    http_status = 409


class ProcessError(ModelError):
    pass


class NoDirectionError(BurnishError):
    exit_code = 4
    http_status = 422


class OutputError(BurnishError):
    exit_code = 5
    http_status = 409


class OutputExistsError(OutputError):
    pass


class DiskFullError(OutputError):
    http_status = 507


class VerificationError(BurnishError):
    exit_code = 6
    http_status = 409


class DownloadError(BurnishError):
    exit_code = 7
    http_status = 502


class JudgeError(BurnishError):
    exit_code = 8
    http_status = 502


class HubError(BurnishError):
    exit_code = 9
    http_status = 502


class RefusedError(BurnishError):
    """What the server answers instead of doing as a request asks, in OpenAI's terms."""

    def __init__(
        self, message: str, *, status: int, code: str, param: str | None = None, retry_after: int | None = None
    ) -> None:
        """status: of HTTP; code: for programs; param: the field to blame; retry_after: seconds."""
        super().__init__(message)
        self.http_status = status
        self.code = code
        self.param = param
        self.retry_after = retry_after
