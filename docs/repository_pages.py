"""For MkDocs: pages that lie outside docs/ become part of the site, and links between them and docs/ lead there."""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")
RESULTS = "benchmarks/results"
LINK = re.compile(r"(\]\()([^)\s#:]+)(?=[)#])")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the repository's pages and every table of results."""
    tables = (path.relative_to(ROOT).as_posix() for path in sorted((ROOT / RESULTS).rglob("*.md")))
    for path in (*PAGES, *tables):
        files.append(File.generated(config, _site_path(path), abs_src_path=str(ROOT / path)))
    for file in files:
        if file.src_uri.startswith(f"{RESULTS}/"):
            file.inclusion = file.inclusion.NOT_IN_NAV
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links as the site has them: the repository's are relative to where a page lies there."""
    lies = Path(str(page.file.abs_src_path)).parent

    def moved(link: re.Match[str]) -> str:
        target = lies / link[2]
        if target.is_dir():
            target /= "README.md"
        path = posixpath.relpath(posixpath.normpath(target), ROOT)
        return link[1] + posixpath.relpath(_site_path(path), posixpath.dirname(page.file.src_uri))

    return LINK.sub(moved, markdown)


def _site_path(path: str) -> str:
    """Where the site has a file of the repository: `docs/` is its root, and README.md is the index of its folder."""
    path = path.removeprefix("docs/")
    return posixpath.join(posixpath.dirname(path), "index.md") if posixpath.basename(path) == "README.md" else path
