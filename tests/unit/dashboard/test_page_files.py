"""The files of the page."""

import re

from cospan.dashboard.analysis.learnt import LEARNT_COLUMNS
from cospan.dashboard.page_files import MODULES, page_file
from cospan.dashboard.payloads import AGENT_COLUMNS
from cospan.dashboard.series import COLUMNS


def test_every_module_comes_after_those_that_it_imports() -> None:
    seen: set[str] = set()
    for name in MODULES:
        content = page_file(name)
        assert content is not None
        imported = re.findall(r'from "\./(\w+\.js)"', content.decode())
        assert set(imported) <= seen, name
        seen.add(name)


def test_the_page_names_nobody_else() -> None:
    for name in ("index.html", "login.html", "style.css", *MODULES):
        content = (page_file(name) or b"").decode().replace("http://www.w3.org/2000/svg", "")
        assert "://" not in content, name
        assert not re.search(r"\bstyle=|\bon\w+=\"", content), f"{name} has what the policy forbids"
    assert page_file("../dashboard.py") is None


def listed(module: str, name: str) -> list[str]:
    """The texts of a constant list in a module of the page."""
    found = re.search(rf"const {name} = \[(.*?)\]", (page_file(module) or b"").decode(), re.DOTALL)
    assert found is not None
    return re.findall(r'"(\w+)"', found[1])


def test_the_page_knows_the_columns_that_it_is_sent() -> None:
    assert listed("main.js", "AGENT") == list(AGENT_COLUMNS)
    assert listed("main.js", "LEARNT") == list(LEARNT_COLUMNS)
    assert set(listed("compare.js", "COLUMNS")) <= set(COLUMNS)
    drawn = re.findall(r'column: "(\w+)"', (page_file("charts.js") or b"").decode())
    assert len(drawn) > 10
    assert set(drawn) <= set(COLUMNS)


def test_modules_can_be_joined_into_one_script() -> None:
    """The report makes a function of each: only named imports without another name, and exports by name."""
    for name in MODULES:
        text = (page_file(name) or b"").decode()
        for line in re.findall(r"^import .*$", text, re.MULTILINE):
            assert re.fullmatch(r'import \{ [\w, ]+ \} from "\./\w+\.js";', line), f"{name}: {line}"
            assert " as " not in line
        assert not re.search(r"^export (?!(?:const|class|function|async function) \w)", text, re.MULTILINE), name
        assert len(text.splitlines()) <= 450, name
