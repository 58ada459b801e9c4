"""From "the file is whole" to the program's ``main()``: imports from memory, natives and data in a private directory.

    PYTHON* set aside -> modules of this Python version findable -> what a killed start left is removed
    -> natives, botocore's data and what runs as a program of its own unpacked -> main() -> the directory removed

Modules are held in memory, compressed, and inflated one by one as they are imported: hundreds of small files need not
be written, looked up and removed, and the shipped file may be deleted while the program runs. Not promised: that
``__file__`` of a module exists (that of data, natives and of what runs as a program of its own does); tracebacks show the
program's own lines all the same.
"""

import _frozen_importlib_external as external  # what importlib.util re-exports, without the cost of importing it
import _imp
import importlib
import marshal
import os
import signal
import sys
import warnings
import zlib

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)
STOPPED = 75
DEFECT = 70
UNFIT = 71


class Carried:
    """Finder and loader of the modules in one part (``index``: name -> offset, size, path) and of natives on disk."""

    def __init__(self, *, part, sources, bytecode, methods=None):
        self.index, self.body = opened(part)
        self.sources = opened(sources)
        self.words = zlib.decompress(self.body[: self.index.pop("")[1]])
        self.bytecode = bytecode
        self.methods = methods
        self.root = "byos-run"
        self.natives = {}

    def find_spec(self, name, _path=None, _target=None):
        if name in self.index:
            where = os.path.join(self.root, self.index[name][2])
            inside = [os.path.dirname(where)] if where.endswith("__init__.py") else None
            return external.spec_from_file_location(name, where, loader=self, submodule_search_locations=inside)
        if name in self.natives:
            where = os.path.join(self.root, self.natives[name])
            return external.spec_from_file_location(name, where, loader=external.ExtensionFileLoader(name, where))
        return None

    def create_module(self, _spec):
        return None

    def exec_module(self, module):
        code = self.get_code(module.__spec__.name)
        if self.methods and "dataclass" in code.co_names:
            self.quicken()
        exec(code, module.__dict__)

    def quicken(self):
        """Gives ``dataclass`` the code of what it writes as text; a text that is not known is compiled as ever."""
        import dataclasses

        codes, self.methods = marshal.loads(zlib.decompress(self.methods)), None
        dataclasses.exec = lambda text, *names: exec(marshal.loads(codes[text]) if text in codes else text, *names)

    def get_code(self, name):
        offset, size, path = self.index[name]
        content = zlib.decompressobj(-15, zdict=self.words).decompress(self.body[offset : offset + size])
        if self.bytecode:
            code = marshal.loads(content)
            _imp._fix_co_filename(code, os.path.join(self.root, path))
            return code
        return compile(content, os.path.join(self.root, path), "exec", dont_inherit=True)

    def is_package(self, name):
        return self.index[name][2].endswith("__init__.py")

    def get_filename(self, name):
        return os.path.join(self.root, self.index[name][2])

    def get_source(self, name):
        entries, body = self.sources
        if self.index[name][2] not in entries:
            return None
        offset, size = entries[self.index[name][2]][:2]
        return zlib.decompress(body[offset : offset + size]).decode()

    def get_data(self, path):
        with open(path, "rb") as file:
            return file.read()


def opened(part):
    """A part's index and the bytes that its offsets count in."""
    start = 4 + int.from_bytes(part[:4], "little")
    return marshal.loads(zlib.decompress(part[4:start])), memoryview(bytes(part[start:]))


def set_aside():
    """Moves ``PYTHON*`` to where the program finds it for the solver; this interpreter was started to ignore them."""
    for name in [name for name in os.environ if name.startswith("BYOS_ASIDE_PYTHON")]:
        del os.environ[name]
    for name in [name for name in os.environ if name.startswith("PYTHON")]:
        os.environ["BYOS_ASIDE_" + name] = os.environ.pop(name)


def ending(private):
    def end(_number, _frame):
        try:
            os.write(1, b"byos-run | exit 75 (byos-run's code): stopped by a signal before anything was begun\n")
        finally:  # also if nobody reads
            if private.is_ours():
                private.remove()
            os._exit(STOPPED)  # an exception is lost where the interpreter ignores them, as in what ends an object

    return end


def answer(handler):
    """Sets the answer to each signal that ends us; one that was ignored when we started stays ignored (nohup)."""
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def carried(*, path, table):
    """The importer for this interpreter, put before all others; only the standard library remains beside it."""
    python = "cp%d%d" % sys.version_info[:2]
    bytecode = "code/" + python in table
    if bytecode and bytes(table["magic/" + python]) != external.MAGIC_NUMBER:
        sys.stderr.write("byos-run: %s is not a released Python; name another (BYOS_PYTHON=)\n" % sys.executable)
        raise SystemExit(UNFIT)
    modules = Carried(
        part=table[("code/" if bytecode else "source/") + python], sources=table["own"], bytecode=bytecode,
        methods=bytes(table["dataclasses/" + python]) if bytecode else None,
    )  # fmt: skip
    sys.path[:] = [each for each in sys.path if os.path.abspath(each) != path]
    sys.path_importer_cache.pop(path, None)
    sys.meta_path.insert(0, modules)
    return modules


def files(table):
    """What goes to disk: our programs, data, natives, what natives are differences from, and the list of all that is carried."""
    python, machine = "cp%d%d" % sys.version_info[:2], os.uname().machine
    names = ("programs", "data/" + python, "native/%s-%s" % (python, machine))
    parts = [opened(table[name]) for name in names]
    return {"parts": parts, "base": opened(table["base/" + machine]), "index": bytes(table["index.json"])}


class PutOff(type(sys)):
    """Stands in for a module until something of it is asked for; ``importlib``'s LazyLoader gives up at a second import."""

    def __getattr__(self, wanted):
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), wanted)

    def __bool__(self):
        return False  # to logging, which asks sys.modules at each record whether anybody uses asyncio


def start(*, path, table):
    """Runs the program and returns its exit code. ``table``: name of a part -> its bytes in the mapped file."""
    sys.dont_write_bytecode = True
    # The SDK for 3.9 is carried for as long as nodes have 3.9; that its maker has moved on is no news to a run.
    warnings.filterwarnings("ignore", message="Boto3 will no longer support Python")
    set_aside()
    modules = carried(path=path, table=table)
    for name in (
        "asyncio",
        "inspect",
    ):  # structlog imports the one (20 ms), dataclasses up to 3.11 the other (3 ms)
        sys.modules[name] = PutOff(name)
    import byos_private

    private = byos_private.Private()
    answer(ending(private))
    try:
        private.unpack(modules=modules, **files(table))
        table.clear()
        os.environ["BYOS_UNPACKED"] = private.path
        os.environ["BYOS_FILE"] = path
        from byos_run.cli import main

        return main()
    except KeyboardInterrupt:
        return STOPPED
    except Exception:
        import traceback  # unlike the interpreter's own hook it asks us for the lines

        traceback.print_exc()
        return DEFECT
    finally:
        if private.is_ours():
            answer(signal.SIG_IGN)
            private.remove()
            answer_default()


def answer_default():
    for number in ENDING:
        signal.signal(number, signal.SIG_DFL)
