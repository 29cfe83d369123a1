"""The check of docs/glossary.md finds each forbidden word that is planted, and leaves the allowed uses alone."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_glossary", ROOT / "docs/scripts/check_glossary.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


checker = _load()
PAGE = (ROOT / checker.GLOSSARY).read_text(encoding="utf-8")
RULES = checker.rules_of(PAGE)


def _tree(folder: Path, files: dict[str, str]) -> Path:
    for name, text in {checker.GLOSSARY: PAGE, **files}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.word)
def test_check_finds_each_forbidden_word_that_is_planted(tmp_path: Path, rule: object) -> None:
    word, term = rule.word, rule.term  # type: ignore[attr-defined]
    files = {
        "docs/page.md": f"# A page\n\nThe {word}, in prose.\n",
        "server/module.py": f"x = 1\nlast_{word} = {word.capitalize()}OfRun({word.upper()}_SIZE)\n",
        "proto/a.proto": f"// One {word}.\n",
        "run.toml": f"[[{word}]]\n",
    }
    words, phrases = checker.check(_tree(tmp_path, files), files)
    assert [str(use) for use in words] == [
        f"docs/page.md:3: {word} → use {term}",
        f"proto/a.proto:1: {word} → use {term}",
        f"run.toml:1: {word} → use {term}",
        *[f"server/module.py:2: {word} → use {term}"] * 3,
    ]
    assert not phrases


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule.allowed], ids=lambda rule: rule.word)
def test_uses_in_leaves_allowed_uses_alone(rule: object) -> None:
    for allowed in rule.allowed:  # type: ignore[attr-defined]
        use = allowed.replace(".*", "-")
        broken = use.replace(" ", "\n# ")
        text = f"# The {use} of it,\n# and {broken}.\n"
        assert not list(checker.uses_in("a.py", text, [rule]))


def test_uses_in_takes_whole_words_alone() -> None:
    text = "rollout, scroll, Rollouts, unrolled, enrollment, stroll_on, patiences, journalist\n"
    assert not list(checker.uses_in("a.md", text, RULES))


def test_uses_in_counts_phrases_over_line_breaks() -> None:
    text = "".join(f"# It is {phrase.replace(' ', chr(10) + '# ').capitalize()}.\n" for phrase in checker.PHRASES)
    assert [use.word for use in checker.uses_in("a.py", text, RULES)] == list(checker.PHRASES)


def test_texts_leaves_out_the_glossary_the_changelog_and_generated_files(tmp_path: Path) -> None:
    text = f"{RULES[0].word}:\n"
    files = dict.fromkeys(("CHANGELOG.md", "proto/a_pb2.py", "figure.svg", "Makefile"), text)
    words, _ = checker.check(_tree(tmp_path, files), [*files, checker.GLOSSARY])
    assert [use.path for use in words] == ["Makefile"]


def test_rules_of_refuses_a_word_in_two_rows() -> None:
    with pytest.raises(ValueError, match="twice"):
        checker.rules_of("| a | | b | `word` |\n| c | | d | `word` |\n")
