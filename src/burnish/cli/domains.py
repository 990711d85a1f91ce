"""`burnish domains`: the packaged prompt sets."""

from pathlib import Path
from typing import Annotated

import cyclopts
from cyclopts import Parameter

from burnish.cli import console
from burnish.cli.inputs import Json

app = cyclopts.App(name="domains", help="List, show, export and lint prompt sets.")


@app.command(name="list")
def list_(*, json: Json = False) -> None:
    """List the packaged domains."""
    from burnish.prompts.domains import domain_names, load_domain

    found = [load_domain(name) for name in domain_names()]
    if json:
        console.as_json(
            [{"name": d.name, "title": d.title, "language": d.language, "summary": d.summary} for d in found]
        )
        return
    for domain in found:
        console.data(f"{domain.name:26} {domain.language}  {domain.summary}")
    console.hint("burnish domains show creative-writing")


@app.command
def show(name: str, *, json: Json = False) -> None:
    """Show a domain: its expert system prompt, some prompts and a reference answer."""
    from burnish.prompts.domains import load_domain

    domain = load_domain(name)
    if json:
        console.as_json(
            {
                "name": domain.name,
                "title": domain.title,
                "language": domain.language,
                "summary": domain.summary,
                "expert_system_prompt": domain.expert_system_prompt,
                "measures": domain.measures,
                "enhance": domain.enhance.texts,
                "held_out": domain.held_out.texts,
                "references": len(domain.references_tune) + len(domain.references_report),
            }
        )
        return
    sample = domain.references_tune.prompts[0]
    console.data(
        f"{domain.title} ({domain.name}, {domain.language}): {domain.summary}\n\nExpert: {domain.expert_system_prompt}\n"
    )
    console.data(
        f"{len(domain.enhance)} prompts, {len(domain.held_out)} held out, {len(domain.references_tune)} + "
        f"{len(domain.references_report)} reference answers. For example:"
    )
    for text in domain.enhance.texts[:5]:
        console.data(f"  {text}")
    console.data(f"\nA reference answer to '{sample.text}':\n{sample.answer}")
    console.hint(f"burnish domains export {name} -o FOLDER")


@app.command
def export(
    name: str,
    *,
    out: Annotated[Path, Parameter(alias="-o", help="folder to write")],
    overwrite: Annotated[bool, Parameter(help="replace the folder", negative=())] = False,
) -> None:
    """Write a domain's files, with the general set of its language, to a folder to edit and use."""
    import json as json_module

    from burnish.artifacts.files import written
    from burnish.prompts.domains import load_domain, load_general

    domain = load_domain(name)
    general = load_general(domain.language)
    with written(out, overwrite=overwrite) as folder:
        folder.mkdir()
        for file, prompts in (
            ("enhance.txt", domain.enhance),
            ("held-out.txt", domain.held_out),
            ("normal.txt", general.prompts),
            ("normal-held-out.txt", general.held_out),
        ):
            (folder / file).write_text("\n".join(prompts.texts) + "\n", encoding="utf-8")
        (folder / "expert.txt").write_text(domain.expert_system_prompt + "\n", encoding="utf-8")
        for file, prompts in (
            ("references.jsonl", domain.references_tune),
            ("references-report.jsonl", domain.references_report),
        ):
            rows = [
                json_module.dumps({"prompt": p.text, "answer": p.answer}, ensure_ascii=False) for p in prompts.prompts
            ]
            (folder / file).write_text("\n".join(rows) + "\n", encoding="utf-8")
    console.data(f"Written: {out}")
    console.hint(f"burnish enhance smollm2-135m --enhance {out}/enhance.txt --normal {out}/normal.txt -o OUT")


@app.command
def lint(enhance: Path, normal: Path | None = None, *, json: Json = False) -> int:
    """Check prompt files: duplicates, overlap, length and form mismatch, language mix, too few. Exit 1 with findings."""
    from burnish.prompts import read_prompts
    from burnish.prompts.lint import lint as check

    found = check(read_prompts(enhance), read_prompts(normal) if normal else None)
    if json:
        console.as_json({"findings": found})
    else:
        for line in found:
            console.data(line)
        console.say(f"{len(found)} findings." if found else "No findings.")
    return 1 if found else 0
