"""The build: finds out what the plugin exports, and has componentize-py freeze an interpreter with it.

Nothing of the plugin runs outside of the component: its source is only read for the decorators.
"""

import ast
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

#: The componentize-py that this SDK was tested with; another may bind differently.
COMPONENTIZE_PY = "0.25.1"

#: What a decorator makes of a function, and how the contract's interface and the class for it are called.
ROLES = {"handler": "Handler", "transformer": "Transformer"}

PACKAGE = Path(__file__).parent

#: componentize-py has no `__main__`; the script that pip writes for it may be on no path.
TOOL = "from componentize_py import script; script()"


#: What to do about code that does not run at the build.
AT_THE_BUILD = (
    "What stands outside of functions runs once, when the plugin is built, and then there is no host and no system."
)


class BuildError(Exception):
    """The plugin was not built; the text says why, and the hint what to do about it."""

    def __init__(self, text: str, hint: str = "") -> None:
        super().__init__(text)
        self.hint = hint


def build(module: str, output: Path, paths: Sequence[Path] = ()) -> None:
    """Makes a component of the module in this folder, or in one of `paths`."""
    check_tool()
    folders = [Path.cwd(), *(path.resolve() for path in paths)]
    roles = roles_in(source_of(module, folders))
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bulkhead-plugin-") as room:
        write_world(Path(room), roles)
        (Path(room) / "bulkhead_entry.py").write_text(entry(module, roles))
        search = [Path(room), PACKAGE.parent, *folders]
        # Written beside its place, then moved there: who watches the output never sees a half of it.
        unfinished = output.with_name(output.name + ".unfinished")
        try:
            componentize(Path(room), search, unfinished)
            unfinished.replace(output)
        finally:
            unfinished.unlink(missing_ok=True)


def check_tool() -> None:
    """Only the version that the SDK was tested with."""
    hint = f"Run `pip install componentize-py=={COMPONENTIZE_PY}`."
    try:
        found = version("componentize-py")
    except PackageNotFoundError:
        raise BuildError("componentize-py is not installed", hint) from None
    if found != COMPONENTIZE_PY:
        raise BuildError(f"componentize-py is {found}, and this SDK builds with {COMPONENTIZE_PY}", hint)


def source_of(module: str, folders: Sequence[Path]) -> Path:
    """The module's file."""
    place = Path(*module.split("."))
    for folder in folders:
        for file in (folder / place.with_suffix(".py"), folder / place / "__init__.py"):
            if file.is_file():
                return file
    raise BuildError(f"there is no module `{module}` in {', '.join(map(str, folders))}")


def roles_in(file: Path) -> list[str]:
    """What the module's functions are decorated as."""
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"), str(file))
    except SyntaxError as error:
        raise BuildError(f"{file}:{error.lineno}:{error.offset}: {error.msg}") from error
    found = set()
    for function in ast.walk(tree):
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for decorator in function.decorator_list:
                name = decorator.attr if isinstance(decorator, ast.Attribute) else getattr(decorator, "id", None)
                if name in ROLES and isinstance(function, ast.AsyncFunctionDef):
                    raise BuildError(f"{file}:{function.lineno}: a {name} is no async function: there is no loop")
                if name in ROLES:
                    found.add(name)
    if not found:
        raise BuildError(
            f"{file.name} has neither a `@handler` nor a `@transformer`",
            "@handler\ndef handle(event):\n    …",
        )
    return sorted(found)


def write_world(room: Path, roles: Sequence[str]) -> None:
    """A world with exactly what the plugin has, beside the contract."""
    contract = room / "wit" / "deps" / "plugin.wit"
    contract.parent.mkdir(parents=True)
    contract.write_bytes((PACKAGE / "wit" / "plugin.wit").read_bytes())
    exports = "".join(f"  export bulkhead:plugin/{role}@0.1.0;\n" for role in roles)
    text = f"package bulkhead:build;\nworld plugin {{\n  include bulkhead:plugin/imports@0.1.0;\n{exports}}}\n"
    (room / "wit" / "world.wit").write_text(text)


def world(room: Path) -> list[str]:
    """The tool's arguments for it."""
    return ["--wit-path", str(room / "wit"), "--world", "plugin", "--world-module", "bulkhead_wit"]


def entry(module: str, roles: Sequence[str]) -> str:
    """The module that componentize-py looks for the classes in. The SDK comes first: it readies Python's modules."""
    classes = ", ".join(ROLES[role] for role in roles)
    names = ", ".join(map(repr, roles))
    return (
        # The interpreter inside has these folders before it, and has no business in them.
        "import sys\nsys.dont_write_bytecode = True\n"
        f"from bulkhead_plugin._entry import {classes}, ready\nimport {module}\nready({names})\n"
    )


def componentize(room: Path, paths: Sequence[Path], output: Path) -> None:
    """Runs componentize-py."""
    command = [sys.executable, "-c", TOOL, *world(room)]
    command += ["componentize", "bulkhead_entry", "--stub-wasi", "--output", str(output)]
    for path in paths:
        command += ["--python-path", str(path)]
    # Packages of the plugin are those of the environment that builds it.
    environment = {**os.environ, "RUST_BACKTRACE": "0", "VIRTUAL_ENV": sys.prefix}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise failure(done.stderr)


def failure(errors: str) -> BuildError:
    """Whether the plugin or the tool failed."""
    if "AssertionError: " in errors:
        return BuildError(f"the plugin throws while it is loaded: {said(errors)}", AT_THE_BUILD)
    return BuildError(f"componentize-py could not build it:\n{said(errors)}")


def said(errors: str) -> str:
    """What a person needs of the tool's errors: the plugin's traceback once, without that of the tool."""
    text = errors.rpartition("AssertionError: ")[2]
    for repetition in ("\nCaused by:", "\nStack backtrace:"):
        text = text.partition(repetition)[0]
    return text.strip()
