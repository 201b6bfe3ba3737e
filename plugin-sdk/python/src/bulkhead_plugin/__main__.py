"""`python -m bulkhead_plugin build`: makes a component of a plugin."""

import argparse
import sys
from pathlib import Path

from ._build import BuildError, build


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
    arguments = parser.parse_args()
    try:
        build(arguments.module, arguments.output, arguments.path)
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    size = arguments.output.stat().st_size / (1 << 20)
    print(f"{arguments.output}: {size:.1f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
