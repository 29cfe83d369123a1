"""The files of the page."""

import re

from cospan.dashboard.page_files import MODULES, page_file


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
