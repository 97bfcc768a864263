from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from agentful.core import conflicts
from agentful.core.conflicts import check_glob, common_path, globs_overlap, matches, outside, scopes_overlap
from agentful.errors import PlanError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    Oracle = Callable[[list[tuple[str, str]]], list[bool]]

# --- globs and paths to try ----------------------------------------------------------------------

# A small alphabet, so that things meet often.
SETS = ["[ab]", "[!a]", "[^b]", "[a-b]", "[!a-b]", "[]a]", "[a-]", "[[:alpha:]]", "[![:digit:]b]", "[+-9]"]
CHARS = st.sampled_from(["a", "b", "a", "b", "c", ".", "-", "?", "\\*", "\\[", *SETS])
NAMES = st.lists(st.one_of(CHARS, CHARS, st.just("*")), min_size=1, max_size=5).map("".join)
SEGMENTS = st.one_of(NAMES, NAMES, NAMES, st.just("**"), st.just("*"))


@st.composite
def globs(draw: st.DrawFn, *, segments: st.SearchStrategy[str] = SEGMENTS) -> str:
    middle = "/".join(draw(st.lists(segments, min_size=1, max_size=4)))
    pattern = draw(st.sampled_from(["", "", "/"])) + middle + draw(st.sampled_from(["", "", "/"]))
    try:
        return check_glob(pattern)
    except PlanError:
        assume(False)
        raise


# git takes two stars within a name for "any number of folders" when only literals stand before them,
# against its own documentation; what git does there is not asked.
GIT_GLOBS = globs(segments=SEGMENTS.map(lambda name: name if name == "**" else re.sub(r"\*\*+", "*", name)))

PATH_NAMES = st.text("abc.-*[]5", min_size=1, max_size=4).filter(lambda name: name not in {".", ".."})
PATHS = st.lists(PATH_NAMES, min_size=1, max_size=4).map("/".join)


@pytest.fixture(scope="module")
def ignored_by_git(tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    """For pairs of a glob and a path, whether git ignores the path when its only pattern is the glob."""
    repository = tmp_path_factory.mktemp("oracle")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(repository),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CEILING_DIRECTORIES": str(repository.parent),
    }

    def git(*argv: str, given: bytes = b"", fine: Iterable[int] = (0,)) -> bytes:
        done = subprocess.run(
            ["git", *argv], cwd=repository, env=environment, input=given, capture_output=True, check=False
        )
        assert done.returncode in fine, done.stderr
        return done.stdout

    git("init", "--quiet")
    # Each glob gets a folder of its own, so that one call answers for all.
    folders: dict[str, Path] = {}

    def ask(pairs: list[tuple[str, str]]) -> list[bool]:
        for pattern, _ in pairs:
            if pattern not in folders:
                folder = folders[pattern] = repository / f"d{len(folders)}"
                folder.mkdir()
                (folder / ".gitignore").write_text(as_git(pattern) + "\n", encoding="utf-8")
        paths = "".join(f"{folders[pattern].name}/{path}\0" for pattern, path in pairs)
        options = ("--no-index", "--stdin", "-z", "-v", "-n")
        said = git("check-ignore", *options, given=paths.encode(), fine=(0, 1)).decode().split("\0")
        # Four fields for each path: source, line, pattern, path. The first three are empty for no match.
        return [bool(source) for source in said[0:-1:4]]

    return ask


def as_git(pattern: str) -> str:
    """The same for git, which has to be told that what has no slash and no wildcard is at the root."""
    plain = re.sub(r"\\.", "", pattern)
    return pattern if "/" in pattern.rstrip("/") or re.search(r"[*?\[]", plain) else f"/{pattern}"


# --- what a glob covers --------------------------------------------------------------------------

