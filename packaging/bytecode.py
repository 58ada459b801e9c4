"""Compiles the modules below a directory with the interpreter that runs this: ``bytecode.py TREE OUT all|inner``.

OUT is a marshalled dictionary ``{module path: marshalled code}`` (version 2 of the format, which all readers know); its
key ``magic`` holds the number of this interpreter's byte code. Docstrings are stripped (all of them, or all but the
modules' own, which may be a help text): nobody reads them on a node, and they are a sixth of the bytes.

Its key ``dataclasses`` holds a marshalled dictionary: each text that the decorator ``dataclass`` would write and compile at
every start (0.4 ms a class) -> its marshalled code. The decorator itself writes them here, for classes of the same fields.
"""

import ast
import dataclasses
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
        if isinstance(node, ast.ClassDef) and node.decorator_list:
            # A class without any is given its signature as one by dataclass, which reads the whole of inspect for it.
            blank = ast.copy_location(ast.Constant(" "), node)
            node.body.insert(0, ast.copy_location(ast.Expr(blank), node))
    return tree


def methods(tree, texts):
    """Adds to ``texts`` what ``dataclass`` makes of the classes in ``tree``."""
    for node in ast.walk(tree):
        for decorator in node.decorator_list if isinstance(node, ast.ClassDef) else ():
            call = decorator if isinstance(decorator, ast.Call) else ast.Call(decorator, [], [])
            if isinstance(call.func, ast.Name) and call.func.id == "dataclass":
                options = {each.arg: ast.literal_eval(each.value) for each in call.keywords}
                dataclasses.exec = lambda text, *names: exec(texts.setdefault(text, code(text)), *names)
                dataclasses.dataclass(**options)(like(node))


def code(text):
    return compile(text, "<string>", "exec", dont_inherit=True)


def like(node):
    """A class whose fields are called as those of ``node``, and have a default where those have: no more tells on the texts."""
    body = {"__doc__": " ", "__module__": "dataclasses", "__annotations__": {}}
    for each in node.body:
        if isinstance(each, ast.AnnAssign):
            body["__annotations__"][each.target.id] = "int"
            if isinstance(each.value, ast.Call) and getattr(each.value.func, "id", "") == "field":
                body[each.target.id] = field(each.value.keywords)
            elif each.value is not None:
                body[each.target.id] = None
    return type(node.name, (), body)


def field(keywords):
    given = {each.arg: each.value for each in keywords}
    options = {name: ast.literal_eval(given[name]) for name in given if not name.startswith("default")}
    options.update({name: list if name == "default_factory" else None for name in given if name.startswith("default")})
    return dataclasses.field(**options)


def compiled(*, path, name, which, texts):
    with open(path, "rb") as file:
        tree = without_docstrings(ast.parse(file.read(), name), which)
    if which != "all":
        methods(tree, texts)
    return marshalled(compile(tree, name, "exec", dont_inherit=True, optimize=0))


def marshalled(code):
    # Once more through marshal: its reference flags then depend on the code alone, not on what else lives here.
    return marshal.dumps(marshal.loads(marshal.dumps(code)))


def main():
    top, out, which = sys.argv[1:]
    modules, texts = {"magic": importlib.util.MAGIC_NUMBER}, {}
    for directory, folders, files in os.walk(top):
        folders.sort()
        for file in sorted(files):
            if file.endswith(".py"):
                path = os.path.join(directory, file)
                inside = os.path.relpath(path, top)
                modules[inside] = compiled(path=path, name="byos-run/" + inside, which=which, texts=texts)
    modules["dataclasses"] = marshal.dumps({text: marshalled(texts[text]) for text in sorted(texts)}, 2)
    with open(out, "wb") as file:
        marshal.dump(modules, file, 2)


if __name__ == "__main__":
    main()
