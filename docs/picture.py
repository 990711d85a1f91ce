"""Draws docs/side-by-side.svg: what `make demo` prints, from a real run of its model.

python docs/picture.py
"""

import json
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

PICTURE = Path(__file__).with_name("side-by-side.svg")
BURNISH = str(Path(sys.executable).with_name("burnish"))
QUESTIONS = ("Describe an old lighthouse at dusk.", "What is photosynthesis?")
WIDTH = 110
FRAME = """<svg xmlns="http://www.w3.org/2000/svg" class="rich-terminal" viewBox="0 0 {width} {height}">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: {char_height}px; line-height: {line_height}px; }}
{styles}
</style>
<rect width="{width}" height="{height}" rx="8" fill="#1e1e24"/>
<g transform="translate({terminal_x}, 20)">{backgrounds}<g class="{unique_id}-matrix">{matrix}</g></g>
</svg>
"""


def main() -> None:
    asked = [part for question in QUESTIONS for part in ("--prompt", question)]
    command = [
        BURNISH,
        "chat",
        "smollm2-135m",
        "--with",
        "demo/model",
        "--compare",
        "--tokens",
        "48",
        "--dtype",
        "float32",
        "--json",
        *asked,
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    console = Console(record=True, width=WIDTH, file=sys.stderr, force_terminal=True)
    for row in json.loads(done.stdout):
        table = Table(title=row["prompt"], title_justify="left", title_style="bold", expand=True)
        table.add_column("base", ratio=1)
        table.add_column("enhanced", ratio=1)
        table.add_row(row["base"].strip(), row["enhanced"].strip())
        console.print(table)
    PICTURE.write_text(console.export_svg(code_format=FRAME, unique_id="burnish"), encoding="utf-8")


if __name__ == "__main__":
    main()