TABLE = [
    # A name without a slash and without a wildcard is at the root, with what is below it.
    ("a.py", "a.py", True),
    ("a.py", "x/y/a.py", False),
    ("a.py", "a.py/x", True),
    ("a.py", "ba.py", False),
    ("a.py", "aXpy", False),
    ("*.py", "x/y.py", True),
    ("*.py", "x/y.pyc", False),
    ("*.py", ".py", True),
    ("docs/", "docs/x", True),
    ("docs/", "x/docs/y", False),
    ("**/docs/", "x/docs/y", True),
    ("doc?/", "x/docs/y", True),
    ("docs/", "docs", False),
    ("docs/", "x/docs", False),
    # A slash ties it to the root.
    ("/a", "a", True),
    ("/a", "a/b", True),
    ("/a", "x/a", False),
    ("/*.md", "README.md", True),
    ("/*.md", "docs/README.md", False),
    ("src/api", "src/api", True),
    ("src/api", "src/api/x.py", True),
    ("src/api", "src/apix", False),
    ("src/api", "x/src/api", False),
    ("src/api/", "src/api/x.py", True),
    ("src/api/", "src/api", False),
    ("src/api/**", "src/api/x.py", True),
    ("src/api/**", "src/api/x/y.py", True),
    ("src/api/**", "src/api", False),
    ("/src/api", "src/api/x", True),
    # Stars, one and two.
    ("*", "a", True),
    ("*", "a/b", True),
    ("**", "a", True),
    ("**", "a/b/c", True),
    ("/**", "a/b", True),
    ("**/", "a", False),
    ("**/", "a/b", True),
    ("src/*.py", "src/a.py", True),
    ("src/*.py", "src/x/a.py", False),
    ("src/*/a", "src/x/a", True),
    ("src/*/a", "src/x/y/a", False),
    ("src/*/a", "src/a", False),
    ("src/*", "src/x/y", True),
    ("src/*", "src", False),
    ("**/a", "a", True),
    ("**/a", "x/y/a", True),
    ("**/a/b", "a/b", True),
    ("**/a/b", "x/a/b/c", True),
    ("**/a/b", "x/a/c/b", False),
    ("a/**/b", "a/b", True),
    ("a/**/b", "a/x/y/b", True),
    ("a/**/b", "ab", False),
    ("a/**/b", "x/a/b", False),
    ("a/**/**/b", "a/b", True),
    ("a/***/b", "a/x/y/b", True),
    ("a/**/", "a/b", False),
    ("a/**/", "a/b/c", True),
    ("a/**/*", "a", False),
    ("a/**/*", "a/b", True),
    ("**/a/**/b/**", "x/a/y/b/z", True),
    ("**/a/**/b/**", "x/a/y/b", False),
    ("a*b*c", "abc", True),
    ("a*b*c", "a-b-b-c", True),
    ("a*b*c", "a-c-b", False),
    ("*a*a", "a", False),
    ("x**y", "xaby", True),
    ("x**y", "x/y", False),
    # One character.
    ("a?c", "abc", True),
    ("a?c", "ac", False),
    ("a?c", "a/c", False),
    ("x/a?c", "x/a/c", False),
    ("[ab]c", "bc", True),
    ("[ab]c", "cc", False),
    ("[!ab]c", "cc", True),
    ("[^ab]c", "ac", False),
    ("x/[!a]b", "x//b", False),
    ("[a-c]", "b", True),
    ("[a-c]", "d", False),
    ("[a-]", "-", True),
    ("[-a]", "-", True),
    ("a[--0]", "a.", True),
    ("a[--0]", "a-", True),
    ("[]a]", "]", True),
    ("[!]a]", "]", False),
    ("[!]a]", "b", True),
    ("[]-a]", "^", True),
    ("[a-c-e]", "d", False),
    ("[a-c-e]", "-", True),
    ("[\\]]", "]", True),
    ("[\\!a]", "!", True),
    ("[a\\-z]", "b", False),
    ("[a\\-z]", "-", True),
    ("[[:digit:]]", "7", True),
    ("[[:digit:]]", "a", False),
    ("[![:upper:]]", "a", True),
    ("[[:alpha:][:digit:]_]", "_", True),
    ("[[:punct:]]", "-", True),
    ("[[:space:]]", " ", True),
    ("[[:xdigit:]]", "g", False),
    ("[[:]", "[", True),
    ("[[:]", ":", True),
    ("[[a]", "[", True),
    # Escapes, and what is no wildcard.
    ("\\*", "*", True),
    ("\\*", "a", False),
    ("a\\?", "a?", True),
    ("\\[id\\]/page.tsx", "[id]/page.tsx", True),
    ("\\!a", "!a", True),
    ("\\#a", "#a", True),
    ("a\\ ", "a ", True),
    ("\\\\", "\\", True),
    ("a b", "a b", True),
    ("a+(b).$", "a+(b).$", True),
    ("{a}", "{a}", True),
    ("naïve/*", "naïve/日本", True),
    ("*", "a\nb", True),
    ("a*b", "a\nb", True),
    ("A", "a", False),
]


