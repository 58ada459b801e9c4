-- Lmod: `module load byos-run`. Keep this as MODULEPATH/byos-run/VERSION.lua and the file as ROOT/VERSION/byos-run.
local root = os.getenv("BYOS_RUN_ROOT") or "/opt/byos-run"
whatis("Runs one solver case with input from your own S3 bucket and results proven back in it")
help("byos-run --help tells more. To have another Python than the first that fits: export BYOS_PYTHON=/path/to/python3")
prepend_path("PATH", pathJoin(root, myModuleVersion()))
