"""How the documentation is built: python -m sphinx -W -n -b html docs docs/_build/html"""

from __future__ import annotations

import os
import re
import sys
from importlib import metadata
from pathlib import Path

from sphinx.ext.napoleon import Config, GoogleDocstring

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import _layer_pages  # noqa: E402 - found only now

# The tutorials train on small arrays, where a second thread costs more than it gives.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Their shell cells find the command of this environment, also when it is not activated.
os.environ["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])

project = "gnnlab"
author = "The gnnlab authors"
copyright = "2026, the gnnlab authors"
version = release = metadata.version("gnnlab")

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "myst_nb",
]
exclude_patterns = ["_build", "results", "jupyter_execute"]
nitpicky = True
default_role = "literal"

html_theme = "furo"
html_title = f"gnnlab {release}"
html_copy_source = False

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
math_number_all = False

# Only pages that are notebooks (docs/tutorials) run; a cell that fails stops the build.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_execution_timeout = 300
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_inherit_docstrings = False
autodoc_default_options = {"members": True}
python_use_unqualified_type_names = True

# Types of other projects: there is no inventory to look them up in without a network.
nitpick_ignore_regex = [
    (r"py:.*", r"(torch|np|numpy|nn|collections|pathlib|typing|sphinx|os|types)\..*"),
    (r"py:.*", r"(list\[)?dict\[str"),
    (r"py:.*", r"gnnlab\.(config\.T|ops\.plan\.Fact|hetero\.Fact|layers\.drop_edge\.Given)"),
    # Names of inner modules, which stand in signatures but have no page.
    (
        r"py:.*",
        r"gnnlab\.(data|layers|ops|bench|tasks\.dispatch)\._\w+\.\w+|Setting|Case|Call|Kernels|"
        r"CompileError|Parameter|Disjunctive",
    ),
    (r"py:.*", r"concurrent\.futures\..*"),
    (
        r"py:.*",
        r"(Any|Callable|ClassVar|Hashable|Iterable|Iterator|Literal|Mapping|Path|Sequence|Self|"
        r"Tensor|TextIO|ndarray|Generator|Optimizer|device|dtype|Module|NoneType|Figure)",
    ),
]

_CODE = re.compile(r"(``.+?``|`[^`]+`|\\\*|\\_)")
_DISPLAY = re.compile(r"^( *)\$\$(.+?)\$\$", re.DOTALL | re.MULTILINE)


# Types stand in the signatures, so no section begins with one: "a: b" is plain text in them.
_NAPOLEON = Config(napoleon_custom_sections=["Shapes", "Returns", "Yields"])


def _as_rest(app, what, name, obj, options, lines: list[str]) -> None:
    """Docstrings are Google style with $$equations$$; this makes reStructuredText of them."""

    def block(match: re.Match[str]) -> str:
        indent, body = match[1], " ".join(match[2].split())
        return f"{indent}.. math::\n\n{indent}   {body}\n"

    if what == "class" and getattr(obj, "picture", ()):
        picture = f".. image:: /images/layers/{obj.__name__}.svg"
        lines[1:1] = ["", picture, f"   :alt: {', '.join(obj.picture)}"]
    text = _DISPLAY.sub(block, "\n".join(lines))
    text = re.sub(r"\$([^$\n]+)\$", r":math:`\1`", text)
    result = []
    for line in text.split("\n"):
        if line.lstrip().startswith((">>>", "..")) or "\\" in line:
            result.append(line)
            continue
        parts = _CODE.split(line)
        parts[::2] = [re.sub(r"\*", r"\\*", p) for p in parts[::2]]
        parts[::2] = [re.sub(r"(?<=\w)_(?=[\s.,;:)]|$)", r"\\_", p) for p in parts[::2]]
        result.append("".join(parts))
    lines[:] = GoogleDocstring(result, _NAPOLEON, app, "function", name, obj, options).lines()


def _write_layer_pages(app) -> None:
    _layer_pages.write(HERE)


def setup(app) -> None:
    app.connect("builder-inited", _write_layer_pages)
    app.connect("autodoc-process-docstring", _as_rest)