@pytest.mark.parametrize(("pattern", "path", "expected"), TABLE)
def test_matches(pattern: str, path: str, expected: bool) -> None:
    assert matches(pattern, path) is expected
    assert matches(check_glob(pattern), path) is expected


def test_the_table_is_what_git_does(ignored_by_git: Oracle) -> None:
    pairs = [(pattern, path) for pattern, path, _ in TABLE if "//" not in path]
    said = ignored_by_git(pairs)
    assert [pair for pair, verdict in zip(pairs, said, strict=True) if matches(*pair) is not verdict] == []


@given(st.lists(GIT_GLOBS, min_size=8, max_size=8), st.lists(PATHS, min_size=12, max_size=12))
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
def test_matches_is_what_git_does(ignored_by_git: Oracle, patterns: list[str], paths: list[str]) -> None:
    pairs = [(pattern, path) for pattern in patterns for path in paths]
    said = ignored_by_git(pairs)
    assert [pair for pair, verdict in zip(pairs, said, strict=True) if matches(*pair) is not verdict] == []


def test_a_character_is_not_a_byte() -> None:
    assert matches("?.md", "é.md")
    assert matches("[à-ü].md", "é.md")
    assert not matches("??.md", "é.md")


def test_no_path_is_covered_by_no_glob() -> None:
    assert not any(matches(pattern, "") for pattern in ("*", "**", "/*", "/**"))


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("*a" * 400 + "b", "a" * 4000),
        ("**/a/" * 180 + "b", "a/" * 1500 + "a"),
        ("**/a*a*a*ac/" * 60 + "b", ("a" * 100 + "/") * 100 + "a"),
        ("*" + "?" * 900 + "b", "a" * 1500),
    ],
)
def test_no_glob_makes_matching_explode(pattern: str, path: str) -> None:
    assert not matches(pattern, path)


def test_outside_is_what_no_glob_of_the_scope_covers() -> None:
    paths = ["src/api/x.py", "README.md", "src/ui/x.ts", "docs/README.md"]
    assert outside(("src/api/**", "/*.md"), paths) == ("src/ui/x.ts", "docs/README.md")
    assert outside(("**",), paths) == ()
    assert outside((), paths) == tuple(paths)
    assert outside(None, paths) == ()
    assert outside(("src",), []) == ()


# --- which globs are taken -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("src/api/**", "src/api/**"),
        ("./src/api", "src/api"),
        ("././src//api/", "src/api/"),
        ("./x", "/x"),
        ("./*.py", "/*.py"),
        (".//x/", "/x/"),
        ("//x", "/x"),
        ("/src/api", "/src/api"),
        ("a/./b/.", "a/b/"),
        ("a/***/b", "a/**/b"),
        ("****", "**"),
        (".github", ".github"),
        (".git*", ".git*"),
        (".gitignore", ".gitignore"),
        ("a..b", "a..b"),
        ("...", "..."),
        ("a~", "a~"),
        ("/~", "/~"),
        ("a!", "a!"),
        ("#a", "#a"),
        ("c:x", "c:x"),
        ("{{cookiecutter.name}}/x", "{{cookiecutter.name}}/x"),
        ("\\{a,b}", "\\{a,b}"),
        ("a/ b", "a/ b"),
        ("\\ a\\ ", "\\ a\\ "),
    ],
)
def test_check_glob_gives_it_back_as_best_written(pattern: str, expected: str) -> None:
    assert check_glob(pattern) == expected
    assert check_glob(expected) == expected


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("", "it is empty; '**' is the whole repository"),
        (".", "it names no path"),
        ("./", "it is empty"),
        ("/", "it names no path"),
        ("..", "'..' leaves the repository"),
        ("../x", "'..' leaves the repository"),
        ("a/../b", "'..' leaves the repository"),
        ("[.]./x", "'..' leaves the repository"),
        ("\\.", "'.' names no path"),
        ("~", "'~' is no place in the repository"),
        ("~/x", "'~' is no place in the repository"),
        ("./~me", "'~' is no place in the repository"),
        ("C:", "a drive is no place"),
        ("c:/x", "a drive is no place"),
        ("C:\\x", "a drive is no place"),
        ("src\\api", "'\\a' escapes nothing; folders are separated by '/'"),
        ("[\\d]", "'\\d' escapes nothing"),
        ("a\x00", "the control character '\\x00'"),
        ("a\nb", "the control character '\\n'"),
        ("a\udcff", "the control character"),
        ("!a", "no '!' negation"),
        ("./!a", "no '!' negation"),
        (".git", "nothing inside .git"),
        (".git/hooks/**", "nothing inside .git"),
        ("/.GIT/x", "nothing inside .git"),
        ("**/.git/config", "nothing inside .git"),
        ("[.]git", "nothing inside .git"),
        ("a[", "a '[' has no ']'"),
        ("a[]", "a '[' has no ']'"),
        ("a[b/c]", "a '[' has no ']' before the next '/'"),
        ("[[:alpha:]", "a '[' has no ']'"),
        ("[a-", "a '[' has no ']'"),
        ("[c-a]", "the range 'c-a' is the wrong way round"),
        ("[[:letter:]]", "there is no class '[:letter:]'"),
        ("[![:cntrl:] -\U0010ffff]", "a '[...]' in it matches no character"),
        ("a\\", "a backslash has nothing after it"),
        ("a\\/b", "a backslash has nothing after it"),
        ("[a\\", "a backslash has nothing after it"),
        ("src/*.{js,ts}", "braces are not expanded"),
        (" a", "it has white space around it"),
        ("a ", "it has white space around it"),
        ("a\\\\ ", "it has white space around it"),
        ("a" * 1001, "it has 1001 characters; the most is 1000"),
    ],
)
def test_check_glob_says_what_is_wrong(pattern: str, message: str) -> None:
    for call in (check_glob, lambda glob: matches(glob, "a"), lambda glob: globs_overlap("a", glob)):
        with pytest.raises(PlanError, match=re.escape(message)) as caught:
            call(pattern)
        assert len(str(caught.value)) < 400
        assert caught.value.__cause__ is None


