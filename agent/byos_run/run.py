"""The story of one run, top to bottom; no step is done here.

settle ▶ claim ▶ fetch ▶ solve ▶ publish ▶ record ▶ purge

What fails before the claim ends the run at once: nothing has moved. After it, whatever ends the run, all that is there is
published, recorded, and purged as far as the store has acknowledged it. The exit code is made in ``record.Account``.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from functools import partial

from byos_run import errors, log
from byos_run.book import Book
from byos_run.chapters import Run
from byos_run.model import Place
from byos_run.node import process
from byos_run.node.outlet import Outlet
from byos_run.node.pool import Every
from byos_run.node.stop import Stop
from byos_run.opening import enter_row, forget_secrets, leave_row, open_run, read_object
from byos_run.steps import rows
from byos_run.steps.settle import settle
from byos_run.terminal import Terminal

_LAST_WORDS_S = 5.0
_TEND_S = 0.5


def run(*, arguments: Sequence[str], place: Place, stop: Stop) -> int:
    """One run from its command line to its last line; returns the exit code. Does not raise."""
    process.make_private()
    outlet = Outlet(1)
    meaning = ""
    book = Book(lines=log.Lines(outlet, terminal=Terminal(1, place.environ), volume=place.volume))
    try:
        job = settle(arguments=arguments, place=place, read_object=partial(read_object, place=place, stop=stop))
        place = enter_row(job, place)
        with Every(_TEND_S, outlet.tend, name="outlet"):
            told = Run(open_run(job=job, place=place, stop=stop, book=book))
            code, whose = tell(told)
            meaning = told.meaning_of(code, whose)
    except errors.ByosError as error:
        code, whose = error.code, "byos-run's"
        book.tell_error(error)
    except Exception as error:  # a defect: what is there stays, and is told
        code, whose = errors.ByosError.code, "byos-run's"
        book.log.critical(f"a defect of byos-run: {errors.line_of(error)}", traceback=traceback.format_exc())
        book.lines.say(traceback.format_exc(limit=-3).strip().replace("\n", " / "))
    finally:
        if place.start_directory is not None or not rows.is_asked(arguments):  # the other rows need theirs
            forget_secrets(place)
        leave_row(place)
    if outlet.lost_lines:
        book.lines.say(f"{outlet.lost_lines:,} lines were not shown: the reader was too slow; solver.log has them all")
    book.lines.say(f"exit {code} ({whose} code): {meaning or errors.EXIT_CODES[code]}")
    book.close()
    outlet.close(within_s=_LAST_WORDS_S)
    return code


def tell(run: Run) -> tuple[int, str]:
    """The steps of one run, in order. Returns the exit code and whose it is."""
    run.claim()
    with run.heartbeat():
        if run.is_whole_already:
            run.purge()
        else:
            try:
                run.fetch()
                run.solve()
            except errors.ByosError as error:
                run.end_early(error)
            run.publish()
            run.record()
            run.purge()
    return run.close()
