"""Extension of Sphinx for this manual: reference pages made from the code while the manual is built.

A page says where generated text goes with a line `<!-- generated: NAME -->`, and where a figure goes with
`<!-- figure: NAME -->`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from docutils import nodes
from sphinx import addnodes
from sphinx.errors import ExtensionError

from manual.commands import command_reference
from manual.events import command_struct_reference, control_reference, event_reference, message_reference
from manual.figures import figure
from manual.mathml import visit_block, visit_inline
from manual.presets import preset_table
from manual.rest import rest_reference
from manual.settings import classification_reference, dataset_map_reference, experiment_reference, scan_reference

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

MARKER = re.compile(r"^<!-- generated: (.+) -->$", re.MULTILINE)
STAR = re.compile(r"(`[^`]*`|(?<![\w*])\*[^\s*](?:[^*]*[^\s*])?\*(?![\w*]))|\*")
"""A star, or as a group of its own what must stay: code, and words between stars."""
HIDDEN_COLON = "\ue000"
FIGURE = re.compile(r"^<!-- figure: (.+) -->$", re.MULTILINE)
GENERATORS: Mapping[str, Callable[[], str]] = {
    "settings of a scan": scan_reference,
    "settings of classification": classification_reference,
    "settings of experiments": experiment_reference,
    "dataset map": dataset_map_reference,
    "presets": preset_table,
    "commands": command_reference,
    "events": event_reference,
    "messages": message_reference,
    "control messages": control_reference,
    "commands to a run": command_struct_reference,
    "REST": rest_reference,
}
"""What a page can ask for; each returns Markdown."""


def setup(app: Sphinx) -> dict[str, bool]:
    """Add what the manual's pages use."""
    app.add_object_type("setting", "setting", "pair: %s; setting", parse_signature, objname="setting")
    app.add_object_type("event", "event", "pair: %s; event", parse_signature, objname="event")
    app.add_object_type("message", "message", "pair: %s; message", parse_signature, objname="message")
    app.add_object_type("sub", "sub", "pair: %s; command", parse_signature, objname="command")
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    app.connect("source-read", fill_in)
    app.connect("env-get-outdated", generated_pages)
    app.connect("missing-reference", exported_name)
    # before napoleon, which turns Args, Returns and Raises into fields
    app.connect("autodoc-process-docstring", plain_words, priority=400)
    app.connect("autodoc-process-docstring", colons_again, priority=600)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def parse_signature(_env: BuildEnvironment, signature: str, node: addnodes.desc_signature) -> str:
    """Show `name = default :: type`, each in its own way; return the name, under which it is found."""
    rest, _, kind = signature.partition(" :: ")
    name, separator, default = rest.partition(" = ")
    node += addnodes.desc_name("", name)
    if separator:
        node += addnodes.desc_annotation("", "", nodes.Text(f" = {default}"))
    if kind:
        node += nodes.inline("", kind.replace("`", ""), classes=["kind"])
    return name


def fill_in(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put generated text where a page asks for it."""
    wanted = MARKER.findall(source[0])
    unknown = set(wanted) - set(GENERATORS)
    if unknown:
        raise ExtensionError(f"{docname}: nothing generates {', '.join(sorted(unknown))}")
    source[0] = MARKER.sub(lambda match: GENERATORS[match[1]](), source[0])
    source[0] = FIGURE.sub(lambda match: figure(match[1]), source[0])


def plain_words(_app: Sphinx, what: str, _name: str, _object: object, _options: object, lines: list[str]) -> None:
    """Make docstrings, which are written for people, safe to read as reStructuredText.

    A star is a star, as in `(items, *shape)`, unless it encloses words; and the first line of an attribute's text is
    no type, though it may hold a colon.
    """
    lines[:] = [STAR.sub(lambda match: match[1] or r"\*", line) for line in lines]
    if what in ("attribute", "property", "data"):
        lines[:] = [line.replace(":", HIDDEN_COLON) for line in lines]


def colons_again(_app: Sphinx, _what: str, _name: str, _object: object, _options: object, lines: list[str]) -> None:
    """Put back what `plain_words` hid from napoleon."""
    lines[:] = [line.replace(HIDDEN_COLON, ":") for line in lines]


def exported_name(
    app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, text: nodes.Element
) -> nodes.Element | None:
    """Find what the buffer exports where a signature names the module in which it is written."""
    package, name = "ptychoflow.buffer.", node.get("reftarget", "").rpartition(".")[2]
    if node.get("refdomain") != "py" or not node["reftarget"].startswith(package):
        return None
    return env.domains.python_domain.resolve_xref(
        env, node["refdoc"], app.builder, node["reftype"], f"{package}{name}", node, text
    )


def generated_pages(app: Sphinx, env: BuildEnvironment, *_changes: set[str]) -> list[str]:
    """Return the pages with generated text: they are read again each time, as the code may have changed."""
    return [name for name in env.found_docs if MARKER.search(env.doc2path(name).read_text(encoding="utf-8"))]