@given(st.text(st.sampled_from("ab*?[]!^-\\/.~{},: \n\x00é"), max_size=12))
@settings(max_examples=300, deadline=None)
def test_any_text_is_a_glob_or_a_plan_error(text: str) -> None:
    try:
        glob = check_glob(text)
    except PlanError:
        return
    assert check_glob(glob) == glob
    path = common_path(glob, text)
    assert path is not None
    assert matches(glob, path)
    assert matches(text, path)


# --- which globs overlap -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("src/**", "src/api/*.py", True),
        ("*.py", "docs/**", True),
        ("a/*.py", "a/*.js", False),
        ("src/a*", "src/*b", True),
        ("src/api", "src/apix", False),
        ("src/api", "src/api/", True),
        ("src/api/**", "src/api", True),
        ("/a", "/b", False),
        ("/a", "a", True),
        ("/a/b", "**/b", True),
        ("*.py", "*.js", True),  # through a folder a.py: what matches a folder covers what is below
        ("src/*.py", "src/x/*.py", False),
        ("src/*.py", "src/x.py/*.js", True),
        ("src/*.py", "lib/**", False),
        ("src/*/a", "src/x/b", False),
        ("**/a/b", "a/c", True),
        ("/x/**/y", "/z/**", False),
        ("x/[a-m]*", "x/[n-z]*", False),
        ("x/[a-n]*", "x/[n-z]*", True),
        ("x/[!a]", "x/[a]", False),
        ("x/[!a]", "x/[!b]", True),
        ("x/?", "x/??", False),
        ("x/*?", "x/?", True),
        ("x/ab", "x/a*b", True),
        ("x/a", "x/a*a", False),
        ("x/aba", "x/*b*b*", False),
        ("x/abcb", "x/*b*b*", True),
        ("x/aab", "x/*ab*b", False),
        ("x/abc", "x/*ab*bc*", False),
        ("x/abbc", "x/*ab*bc*", True),
        ("x/?[ab]?", "x/*b*", True),
        ("x/[ab][ab]", "x/*c*", False),
        ("x/*a", "x/*b", False),
        ("x/a*", "x/b*", False),
        ("x/a*c*e", "x/a*d*e", True),
        ("x/\\*", "x/\\?", False),
        ("x/\\*", "x/*", True),
        ("x/é", "x/[à-ü]", True),
        ("A", "a", False),
        ("README.md", "docs", False),
        ("**/A", "**/a", True),  # each below the other; at one place they do not
        ("/A", "/a", False),
    ],
)
def test_globs_overlap(a: str, b: str, expected: bool) -> None:
    assert globs_overlap(a, b) is expected
    assert globs_overlap(b, a) is expected


