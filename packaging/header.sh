#!/bin/sh
# coding:this-is-not-the-whole-of-byos-run.--It-was-cut.altered.or.read.from.standard.input.--Upload-it-again-and-start-it-with.sh.byos-run 2>/dev/null ||
{
# byos-run: this text for sh, then a zip archive for Python (`unzip -l byos-run` lists it). A Python that finds no whole
# archive here reads this text instead and stops at the line above with what it says. All is between two braces, so that a
# text that was cut does nothing. Nothing is written to disk before Python runs. The line above begins with a form feed: blank
# before a comment to Python, to sh a command that is not there, so that a text cut within that line ends in failure (127), not 0.
# Filled in by the build, each of fixed width; the checksum is over all of the file but its own eight digits.
byos_bytes=@BYTES@
# table @TABLE_OFFSET@ @TABLE_BYTES@
# checksum @CHECKSUM@

byos_none='the node has no Python that can run this file (CPython @OLDEST@ to @NEWEST@ with zlib, ssl and ctypes, glibc, @MACHINES@)'
byos_proof='
import sys
why = "is too old or too new"
try:
    if sys.version_info[:2] < (@OLDEST_PAIR@) or sys.version_info[:2] > (@NEWEST_PAIR@):
        raise ImportError(why)
    why = "lacks zlib, ssl or ctypes"
    import posix, zlib, _ssl, _ctypes
    why = "is not CPython"
    if sys.implementation.name != "cpython":
        raise ImportError(why)
    why = "is free-threaded"
    if "t" in sys.abiflags:
        raise ImportError(why)
    why = "runs on another kind of processor"
    if sys.maxsize < 2**32 or posix.uname()[4] not in "@MACHINES@".split(" or "):
        raise ImportError(why)
    why = "is not built on glibc"
    if not posix.confstr("CS_GNU_LIBC_VERSION"):
        raise ImportError(why)
    print("fit " + sys.executable)
except Exception:
    print("%d.%d.%d %s" % (sys.version_info[:3] + (why,)))
'

byos_say() { printf 'byos-run: %s\n' "$1" >&2; }

# The libraries that a solver's module loads may break Python's own (ssl above all), so they are set aside for Python
# and the program gives them back to the solver.
byos_set_aside() {
    if [ "${LD_LIBRARY_PATH+set}" ]; then
        BYOS_ASIDE_LD_LIBRARY_PATH=$LD_LIBRARY_PATH; export BYOS_ASIDE_LD_LIBRARY_PATH; unset LD_LIBRARY_PATH
    fi
    if [ "${LD_PRELOAD+set}" ]; then
        BYOS_ASIDE_LD_PRELOAD=$LD_PRELOAD; export BYOS_ASIDE_LD_PRELOAD; unset LD_PRELOAD
    fi
}

# Starts the program with $1 if that is a Python which fits, else says why not in $byos_seen and returns.
byos_try() {
    byos_python=$1; shift
    [ -n "$byos_python" ] && command -v "$byos_python" >/dev/null 2>&1 || return 0
    byos_answer=$("$byos_python" -E -S -s -c "$byos_proof" </dev/null 2>/dev/null)
    case $byos_answer in
    'fit '*)
        [ "$byos_answer" = 'fit ' ] || byos_python=${byos_answer#fit }
        BYOS_BOOT=$$; export BYOS_BOOT
        exec "$byos_python" -E -S -s "$byos_self" "$@" ;;
    '') byos_seen="$byos_seen; $byos_python does not start" ;;
    *) byos_seen="$byos_seen; $byos_python $byos_answer" ;;
    esac
}

byos_search() {
    if [ -n "$BYOS_PYTHON" ]; then
        command -v "$BYOS_PYTHON" >/dev/null 2>&1 || byos_seen="; $BYOS_PYTHON is not there"
        byos_try "$BYOS_PYTHON" "$@"
        return
    fi
    for byos_each in "$byos_first" python3 @NAMES@ /usr/bin/python3 /usr/libexec/platform-python \
        /opt/*/bin/python3 /opt/*/bin/python3.9 /opt/*/bin/python3.1[0-9] \
        /program/*/bin/python3 /program/*/bin/python3.9 /program/*/bin/python3.1[0-9]
    do
        byos_try "$byos_each" "$@"
    done
}

byos_start() {
    byos_self=$0
    [ -f "$byos_self" ] || byos_self=$(command -v -- "$0" 2>/dev/null)
    case $byos_self in
    /*) ;;
    ?*) byos_self=$PWD/$byos_self ;;
    esac
    byos_line=
    [ -f "$byos_self" ] && { read -r byos_line; read -r byos_line; } <"$byos_self"
    case $byos_line in
    *not-the-whole-of-byos-run*) ;;
    *)
        byos_say 'it cannot be read from standard input: save it as a file and start it with: sh byos-run'
        exit 64 ;;
    esac
    unset BYOS_ASIDE_LD_LIBRARY_PATH BYOS_ASIDE_LD_PRELOAD BYOS_BOOT
    byos_first=$BYOS_FIRST; byos_seen=; unset BYOS_FIRST
    byos_set_aside
    byos_found=$(wc -c <"$byos_self")
    if [ "$((byos_found))" -ne "$byos_bytes" ]; then
        byos_say "'$byos_self' is cut short or altered: it has $((byos_found)) bytes of $byos_bytes; upload it again"
        exit 71
    fi
    byos_search "$@"
    # A Python whose own library is found by LD_LIBRARY_PATH alone.
    if [ "${BYOS_ASIDE_LD_LIBRARY_PATH+set}" ]; then
        LD_LIBRARY_PATH=$BYOS_ASIDE_LD_LIBRARY_PATH; export LD_LIBRARY_PATH; unset BYOS_ASIDE_LD_LIBRARY_PATH
        byos_seen=
        byos_search "$@"
    fi
    [ -n "$byos_seen" ] || byos_seen="PATH, /usr/bin, /opt/*/bin, /program/*/bin: no python3 there"
    byos_say "$byos_none"
    byos_say "looked at: ${byos_seen#; }"
    byos_say 'load a newer one (module load python) or name one (BYOS_PYTHON=/path/to/python3)'
    exit 71
}

byos_start "$@"
exit 71
}
