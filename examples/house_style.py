"""From a folder of texts to questions and good answers: each paragraph is the answer to a question for one that begins like it.

python house_style.py FOLDER OUT writes OUT/questions.txt and OUT/references.jsonl.
"""

import json
import re
import sys
from pathlib import Path

SHORTEST, LONGEST = 25, 120  # words of a paragraph
FEWEST = 32
MARKUP = re.compile(r"^(\s*([|#>*`-]|\d+\.)|!\[)|```")


def paragraphs(folder: Path) -> list[str]:
    """Prose of all .txt and .md files: no headings, lists, tables or code."""
    files = sorted(p for p in folder.rglob("*") if p.suffix in (".txt", ".md"))
    blocks = (block for file in files for block in re.split(r"\n\s*\n", file.read_text(encoding="utf-8")))
    plain = (" ".join(block.split()) for block in blocks if not MARKUP.search(block))
    return list(dict.fromkeys(text for text in plain if SHORTEST <= len(text.split()) <= LONGEST))


def main(folder: Path, out: Path) -> None:
    texts = paragraphs(folder)
    if len(texts) < FEWEST:
        sys.exit(
            f"{folder} holds {len(texts)} paragraphs of {SHORTEST} to {LONGEST} words; at least {FEWEST} are needed."
        )
    questions = [f'Write a paragraph that begins with "{" ".join(text.split()[:6])}".' for text in texts]
    out.mkdir(parents=True, exist_ok=True)
    (out / "questions.txt").write_text("\n".join(questions) + "\n", encoding="utf-8")
    rows = [json.dumps({"prompt": q, "answer": a}, ensure_ascii=False) for q, a in zip(questions, texts, strict=True)]
    (out / "references.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    print(f"{len(texts)} paragraphs of {folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