@given(globs(), globs(), st.lists(PATHS, max_size=10))
@example("x/*ab*b", "x/aab", [])
@example("/.*", "/*.", [])
@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
def test_overlap_is_whether_a_path_matches_both(a: str, b: str, paths: list[str]) -> None:
    path = common_path(a, b)
    assert path == common_path(b, a)
    assert globs_overlap(a, b) is (path is not None)
    if path is not None:
        assert matches(a, path)
        assert matches(b, path)
        assert path.split("/") == [name for name in path.split("/") if name]
    else:
        assert not any(matches(a, path) and matches(b, path) for path in paths)


TOKENS = st.one_of(st.sampled_from(["a", "b", "?", "[ab]", "[!a]", "[!b]"]), st.just("*"))


@given(st.lists(TOKENS, min_size=1, max_size=6), st.lists(TOKENS, min_size=1, max_size=6))
@settings(max_examples=600, deadline=None)
def test_names_overlap_as_a_search_through_both_says(a: list[str], b: list[str]) -> None:
    chars = {"a": "a", "b": "b", "?": "abc", "[ab]": "ab", "[!a]": "bc", "[!b]": "ac", "*": "abc"}

    def steps(glob: list[str], at: int, char: str) -> set[int]:
        """The places in a glob after one more character, from any place that a star lets skip to."""
        found: set[int] = set()
        for place in range(at, len(glob)):
            if char in chars[glob[place]]:
                found.add(place if glob[place] == "*" else place + 1)
            if glob[place] != "*":
                break
        return found

    def ended(glob: list[str], at: int) -> bool:
        return all(token == "*" for token in glob[at:])

    seen = {(0, 0)}
    todo = [(0, 0)]
    meet = False
    while todo and not meet:
        i, j = todo.pop()
        for char in "abc":
            for pair in {(x, y) for x in steps(a, i, char) for y in steps(b, j, char)}:
                meet = meet or (ended(a, pair[0]) and ended(b, pair[1]))
                if pair not in seen:
                    seen.add(pair)
                    todo.append(pair)
    assert globs_overlap("/" + "".join(a), "/" + "".join(b)) is meet


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("x/" + "*a" * 498, "x/" + "*b" * 498, False),
        ("x/" + "*a" * 498 + "*", "x/" + "*b" * 498, True),
        ("x/" + "a" * 998, "x/" + "*a" * 498, True),
        ("x/" + "a" * 998, "x/" + "*a" * 400 + "b*", False),
        ("x/" + "?" * 998, "x/" + "*?" * 498, True),
        ("**/a/" * 190 + "x", "**/a/" * 190 + "y", True),
    ],
)
def test_no_glob_makes_overlap_explode(a: str, b: str, expected: bool) -> None:
    assert globs_overlap(a, b) is expected


@pytest.mark.parametrize(
    ("a", "b", "path"),
    [
        ("**", "**", "a"),
        ("**", "src/a.py", "src/a.py"),
        ("src/**", "src/api/*.py", "src/api/a.py"),
        ("src/a*", "src/*b", "src/aab"),
        ("src/api", "src/api/", "src/api/a"),
        ("*.py", "*.js", "a.js/a.py"),
        ("/.*", "/*.", ".a."),
    ],
)
def test_the_common_path_is_one_that_a_person_would_name(a: str, b: str, path: str) -> None:
    assert common_path(a, b) == path


def test_scopes_overlap_names_the_first_pair() -> None:
    assert scopes_overlap(("docs/**", "src/**"), ("lib/x", "src/api/*.py", "docs/a.md")) == (
        "docs/**",
        "docs/a.md",
    )
    assert scopes_overlap(("src/**",), ("lib/x", "src/api/*.py")) == ("src/**", "src/api/*.py")
    assert scopes_overlap(("src/a/**",), ("src/b/**",)) is None
    assert scopes_overlap(("**",), None) is None
    assert scopes_overlap(None, ("**",)) is None
    assert scopes_overlap((), ("**",)) is None
    assert scopes_overlap(("**",), ("**",)) == ("**", "**")


def test_scopes_are_compared_once() -> None:
    scopes = ("some/folder/**",), ("some/other/**",)
    scopes_overlap(*scopes)
    before = conflicts._scopes_overlap.cache_info()
    scopes_overlap(*scopes)
    after = conflicts._scopes_overlap.cache_info()
    assert (after.hits, after.misses) == (before.hits + 1, before.misses)
