"""A subject lies in one split only: the check that `samu train` makes before it packs anything.

Who the subject is follows from a volume's name, within one source: its parts that name a sequence, a session
or a kind of label are dropped: `sts_003_ct` and `sts_003_mrt1` are one subject, `s1Ses1` and `s1Ses2` are.
A column `subject` in the manifest overrules the name. Names that say less make subjects too large rather than
too small, so that the check errs on the safe side.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from samu_core.errors import SamuError

# Parts of a name that tell apart what belongs to one subject: modality and sequence, kind of label map,
# session, run.
_NOT_A_SUBJECT = re.compile(
    r"(ct|cbct|mr|mri|mrt\d|pet|t1|t1w|t1ce|t1c|t1gd|t2|t2w|t2s|t2star|pd|flair|dwi|adc|swi"
    r"|img|image|lab|label|seg|gm|wm|cord|levels|vert|subreg|sem|mat|gif|ses-?\w*|session\d*|run-?\d*)",
    re.IGNORECASE,
)
_SESSION = re.compile(r"(?<=[0-9])ses-?[0-9a-z]+$", re.IGNORECASE)
NEEDED = ("name", "split", "source_repo")
SHOWN = 3


def subject_of(row: Mapping[str, str]) -> tuple[str, str]:
    """(source, subject) of a manifest row, lower case. A name made of such parts alone stays as it is."""
    source = row["source_repo"].strip().lower()
    given = (row.get("subject") or "").strip()
    if given:
        return source, given.lower()
    parts = [_SESSION.sub("", part) for part in re.split(r"[_.]+", row["name"].strip())]
    kept = [part for part in parts if part and not _NOT_A_SUBJECT.fullmatch(part)]
    return source, ("_".join(kept) or row["name"].strip()).lower()


def find_leaks(rows: Iterable[Mapping[str, str]]) -> list[str]:
    """One line for every subject, and every file of origin, that lies in more than one split."""
    splits: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:
        split, source = row["split"].strip(), row["source_repo"].strip().lower()
        keys = [("subject", *subject_of(row))]
        path = (row.get("path") or "").strip()
        # A pattern names a folder of subjects, not one file.
        if path and "*" not in path:
            keys.append(("file", source, path))
        for kind, *place in keys:
            splits.setdefault((kind, " ".join(place)), {}).setdefault(split, row["name"])
    found, told = [], set()
    for (kind, key), names in splits.items():
        # The same volumes need not be told twice, once for the subject and once for the file.
        if len(names) > 1 and frozenset(names.values()) not in told:
            told.add(frozenset(names.values()))
            found.append(f"{kind} {key}: " + ", ".join(f"{name} in {split}" for split, name in names.items()))
    return found


def check_manifest(path: Path) -> int:
    """Read a manifest.csv and refuse one that leaks.

    Returns:
        Number of subjects.

    Raises:
        SamuError: columns are missing, or a subject lies in more than one split.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise SamuError(f"cannot read {path}: {error.strerror}; name a folder with manifest.csv.") from error
    missing = [name for name in NEEDED if not rows or rows[0].get(name) is None]
    if missing:
        raise SamuError(f"{path} is empty or lacks the column(s) {', '.join(missing)}.")
    found = find_leaks(rows)
    if found:
        more = f" (and {len(found) - SHOWN} more)" if len(found) > SHOWN else ""
        raise SamuError(
            f"{path} has subjects in more than one split: {'; '.join(found[:SHOWN])}{more}. "
            "Move them into one split, or tell subjects apart in a column 'subject'."
        )
    return len({subject_of(row) for row in rows})
