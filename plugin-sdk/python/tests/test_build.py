"""The build's own part: what it finds out about a plugin, and what it says when there is none."""

import tempfile
import unittest
from pathlib import Path

from bulkhead_plugin._build import BuildError, entry, failure, roles_in, said, source_of


class Build(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def roles(self, text: str) -> list[str]:
        file = self.folder / "app.py"
        file.write_text(text, encoding="utf-8")
        return roles_in(file)

    def test_decorators_say_what_is_exported(self) -> None:
        self.assertEqual(self.roles("@handler\ndef f(event): pass"), ["handler"])
        self.assertEqual(self.roles("@bulkhead_plugin.transformer\ndef f(event): pass"), ["transformer"])
        both = "@transformer\ndef f(event): pass\n@other\n@handler\ndef g(event): pass"
        self.assertEqual(self.roles(both), ["handler", "transformer"])

    def test_a_file_without_any_is_no_plugin(self) -> None:
        for text in ["", "@deed\ndef f(event): pass", "handler = 1"]:
            with self.assertRaisesRegex(BuildError, "app.py has neither a `@handler` nor a `@transformer`"):
                self.roles(text)

    def test_a_mistake_is_shown_with_its_place(self) -> None:
        with self.assertRaisesRegex(BuildError, r"app\.py:2:\d+: "):
            self.roles("\ndef f(:\n")
        with self.assertRaisesRegex(BuildError, r"app\.py:2: a handler is no async function"):
            self.roles("@handler\nasync def f(event): pass")

    def test_a_module_is_found_as_a_file_or_a_package(self) -> None:
        (self.folder / "one.py").touch()
        (self.folder / "two").mkdir()
        (self.folder / "two" / "__init__.py").touch()
        self.assertEqual(source_of("one", [self.folder]).name, "one.py")
        self.assertEqual(source_of("two", [Path("/none"), self.folder]).name, "__init__.py")
        with self.assertRaisesRegex(BuildError, "there is no module `three`"):
            source_of("three", [self.folder])

    def test_the_sdk_is_loaded_before_the_plugin(self) -> None:
        text = entry("app", ["handler", "transformer"])
        self.assertLess(text.index("bulkhead_plugin"), text.index("import app"))
        self.assertIn("import Handler, Transformer, ready", text)

    def test_of_the_tool_s_errors_the_plugin_s_traceback_is_shown_once(self) -> None:
        errors = "Traceback (most recent call last):\n  tool\nAssertionError: Traceback\n  app.py\nNameError: x\n\n\nCaused by:\n  NameError: x\n"
        self.assertEqual(said(errors), "Traceback\n  app.py\nNameError: x")

    def test_a_plugin_that_throws_is_told_from_a_tool_that_fails(self) -> None:
        thrown = failure("Traceback (most recent call last):\nAssertionError: Traceback\n  app.py\nNameError: x\n")
        self.assertEqual(str(thrown), "the plugin throws while it is loaded: Traceback\n  app.py\nNameError: x")
        self.assertIn("runs once, when the plugin is built", thrown.hint)
        failed = failure("no such folder\n")
        self.assertEqual((str(failed), failed.hint), ("componentize-py could not build it:\nno such folder", ""))


if __name__ == "__main__":
    unittest.main()
