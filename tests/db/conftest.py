"""The tests of the store run in each of its modes."""

import pytest

_EVERY = pytest.mark.parametrize(
    "server_url", ["embedded", "external", "timescale"], indirect=True, scope="session"
)


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Let what needs a server of databases run on one with TimescaleDB, too."""
    marked = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
    if "server_url" in metafunc.fixturenames and not any("server_url" in names for names in marked):
        metafunc.definition.add_marker(_EVERY)
