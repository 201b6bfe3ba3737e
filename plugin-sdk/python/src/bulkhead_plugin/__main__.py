"""`python -m bulkhead_plugin build`: makes a component of a plugin."""

import argparse
import os
import sys
from pathlib import Path

from ._build import BuildError, build
from ._install import interpreter, start_again


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bulkhead_plugin", description="Builds plugins.")
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("build", help="make a component of the plugin in this folder")
    command.add_argument("module", nargs="?", default="app", help="the module with the decorated functions (app)")
    command.add_argument(
        "-o", "--output", type=Path, default=Path("build/plugin.wasm"), help="the component (build/plugin.wasm)"
    )
    command.add_argument(
        "-p",
        "--path",
        type=Path,
        action="append",
        default=[],
        help="a further folder with modules of the plugin; may be repeated",
    )
    command.add_argument(
        "--install", action="store_true", help="fill .venv from requirements.txt first, and build with what is in there"
    )
    arguments = parser.parse_args()
    try:
        if arguments.install:
            without = [argument for argument in sys.argv[1:] if argument != "--install"]
            return start_again(interpreter(), without)
        build(arguments.module, arguments.output, arguments.path)
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        if error.hint:
            print(f"\n{error.hint}", file=sys.stderr)
        return 1
    size = arguments.output.stat().st_size / (1 << 20)
    print(f"{arguments.output}: {size:.1f} MiB")
    # `bulkhead plugin build` says itself what comes next.
    if "BULKHEAD_PLUGIN_BUILD" not in os.environ:
        print("next: bulkhead plugin test", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
