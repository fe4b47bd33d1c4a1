"""Texts that would be more than text where they are not shown as text: a page's scripts, Markdown, a terminal's commands."""

from html.parser import HTMLParser

from markdown_it import MarkdownIt

HACK = "window.hacked=1"
TEXTS = (
    f"<script>{HACK}</script>", f"</script><script>{HACK}</script>", f'<img src=x onerror="{HACK}">',
    f'"><svg onload="{HACK}">', f"[a](javascript:{HACK})", f"![a](javascript:{HACK})", f"<javascript:{HACK}>",
    f"[a]: javascript:{HACK}", f'<a href="javascript:{HACK}">a</a>', "<!-- hidden -->", "&lt;b&gt; &#60;i> &amp;", r"\<b>\ \`a`",
    "`code`", "``` fence", "~~~ fence", "**b** *i* __b__ _i_ ___ a_b_c", "~~gone~~ ~ kept", "# head", "head #",
    "- item", "+ item", "* item", "1. item", "2) item", "---", "===", "> quotation", "| a | b |", "a || b", "$x$ $$y$$",
    "x < y", "<", "   indented", "[ ] task",
)  # fmt: skip
MORE = "line\nafter\r\n# line\ttab \x1b[31mred\x1b[0m \x07 \u202eback \x00"
NAMES = (f"<img src=x onerror={HACK}>", f"[a](javascript:{HACK})_$x$_`|", f'"><svg onload={HACK}> \x1b[31m\nred')  # of files


class _Read(HTMLParser):
    """The tags of a page, the addresses that it leads to, and its text."""

    def __init__(self):
        super().__init__()
        self.tags, self.addresses, self.text = [], [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("href", "src")]
        assert not [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data):
        self.text += data

    def handle_comment(self, data):
        raise AssertionError(f"a comment, {data!r}")


def rendered(markdown):
    """What Markdown with HTML in it becomes: (tags, addresses, text)."""
    read = _Read()
    read.feed(MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(markdown))
    read.close()
    return read.tags, read.addresses, read.text
