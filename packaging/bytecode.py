"""Compiles the modules below a directory with the interpreter that runs this: ``bytecode.py TREE OUT all|inner``.

OUT is a marshalled dictionary ``{module path: marshalled code}`` (version 2 of the format, which all readers know); its
key ``magic`` holds the number of this interpreter's byte code. Docstrings are stripped (all of them, or all but the
modules' own, which may be a help text): nobody reads them on a node, and they are a sixth of the bytes.
"""

import ast
import importlib.util
import marshal
import os
import sys


def without_docstrings(tree, which):
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef) + ((ast.Module,) if which == "all" else ())
    for node in ast.walk(tree):
        if not isinstance(node, kinds):
            continue
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.copy_location(ast.Pass(), node.body[0])]
    return tree


def compiled(*, path, name, which):
    with open(path, "rb") as file:
        tree = without_docstrings(ast.parse(file.read(), name), which)
    code = compile(tree, name, "exec", dont_inherit=True, optimize=0)
    # Once more through marshal: its reference flags then depend on the code alone, not on what else lives here.
    return marshal.dumps(marshal.loads(marshal.dumps(code)))


def main():
    top, out, which = sys.argv[1:]
    modules = {"magic": importlib.util.MAGIC_NUMBER}
    for directory, folders, files in os.walk(top):
        folders.sort()
        for file in sorted(files):
            if file.endswith(".py"):
                path = os.path.join(directory, file)
                inside = os.path.relpath(path, top)
                modules[inside] = compiled(path=path, name="byos-run/" + inside, which=which)
    with open(out, "wb") as file:
        marshal.dump(modules, file, 2)


main()
