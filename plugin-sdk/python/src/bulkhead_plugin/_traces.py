"""Tracebacks, with the sources of the plugin's own modules and without anything that would need a file."""

import linecache
import sys
import traceback


def keep_sources() -> None:
    """Reads the sources of the plugin's own modules, so that tracebacks can show their lines later."""
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if file and not file.startswith("/python/"):
            linecache.getlines(file)
    linecache.checkcache = lambda filename=None: None
    linecache.updatecache = lambda filename, module_globals=None: []
    # To place its marks below a line, a traceback parses it; where it is only a part of a statement, the parser goes to
    # the file for the text of its error.
    setattr(traceback.StackSummary, "_should_show_carets", lambda *_: False)
    setattr(traceback, "_extract_caret_anchors_from_line_segment", lambda _: None)
