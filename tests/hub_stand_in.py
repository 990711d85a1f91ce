"""A stand-in of the hub: the part of its HTTP interface that huggingface_hub calls, in a thread on the loopback.

Repositories with branches and commits, visibility, tokens, small files inside the commit and large ones sent before it. Faults are set by
a test: a status for a request, uploads that are cut off, and an answer that quotes the token it was sent.
"""

import base64
import hashlib
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_SentinelOfTheTests"  # may read and write everything
LARGE = 4096  # bytes from which a file is sent before the commit
ID = r"(?P<repo>[\w.-]+/[\w.-]+)"


@dataclass
class Repository:
    """branches: commit by name; commits: files by commit, all of them at each."""

    private: bool
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    large: set[str] = field(default_factory=set)

    def commit(self, branch: str, files: dict[str, bytes], message: str) -> str:
        new = {**self.commits.get(self.branches.get(branch, ""), {}), **files}
        oid = hashlib.sha1(f"{len(self.commits)}{branch}{message}".encode()).hexdigest()
        self.commits[oid], self.branches[branch] = new, oid
        self.messages.append(message)
        return oid

    def files(self, revision: str = "main") -> dict[str, bytes]:
        return self.commits[self.branches.get(revision, revision)]


@dataclass
class HubStandIn:
    """What it holds, what it was asked (method and path), and the faults that a test sets."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    created: list[dict[str, Any]] = field(default_factory=list)  # the bodies of requests to create a repository
    stored: dict[str, bytes] = field(default_factory=dict)  # large files by their SHA-256
    faults: dict[str, int] = field(default_factory=dict)  # status by the end of "METHOD path"
    cut_uploads: bool = False  # close the connection in the middle of a large file
    quote_token: bool = False  # repeat the Authorization header in what is said of an error
    endpoint: str = ""

    def add(self, repo: str, files: dict[str, bytes], *, private: bool = False) -> Repository:
        """A repository that is there already."""
        self.repositories[repo] = made = Repository(private)
        made.commit("main", files, "initial commit")
        return made

    def requests(self, method: str) -> list[str]:
        return [path for asked, path in self.asked if asked == method]


@contextmanager
def hub_stand_in() -> Iterator[HubStandIn]:
    """Serves a new stand-in until the end of the block."""
    state = HubStandIn()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"state": state}))
    server.daemon_threads = True
    state.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _RefusedError(Exception):
    def __init__(self, status: int, code: str, words: str) -> None:
        super().__init__(words)
        self.status, self.code = status, code


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: HubStandIn

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        asked = f"{self.command} {path}"
        self.state.asked.append((self.command, path))
        if self.command == "PUT" and self.state.cut_uploads:
            self.rfile.read(100)
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            for end, status in self.state.faults.items():
                if asked.endswith(end):
                    raise _RefusedError(status, "", "as the test asks")
            for method, pattern, act in ROUTES:
                if self.command in method and (matched := re.fullmatch(pattern, path)):
                    return act(self, body, **matched.groupdict())
            raise _RefusedError(404, "", f"no such route: {asked}")
        except _RefusedError as refused:
            words = f"{refused} {self.headers.get('Authorization')}" if self.state.quote_token else str(refused)
            headers = {"X-Error-Message": words, **({"X-Error-Code": refused.code} if refused.code else {})}
            self._send({"error": words}, status=refused.status, headers=headers)

    def _send(self, value: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _known(self) -> bool:
        """Whether the request comes with the token. Another token is refused."""
        sent = self.headers.get("Authorization")
        if sent not in (None, f"Bearer {TOKEN}"):
            raise _RefusedError(401, "", "Invalid credentials in Authorization header")
        return sent is not None

    def _writer(self) -> None:
        if not self._known():
            raise _RefusedError(401, "", "Log in first")

    def _repository(self, repo: str) -> Repository:
        known = self._known()
        repository = self.state.repositories.get(repo)
        if repository is None or (repository.private and not known):
            raise _RefusedError(404 if known else 401, "RepoNotFound", "Repository not found")
        return repository

    def _commit(self, repo: str, revision: str) -> tuple[Repository, str]:
        repository = self._repository(repo)
        oid = repository.branches.get(revision, revision)
        if oid not in repository.commits:
            raise _RefusedError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repository, oid

    def create(self, body: bytes) -> None:
        self._writer()
        wanted = json.loads(body)
        self.state.created.append(wanted)
        repo = f"{wanted.get('organization') or 'someone'}/{wanted['name']}"
        if repo in self.state.repositories:
            raise _RefusedError(409, "", "You already created this model repo")
        private = wanted.get("visibility") == "private" or bool(wanted.get("private"))
        self.state.add(repo, {".gitattributes": b""}, private=private)
        self._send({"url": f"{self.state.endpoint}/{repo}", "id": repo})

    def info(self, _: bytes, repo: str, revision: str | None = None) -> None:
        repository, oid = self._commit(repo, revision or "main")
        names = [{"rfilename": name} for name in repository.commits[oid]]
        self._send({"id": repo, "sha": oid, "private": repository.private, "siblings": names})

    def tree(self, _: bytes, repo: str, revision: str) -> None:
        repository, oid = self._commit(repo, revision)
        self._send([_entry(repository, name, data) for name, data in repository.commits[oid].items()])

    def branch(self, _: bytes, repo: str, name: str) -> None:
        self._writer()
        repository = self._repository(repo)
        if name in repository.branches:
            raise _RefusedError(409, "", "Reference already exists")
        repository.branches[name] = repository.branches["main"]
        self._send({})

    def preupload(self, body: bytes, repo: str, revision: str) -> None:
        self._writer()
        self._commit(repo, revision)
        files = [
            {"path": f["path"], "uploadMode": "lfs" if f["size"] >= LARGE else "regular", "shouldIgnore": False}
            for f in json.loads(body)["files"]
        ]
        self._send({"files": files})

    def batch(self, body: bytes, repo: str) -> None:
        self._writer()
        self._repository(repo)
        objects = [
            {**o, "actions": {"upload": {"href": f"{self.state.endpoint}/stored/{o['oid']}"}}}
            for o in json.loads(body)["objects"]
        ]
        self._send({"transfer": "basic", "objects": objects})

    def store(self, body: bytes, oid: str) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            raise _RefusedError(400, "", "The content is not what was announced")
        self.state.stored[oid] = body
        self._send({})

    def commit(self, body: bytes, repo: str, revision: str) -> None:
        self._writer()
        repository, _ = self._commit(repo, revision)
        header, *operations = [json.loads(line) for line in body.splitlines()]
        files = {}
        for operation in operations:
            value = operation["value"]
            if operation["key"] == "lfsFile":
                files[value["path"]] = self.state.stored[value["oid"]]
                repository.large.add(value["path"])
            else:
                assert operation["key"] == "file"
                files[value["path"]] = base64.b64decode(value["content"])
        oid = repository.commit(revision, files, header["value"]["summary"])
        self._send({"commitUrl": f"{self.state.endpoint}/{repo}/commit/{oid}", "commitOid": oid})

    def resolve(self, _: bytes, repo: str, revision: str, name: str) -> None:
        repository, oid = self._commit(repo, revision)
        data = repository.commits[oid].get(name)
        if data is None:
            raise _RefusedError(404, "EntryNotFound", "Entry not found")
        self._send(data, headers={"X-Repo-Commit": oid, "ETag": f'"{_etag(repository, name, data)}"'})

    def validate(self, body: bytes) -> None:
        """The hub accepts a base model only by its id."""
        base = re.search(r"^base_model: (.*)$", json.loads(body)["content"], re.MULTILINE)
        errors = [] if base is None or re.fullmatch(ID, base[1]) else [{"message": '"base_model" is not a valid id'}]
        self._send({"errors": errors, "warnings": []}, status=400 if errors else 200)


def _entry(repository: Repository, name: str, data: bytes) -> dict[str, Any]:
    entry = {"type": "file", "path": name, "size": len(data), "oid": _git_hash(data)}
    if name in repository.large:
        return {**entry, "lfs": {"oid": _etag(repository, name, data), "size": len(data), "pointerSize": 130}}
    return entry


def _etag(repository: Repository, name: str, data: bytes) -> str:
    return hashlib.sha256(data).hexdigest() if name in repository.large else _git_hash(data)


def _git_hash(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


ROUTES: list[tuple[tuple[str, ...], str, Callable[..., None]]] = [
    (("POST",), r"/api/repos/create", _Handler.create),
    (("POST",), r"/api/validate-yaml", _Handler.validate),
    (("GET",), rf"/api/models/{ID}", _Handler.info),
    (("GET",), rf"/api/models/{ID}/revision/(?P<revision>.+)", _Handler.info),
    (("GET",), rf"/api/models/{ID}/tree/(?P<revision>.+)", _Handler.tree),
    (("POST",), rf"/api/models/{ID}/branch/(?P<name>.+)", _Handler.branch),
    (("POST",), rf"/api/models/{ID}/preupload/(?P<revision>.+)", _Handler.preupload),
    (("POST",), rf"/api/models/{ID}/commit/(?P<revision>.+)", _Handler.commit),
    (("POST",), rf"/{ID}\.git/info/lfs/objects/batch", _Handler.batch),
    (("PUT",), r"/stored/(?P<oid>[0-9a-f]{64})", _Handler.store),
    (("GET", "HEAD"), rf"/{ID}/resolve/(?P<revision>[^/]+)/(?P<name>.+)", _Handler.resolve),
]
