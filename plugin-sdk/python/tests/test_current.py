"""What is kept here as a copy is what it is a copy of."""

import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from bulkhead_plugin import _build

REPOSITORY = Path(__file__).parents[3]


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and "__pycache__" not in file.parts
    }


class Current(unittest.TestCase):
    def test_the_contract_is_the_repository_s(self) -> None:
        ours = (_build.PACKAGE / "wit" / "plugin.wit").read_bytes()
        self.assertEqual(ours, (REPOSITORY / "wit" / "plugin.wit").read_bytes())

    def test_the_bindings_are_what_componentize_py_writes(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            room = Path(folder)
            _build.write_world(room, list(_build.ROLES))
            command = [sys.executable, "-c", _build.TOOL, *_build.world(room), "bindings", str(room / "bindings")]
            subprocess.run(command, check=True)
            written = files(room / "bindings")
        kept = files(_build.PACKAGE / "bindings")
        self.assertTrue(kept)
        # What it writes for asynchronous functions is not kept: the contract has none.
        self.assertEqual(kept, {name: text for name, text in written.items() if name in kept})
        modules = {name for name in written if name.startswith("bulkhead_wit/")}
        self.assertEqual(modules, {name for name in kept if name.startswith("bulkhead_wit/")})

    def test_the_pin_is_the_one_of_the_package(self) -> None:
        text = (REPOSITORY / "plugin-sdk" / "python" / "pyproject.toml").read_text()
        self.assertIn(f'"componentize-py =={_build.COMPONENTIZE_PY}"', text)

    def test_a_new_plugin_asks_for_the_same_tool(self) -> None:
        template = REPOSITORY / "host" / "server" / "templates" / "plugin" / "python"
        self.assertIn(f"componentize-py=={_build.COMPONENTIZE_PY}", (template / "requirements.txt").read_text())


if __name__ == "__main__":
    unittest.main()
