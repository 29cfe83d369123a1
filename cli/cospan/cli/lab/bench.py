"""`cospan bench`: runs a benchmark, prints its table and writes its numbers."""

import json as json_text
from collections.abc import Callable, Sequence
from pathlib import Path

from cospan.benchmarks.tools.machine import describe
from cospan.benchmarks.tools.report import Report, lines_of
from cospan.cli.lab.compare import progress_lines
from cospan.cli.output.table import table
from cospan.cli.processes.this_process import claim_stdout, use_one_blas_thread
from cospan.cli.run_folder.layout import write_text
from cospan.wire.errors import InvalidValueError


def shapes_of(texts: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """(d, r) of each DxR.

    Raises:
        InvalidValueError: a text has another form.
    """
    shapes = []
    for text in texts:
        d, _, r = text.partition("x")
        if not (d.isascii() and d.isdigit() and r.isascii() and r.isdigit()) or not 1 <= int(r) <= int(d):
            raise InvalidValueError(f"--shape is {text!r}; it must be DxR with 1 ≤ R ≤ D, as 65536x32")
        shapes.append((int(d), int(r)))
    return tuple(shapes)


def run_benchmark(
    measure: Callable[[Callable[[str], None]], Report], output: Path | None, *, json: bool, quiet: bool
) -> int:
    """Runs a benchmark, which reports progress to its argument; the exit code.

    Args:
        measure: the benchmark.
        output: JSON file to write, or None.
        json: whether to print the JSON document in place of the table.
        quiet: whether to suppress progress.

    Raises:
        InvalidValueError: the folder of `--output` does not exist.
        CospanError: the benchmark failed.
    """
    data = claim_stdout() if json else None
    if output is not None and not output.parent.is_dir():
        raise InvalidValueError(f"there is no folder {str(output.parent)!r} for --output; create it first")
    use_one_blas_thread()
    report = measure(progress_lines(quiet=quiet))
    machine = describe()
    document = report.document(machine)
    if output is not None:
        write_text(output, f"{json_text.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)}\n")
    if data is not None:
        print(json_text.dumps(document, ensure_ascii=False, allow_nan=False), file=data, flush=True)
    else:
        print("\n".join(_lines(report, machine)))
    return 0


def _lines(report: Report, machine: dict[str, str | int]) -> list[str]:
    numbers = [index for index, column in enumerate(report.columns) if column.form]
    header = [column.header for column in report.columns]
    return [*lines_of(machine), "", *table(header, report.cells(), numbers=numbers), "", *report.notes]
