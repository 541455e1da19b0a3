"""What `make` decides to do, without doing it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.db.embedded.processes import CHECKOUT
from tests.web.serving import environment


def planned(folder: Path) -> str:
    """Return what `make run` would do in *folder*, where everything was installed once."""
    shutil.copy(CHECKOUT / "Makefile", folder)
    for name in ("requirements/run.txt", ".venv/run.stamp", "frontend/dist/graphiql.html"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return subprocess.run(
        ("make", "--dry-run", "run"),
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_what_is_installed_is_not_installed_again(tmp_path):
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to(shutil.which("true"))

    plan = planned(tmp_path)

    assert "Installing" not in plan
    assert "-m web serve" in plan


def test_all_is_installed_anew_once_the_python_it_was_for_is_gone(tmp_path):
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to(tmp_path / "an upgraded python")

    plan = planned(tmp_path)

    assert "-m venv --clear" in plan
    assert "Installing Python packages" in plan
