"""From a matplotlib figure to inline SVG for a page: small, the same bytes each time, colors left to CSS.

Legend: tree is the parsed SVG; tags and attributes stand without their namespace, as HTML wants them.
"""

import hashlib
import io
import re
from contextlib import ExitStack
from xml.etree import ElementTree

import matplotlib
from matplotlib.figure import Figure

from .style import FAINT, INK, PAPER, TONES

FONTS = "system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif"
_MONO = "ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace"
_COLORS = {light: f"var(--lc-{name},{either})" for name, (light, _, either) in TONES.items()} | {
    INK: "currentColor",
    "#000000": "currentColor",  # what matplotlib draws where nobody chose a color
    FAINT: "var(--lc-faint,rgba(128,128,128,.3))",
    PAPER: "var(--lc-paper,transparent)",
}
_SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "lora_course",
    "svg.image_inline": True,
    "savefig.bbox": "standard",
    "savefig.facecolor": "auto",
}
_MARK = "\ue000"  # stands for the prefix of ids until the content that gives it is known


def svg(fig):
    r"""Return `fig` as inline SVG: a string that is well-formed XML and starts with `<svg`.

    Text stays text; the same figure gives the same bytes. The colors of the house become CSS variables with a
    fallback that is readable on white and on black, INK and black become `currentColor`, a white background
    is dropped. The only ids left are referenced ones (clip paths, markers), named by a hash of the whole
    picture, so that different pictures on one page never share one. An artist whose `gid` starts with "lc-"
    carries it as the attribute `data-lc`, for tests that read a picture. Width follows the page: there is a
    viewBox and no fixed size. Hidden from screen readers: what holds it has a label. Raises TypeError if
    `fig` is no matplotlib figure.
    """
    if not isinstance(fig, Figure):
        raise TypeError(f"fig={fig!r} must be a matplotlib Figure, for example from canvas()")
    tree = ElementTree.fromstring(_drawn(fig))
    box = tree.get("viewBox")
    width = float(box.split()[2])
    used = _references(tree)
    names = {}
    body = _cleaned(tree, used, names)
    body.attrib = {
        "viewBox": box,
        "role": "presentation",
        "aria-hidden": "true",
        "focusable": "false",
        "fill": "currentColor",
        "stroke-linejoin": "round",
        "font-family": FONTS,
        # two panels abreast where there is room, one per row on a phone; never blown up beyond easy reading
        "style": f"flex:1 1 {0.87 * width:.0f}px;min-width:0;width:100%;max-width:{1.25 * width:.0f}px;"
        "height:auto;overflow:visible",
    }
    text = ElementTree.tostring(body, encoding="unicode")
    return text.replace(_MARK, "lc" + hashlib.sha256(text.encode()).hexdigest()[:10] + "-")


def _drawn(fig):
    """SVG text as matplotlib writes it, without the white rectangles behind figure and axes."""
    buffer = io.StringIO()
    with ExitStack() as stack:
        for patch in (fig.patch, *(axes.patch for axes in fig.axes)):
            if patch.get_visible() and tuple(patch.get_facecolor()) in {(1, 1, 1, 1), (0, 0, 0, 0)}:
                patch.set_visible(False)
                stack.callback(patch.set_visible, True)
        stack.enter_context(matplotlib.rc_context(_SETTINGS))
        nobody = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        fig.savefig(buffer, format="svg", metadata=nobody)
    return re.sub(r"^.*?(?=<svg)", "", buffer.getvalue(), count=1, flags=re.S)


def _references(tree):
    """Ids that something in the tree points to, by `href` or by `url(#...)`."""
    found = set()
    for element in tree.iter():
        for key, value in element.attrib.items():
            if key.endswith("href") and value.startswith("#"):
                found.add(value[1:])
            elif "url(#" in value:
                found.update(re.findall(r"url\(#([^)]+)\)", value))
    return found


def _cleaned(element, used, names):
    """Copy of an element with bare names, compact attributes and children; empty groups are dissolved."""
    tag = element.tag.rpartition("}")[2]
    copy = ElementTree.Element(tag, _attributes(tag, element.attrib, used, names))
    copy.text = element.text if tag in ("text", "tspan") else None
    children = []
    for child in element:
        name = child.tag.rpartition("}")[2] if isinstance(child.tag, str) else "comment"
        if name in ("metadata", "style", "comment"):
            continue
        new = _cleaned(child, used, names)
        if name in ("g", "defs") and not (new.attrib and len(new)) and (name == "g" or not len(new)):
            children.extend(new)
        else:
            if tag in ("text", "tspan"):
                new.tail = child.tail
            children.append(new)
    copy.extend(children)
    return copy


def _attributes(tag, attributes, used, names):
    """Attributes as the page needs them: colors as variables, short numbers, ids only where referenced."""

    def name(old):
        return _MARK + str(names.setdefault(old, len(names)))

    new = {}
    for key, value in attributes.items():
        key = key.rpartition("}")[2]
        if key == "id":
            if value in used:
                new["id"] = name(value)
            elif value.startswith("lc-"):
                new["data-lc"] = value[3:]
        elif key == "style":
            if declarations := _declarations(value, tag):
                new["style"] = declarations
        elif key == "href" and value.startswith("#"):
            new["href"] = "#" + name(value[1:])
        elif "url(#" in value:
            new[key] = re.sub(r"url\(#([^)]+)\)", lambda m: f"url(#{name(m[1])})", value)
        elif key == "d":
            new["d"] = re.sub(r"\s*([A-Za-z])\s*", r"\1", _short(value)).strip()
        elif key == "transform" and re.match(r"rotate\(-?0(\.0*)?[ )]", value):
            continue
        elif key in ("x", "y", "points") or (key == "transform" and tag == "text"):
            new[key] = _short(value)
        else:
            new[key] = value
    return new


def _short(numbers):
    """Numbers to two decimals (cut, not rounded: a hundredth of a point cannot be seen)."""
    return re.sub(r"(\.\d\d)\d+", r"\1", numbers)


def _declarations(style, tag):
    """CSS declarations, compact, with the colors of the house as variables and a generic font."""
    new = {}
    for declaration in style.split(";"):
        key, _, value = (part.strip() for part in declaration.partition(":"))
        if key == "font":  # shorthand of older matplotlib: [style] [weight] size family
            before, size, family = re.match(r"(.*?)([\d.]+px)\s*(.*)", value).groups()
            new["font-size"] = size
            key, value = "font-family", family
            for word in before.split():
                new["font-weight" if word.isdigit() or word == "bold" else "font-style"] = word
        if key == "font-family":
            if re.match(r"\W*(mono|DejaVu Sans Mono|cm(tt|r|mi|sy))", value):
                new[key] = _MONO
        elif key:
            value = _COLORS.get(value.lower(), value)
            if (tag, key, value) == ("text", "fill", "currentColor"):
                continue  # inherited
            # white areas are the page; white words stand on something dark and stay white
            new[key] = _COLORS[PAPER] if (key, value) == ("fill", "#ffffff") and tag != "text" else value
    return ";".join(f"{key}:{value}" for key, value in new.items())
