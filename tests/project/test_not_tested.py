"""What a machine could not test is said at the end of a run, with the command that would bring it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BROWSER = Path("tests") / "analysis" / "report" / "test_templates.py"


def test_without_a_browser_the_last_lines_say_what_was_not_tested(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(BROWSER)],
        cwd=ROOT,
        env={"PATH": str(tmp_path), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    said = next(line for line in done.stdout.splitlines() if line.startswith("not tested: "))
    assert said.startswith("not tested: the report in a browser (")
    assert said.endswith(" tests skipped); this brings it: apt-get install -y chromium")


def test_ci_ends_where_there_is_no_browser() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")

    block = script.partition("if ! command -v chromium >/dev/null; then\n")[2].partition("fi\n")[0]
    assert "exit 1" in block
