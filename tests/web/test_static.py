from pathlib import Path

from forgereg.web import static
from forgereg.web.static import Static
from tests.client import ask
from tests.registry import Served


def test_every_file_is_served_for_ever(running: Served) -> None:
    """A browser fetches styles and scripts once, and again when they have changed."""
    files = Path(static.__file__).parent / "static"
    for file in files.iterdir():
        answer = ask(running.site, "GET", Static().address(file.name))
        assert answer.status == 200
        assert answer.body == file.read_bytes()
        assert "immutable" in answer.headers["cache-control"]
        known = [("If-None-Match", answer.headers["etag"])]
        again = ask(running.site, "GET", f"/-/static/{file.name}", known)
        assert (again.status, again.headers["cache-control"]) == (304, "no-cache")


def test_scripts_that_are_imported(running: Served) -> None:
    """What a script imports from beside it is kept for ever as well."""
    home, live = map(Static().address, ("home.js", "live.js"))
    assert b'from "./live.js"' in ask(running.site, "GET", home).body
    assert live.rpartition("/")[0] == home.rpartition("/")[0]


def test_files_of_an_older_registry(running: Served) -> None:
    """A page that was open while the registry was renewed gets the files of now."""
    answer = ask(running.site, "GET", "/-/static/0123456789abcdef/forge.css")
    assert (answer.status, answer["Cache-Control"]) == (200, "no-cache")


def test_other_files_are_not(running: Served) -> None:
    """Nothing but the files of the pages is served below their path."""
    for name in ("nothing.js", "..%2Fpages.py", "../pages.py", "", "%0A", "a/%0A"):
        answer = ask(running.site, "GET", f"/-/static/{name}")
        assert answer.status == 404
        assert answer["Content-Type"] == "text/plain; charset=utf-8"
    assert ask(running.site, "POST", "/-/static/forge.css").status == 404
