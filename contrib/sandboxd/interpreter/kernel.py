#!/usr/bin/env -S python3 -u
# The python executor of sandboxd's code interpreter: one process, one context. Descriptor 0 is the channel to sandboxd: a line
# of JSON each way. What code prints goes to descriptors 1 and 2 as it is; displays and the end of a run go through the channel,
# after everything that was printed before them. IPython runs the code where it is installed, else this file does, with the same
# displays.
#
#   <- {"op":"run","code":TEXT} {"op":"set","variables":{}} {"op":"ack"} to each result, when all that was printed before it is seen
#   -> {"type":"ready","kernel":TEXT,"missing":[]} {"type":"begun"} {"type":"result",FORM:CONTENT,...} {"type":"done","count":N,"error"?:{}}
import ast
import asyncio
import base64
import builtins
import importlib.abc
import importlib.machinery
import importlib.util
import inspect
import json
import linecache
import os
import signal
import sys
import threading
import traceback
import types
import warnings

FORMS = {
    "text/plain": "text",
    "text/html": "html",
    "image/png": "png",
    "image/jpeg": "jpeg",
    "image/svg+xml": "svg",
    "application/json": "json",
    "text/latex": "latex",
    "text/markdown": "markdown",
    "application/javascript": "javascript",
}

MESSAGE_MAX = 32 << 20

# A figure is shown by plt.show() or at the end of its cell. matplotlib loads this by name when it is first needed.
MATPLOTLIB_NAME = "sandboxd_figures"
MATPLOTLIB_BACKEND = """
from matplotlib.backends.backend_agg import FigureCanvasAgg as FigureCanvas
from matplotlib.backend_bases import FigureManagerBase as FigureManager
def show(*args, **kwargs):
    publish_figures()
"""


class Channel:
    def __init__(self):
        # Commands that code starts get an empty stdin, and no hold on the channel.
        self.fd = os.dup(0)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        self.pid = os.getpid()
        self.input = os.fdopen(os.dup(self.fd), "rb")
        self.lock = threading.RLock()
        self.busy = False  # a line is half sent, or its answer awaited: no ^C now
        self.interrupted = False

    def send(self, message):
        if os.getpid() != self.pid or message == {"type": "result"}:
            return
        with self.lock:
            self.busy = True
            try:
                self.send_whole(message)
            finally:
                self.busy = False
        if self.interrupted and threading.current_thread() is threading.main_thread():
            self.interrupted = False
            raise KeyboardInterrupt

    def on_interrupt(self, number, frame):
        if self.busy:
            self.interrupted = True
        else:
            raise KeyboardInterrupt

    def send_whole(self, message):
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (AttributeError, OSError, ValueError):
                pass
        data = json.dumps(message, allow_nan=False).encode() + b"\n"
        if len(data) > MESSAGE_MAX:
            print("a display of %d bytes was left out: 32 MiB is the most" % len(data), file=sys.stderr)
            return
        while data:
            data = data[os.write(self.fd, data) :]
        if message["type"] == "result":
            self.input.readline()


def clean(value):
    """A form's content as JSON can carry it; None: it cannot."""
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        return None


def as_result(data):
    message = {"type": "result"}
    for mime, content in data.items():
        form = FORMS.get(mime)
        if not form or content is None:
            continue
        if isinstance(content, (bytes, bytearray)):
            content = base64.b64encode(content).decode()
        if form != "json" and not isinstance(content, str):
            content = str(content)
        if form in ("png", "jpeg"):
            content = "".join(content.split())
        content = clean(content)
        if content is not None:
            message[form] = content
    return message


def with_json(value, data):
    """A dict or list is a result in itself."""
    if isinstance(value, (dict, list)) and "application/json" not in data and clean(value) is not None:
        data["application/json"] = value
    return data


