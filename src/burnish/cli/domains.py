"""`burnish domains`: prompt sets by name, of packaged domains, of the user's own, and of style axes."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import cyclopts
from cyclopts import Parameter

from burnish.cli import console
from burnish.cli.inputs import PROMPT_FILES, ROWS, Json, Overwrite
from burnish.errors import InputError

if TYPE_CHECKING:
    from burnish.prompts.axes import Axis
    from burnish.prompts.domains import Domain

app = cyclopts.App(name="domains", help="List, show, add, export and lint prompt sets.")


@app.command(name="list")
def list_(*, json: Json = False) -> None:
    """List the packaged domains, your own, then the style axes."""
    from burnish.prompts.axes import axis_names, load_axis
    from burnish.prompts.domains import domain_names, load_domain

    domains = [load_domain(name) for name in domain_names()]
    axes = [load_axis(name) for name in axis_names()]
    if json:
        rows = [{"kind": "domain", **_about(domain)} for domain in domains]
        console.as_json(rows + [{"kind": "axis", **_about(axis), "poles": axis.poles} for axis in axes])
        return
    for domain in domains:
        console.data(f"{domain.name:26} {domain.language}  {domain.summary}")
    console.data("\nStyle axes:")
    for axis in axes:
        console.data(f"{axis.name:26} {axis.language}  {axis.summary}")
    console.hint("burnish domains show creative-writing")


@app.command
def show(name: str, *, json: Json = False) -> None:
    """Show a domain (expert system prompt, some prompts, a reference answer) or a style axis (poles, system prompts)."""
    from burnish.prompts.axes import axis_names, load_axis
    from burnish.prompts.domains import load_domain

    if name in axis_names():
        _show_axis(load_axis(name), json=json)
        return
    domain = load_domain(name)
    if json:
        console.as_json(
            {
                "kind": "domain",
                **_about(domain),
                "expert_system_prompt": domain.expert_system_prompt,
                "measures": domain.measures,
                "enhance": domain.enhance.texts,
                "held_out": domain.held_out.texts,
                "references": len(domain.references_tune) + len(domain.references_report),
            }
        )
        return
    console.data(
        f"{domain.title} ({domain.name}, {domain.language}): {domain.summary}\n\nExpert: {domain.expert_system_prompt}\n"
    )
    console.data(
        f"{len(domain.enhance)} prompts, {len(domain.held_out)} held out, {len(domain.references_tune)} + "
        f"{len(domain.references_report)} reference answers. For example:"
    )
    for text in domain.enhance.texts[:5]:
        console.data(f"  {text}")
    for sample in domain.references_tune.prompts[:1]:
        console.data(f"\nA reference answer to '{sample.text}':\n{sample.answer}")
    console.hint(f"burnish domains export {name} -o FOLDER")


def _show_axis(axis: "Axis", *, json: bool) -> None:
    if json:
        console.as_json(
            {
                "kind": "axis",
                **_about(axis),
                "poles": axis.poles,
                "pairs": axis.pairs,
                "held_out_pairs": axis.held_out_pairs,
                "prompts": axis.positive.texts,
                "held_out": axis.held_positive.texts,
            }
        )
        return
    console.data(f"{axis.title} ({axis.name}, {axis.language}): {axis.summary}\n")
    for pair in axis.pairs:
        for pole, words in zip(axis.poles, pair, strict=True):
            console.data(f"{pole:>10}: {words}")
    console.data(
        f"\n{len(axis.positive)} prompts under each of the two, {len(axis.held_positive)} held out under "
        f"{len(axis.held_out_pairs)} other pairs. For example:"
    )
    for text in axis.positive.texts[:5]:
        console.data(f"  {text}")


def _about(entry: "Domain | Axis") -> dict[str, str]:
    """What the descriptions of a domain and of an axis have in common."""
    return {"name": entry.name, "title": entry.title, "language": entry.language, "summary": entry.summary}


@app.command
def add(
    name: str,
    *,
    enhance: Annotated[Path, Parameter(help=f"file of specialised prompts ({PROMPT_FILES}), 16 or more")],
    references: Annotated[
        Path | None,
        Parameter(help=f"prompts with good answers ({ROWS}), 16 or more: the effect is measured on them"),
    ] = None,
    title: Annotated[str | None, Parameter(help="how it is called in words; by default the name")] = None,
    language: Annotated[str, Parameter(help="language of its prompts (en or ko)")] = "en",
    expert: Annotated[
        str | None, Parameter(help="system prompt of an expert in it, for self-made good answers")
    ] = None,
    overwrite: Annotated[bool, Parameter(help="replace your own domain of this name", negative=())] = False,
) -> None:
    """Keep a speciality of your own by name, to use wherever a packaged domain can be: --domain, mixes, profiles, the server."""
    from burnish.artifacts.files import written
    from burnish.prompts import read_prompts
    from burnish.prompts.axes import axis_names
    from burnish.prompts.domains import packaged_names
    from burnish.prompts.domains.own import domain_files, own_folder

    folder = own_folder(name)
    if name in (*packaged_names(), *axis_names()):
        raise InputError(f"'{name}' is a packaged name. Pass another.")
    files = domain_files(
        name,
        read_prompts(enhance),
        title=title,
        language=language,
        references=read_prompts(references, answers=True) if references else None,
        expert=expert,
    )
    with written(folder, overwrite=overwrite) as partial:
        partial.mkdir()
        for file, text in files.items():
            (partial / file).write_text(text, encoding="utf-8")
    console.data(f"Added: {name} ({folder})")
    console.hint(f"burnish find MODEL --domain {name} -o {name}.safetensors")


@app.command
def remove(name: str) -> None:
    """Remove a domain of your own."""
    import shutil

    from burnish.prompts.domains.own import own_folder, own_names

    if name not in own_names():
        raise InputError(
            f"You have no domain '{name}' of your own (there are: {', '.join(own_names()) or 'none'}). Check the name."
        )
    shutil.rmtree(own_folder(name))
    console.data(f"Removed: {name}")
    console.hint("burnish domains list")


@app.command
def export(
    name: str,
    *,
    out: Annotated[Path, Parameter(alias="-o", help="folder to write")],
    overwrite: Overwrite = False,
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

    findings = check(read_prompts(enhance), read_prompts(normal) if normal else None)
    console.result({"findings": findings}, findings, json=json)
    if not json:
        console.say(f"{len(findings)} findings." if findings else "No findings.")
    return 1 if findings else 0