class Figures(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the matplotlib backend above, and publishes open figures."""

    def __init__(self, publish):
        self.publish = publish
        os.environ["MPLBACKEND"] = "module://" + MATPLOTLIB_NAME
        # Debian's matplotlib insists on its settings in /etc, of which a sandbox has little.
        settings = "/usr/share/matplotlib/mpl-data/matplotlibrc"
        if not os.path.exists("/etc/matplotlibrc") and os.path.exists(settings):
            os.environ.setdefault("MATPLOTLIBRC", settings)
        sys.meta_path.append(self)

    def find_spec(self, name, path, target=None):
        if name != MATPLOTLIB_NAME:
            return None
        return importlib.machinery.ModuleSpec(name, self)

    def exec_module(self, module):
        module.publish_figures = self.show
        exec(MATPLOTLIB_BACKEND, module.__dict__)

    def show(self):
        pyplot = sys.modules.get("matplotlib.pyplot")
        if not pyplot or MATPLOTLIB_NAME not in sys.modules:
            return
        try:
            for number in pyplot.get_fignums():
                figure = pyplot.figure(number)
                if figure.get_axes() or getattr(figure, "lines", None) or figure.texts or figure.images:
                    self.publish(figure_data(figure))
        finally:
            pyplot.close("all")


def figure_data(figure):
    import io

    import matplotlib

    svg = matplotlib.rcParams["savefig.format"] == "svg"
    out = io.BytesIO()
    figure.savefig(out, format="svg" if svg else "png", bbox_inches="tight")
    data = {"text/plain": repr(figure)}
    if svg:
        data["image/svg+xml"] = out.getvalue().decode()
    else:
        data["image/png"] = out.getvalue()
    return data


def error_of(kind, value, lines):
    text = [line for chunk in lines for line in str(chunk).rstrip("\n").split("\n")]
    try:
        words = str(value)
    except Exception:
        words = "<no text: its __str__ failed>"
    return {"ename": kind.__name__, "evalue": words, "traceback": text}


# --- with IPython ---


class WithIPython:
    def __init__(self, channel):
        from IPython.core.displayhook import DisplayHook
        from IPython.core.displaypub import DisplayPublisher
        from IPython.core.interactiveshell import InteractiveShell
        from IPython import release

        self.kernel = "IPython " + release.version + ", python " + sys.version.split()[0]
        self.error = None
        outer = self

        class Hook(DisplayHook):
            def __call__(self, result=None):
                if result is None or self.quiet():
                    return
                data, metadata = self.compute_format_data(result)
                self.update_user_ns(result)
                channel.send(as_result(with_json(result, data)))

        class Publisher(DisplayPublisher):
            def publish(self, data, metadata=None, source=None, *, transient=None, update=False, **kw):
                channel.send(as_result(data))

            def clear_output(self, wait=False):
                pass

        class Shell(InteractiveShell):
            displayhook_class = Hook
            display_pub_class = Publisher
            colors_force = False

            def init_history(self):
                self.config.HistoryManager.enabled = False
                super().init_history()

            def init_virtualenv(self):
                pass

            def enable_gui(self, gui=None):
                pass

            def _showtraceback(self, etype, evalue, stb):
                outer.error = error_of(etype, evalue, stb)

            def showtraceback(self, exc_tuple=None, *args, **kw):
                super().showtraceback(exc_tuple, *args, **kw)
                if outer.error is None:
                    kind, value, _ = exc_tuple or sys.exc_info()
                    if kind:
                        outer.error = error_of(kind, value, traceback.format_exception_only(kind, value))

        os.environ.setdefault("IPYTHONDIR", "/tmp/.ipython-%d" % os.getuid())
        self.shell = Shell.instance(colors="NoColor", banner1="", autoindent=False)
        self.shell.ask_exit = lambda: None
        self.namespace = self.shell.user_ns
        try:
            self.shell.enable_matplotlib = self.inline
        except Exception:
            pass
        formatter = self.shell.display_formatter.formatters
        formatter["image/png"].for_type_by_name("matplotlib.figure", "Figure", lambda f: figure_data(f).get("image/png"))
        formatter["image/svg+xml"].for_type_by_name(
            "matplotlib.figure", "Figure", lambda f: figure_data(f).get("image/svg+xml")
        )

    def inline(self, gui=None):
        """`%matplotlib inline` is what happens anyway."""
        return "inline", "module://" + MATPLOTLIB_NAME

    def display(self, data):
        self.shell.display_pub.publish(data)

    def run(self, code):
        self.error = None
        result = self.shell.run_cell(code, store_history=True, silent=False)
        if self.error is None and not result.success:
            value = result.error_before_exec or result.error_in_exec
            if value is not None:
                self.error = error_of(type(value), value, traceback.format_exception_only(type(value), value))
        return self.error


# --- without ---


METHODS = [
    ("_repr_html_", "text/html"),
    ("_repr_svg_", "image/svg+xml"),
    ("_repr_png_", "image/png"),
    ("_repr_jpeg_", "image/jpeg"),
    ("_repr_json_", "application/json"),
    ("_repr_latex_", "text/latex"),
    ("_repr_markdown_", "text/markdown"),
    ("_repr_javascript_", "application/javascript"),
]


def forms_of(value):
    data = {}
    bundle = getattr(value, "_repr_mimebundle_", None)
    if callable(bundle) and not isinstance(value, type):
        made = bundle()
        if isinstance(made, tuple):
            made = made[0]
        data.update(made or {})
    if not isinstance(value, type):
        for method, mime in METHODS:
            make = getattr(value, method, None)
            if mime not in data and callable(make):
                try:
                    made = make()
                except Exception:
                    traceback.print_exc()
                    continue
                data[mime] = made[0] if isinstance(made, tuple) else made
    figure = sys.modules.get("matplotlib.figure")
    if figure and isinstance(value, figure.Figure):
        data.update(figure_data(value))
    data.setdefault("text/plain", repr(value))
    return with_json(value, data)


class Plain:
    def __init__(self, channel):
        self.kernel = "python " + sys.version.split()[0]
        self.channel = channel
        self.count = 0
        main = types.ModuleType("__main__")
        main.__builtins__ = builtins
        sys.modules["__main__"] = main
        self.namespace = main.__dict__
        builtins.display = self.show
        self.loop = None

    def show(self, *values, **options):
        for value in values:
            if options.get("raw") and isinstance(value, dict):
                self.display(value)
            else:
                self.display(forms_of(value))

    def display(self, data):
        self.channel.send(as_result(data))

    def evaluate(self, tree, name, mode):
        code = compile(tree, name, mode, flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        value = eval(code, self.namespace)
        if code.co_flags & inspect.CO_COROUTINE:
            if not self.loop:
                self.loop = asyncio.new_event_loop()
                asyncio.set_event_loop(self.loop)
            value = self.loop.run_until_complete(value)
        return value

    def run(self, code):
        self.count += 1
        name = "<cell %d>" % self.count
        linecache.cache[name] = (len(code), None, code.splitlines(True), name)
        try:
            tree = ast.parse(code, name)
            last = None
            quiet = code.rstrip().endswith(";")
            if tree.body and isinstance(tree.body[-1], ast.Expr):
                last = ast.Expression(tree.body.pop().value)
            self.evaluate(tree, name, "exec")
            if last is not None:
                value = self.evaluate(last, name, "eval")
                if value is not None:
                    self.namespace["_"] = value
                    if not quiet:
                        self.display(forms_of(value))
        except BaseException as error:
            return self.report(error, code)
        return None

    def report(self, error, code):
        # The frames of this file are nobody's business.
        frames = error.__traceback__
        while frames and frames.tb_frame.f_code.co_filename == __file__:
            frames = frames.tb_next
        if isinstance(error, SyntaxError) and (error.filename or "").startswith("<cell "):
            frames = None
        made = error_of(
            type(error), error, traceback.format_exception(type(error), error.with_traceback(frames), frames)
        )
        if isinstance(error, SyntaxError) and code.lstrip()[:1] in ("%", "!"):
            made["evalue"] += " (lines with % and ! need IPython, which is not installed here)"
        if isinstance(error, ModuleNotFoundError) and error.name and error.name.split(".")[0] == "IPython":
            made["evalue"] += " (install python3-ipython in the sandbox; display() works without it)"
        return made


# --- both ---


def interruptible(channel, yes):
    # Not SIG_IGN: commands would inherit that.
    channel.interrupted = False
    signal.signal(signal.SIGINT, channel.on_interrupt if yes else lambda number, frame: None)


def run(channel, executor, figures, code):
    error = None
    try:
        interruptible(channel, True)
        channel.send({"type": "begun"})
        error = executor.run(code)
        figures.show()
    except BaseException as caught:
        error = error or error_of(type(caught), caught, traceback.format_exception(caught))
    finally:
        interruptible(channel, False)
    return error


def serve(channel, executor, figures):
    count = 0
    for line in channel.input:
        request = json.loads(line)
        message = {"type": "done", "count": count}
        try:
            if request["op"] == "set":
                executor.namespace.update(request["variables"])
            else:
                count += 1
                error = run(channel, executor, figures, request["code"])
                message["count"] = count
                if error:
                    message["error"] = error
        except BaseException as caught:
            message["error"] = error_of(type(caught), caught, [])
        channel.send(message)


def main():
    signal.signal(signal.SIGINT, lambda number, frame: None)
    channel = Channel()
    warnings.filterwarnings("ignore", "To exit: use")
    sys.stdin = open(0, closefd=False)
    # Long texts are printed by pieces, and each piece is seen at once.
    sys.stdout.reconfigure(write_through=True, errors="backslashreplace")
    sys.path[0] = ""
    sys.argv = [""]
    missing = [name for name in ("IPython", "matplotlib", "pandas") if importlib.util.find_spec(name) is None]
    executor = None
    if "IPython" not in missing:
        try:
            executor = WithIPython(channel)
        except Exception as error:
            missing.append("IPython")
            print("IPython is installed and cannot be used: %s" % error, file=sys.stderr)
    executor = executor or Plain(channel)
    figures = Figures(executor.display)
    channel.send({"type": "ready", "kernel": executor.kernel, "missing": missing})
    serve(channel, executor, figures)


main()
