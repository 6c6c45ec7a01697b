"""Log, vault, key and published size come back apart: an archiver that would spoil one with another does not start."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from archive import TABLES, IntegrityError, MemorySeal, MemoryStore, Receipt
from archive.belonging import check_begun, check_log_there, mark_begun
from archive.errors import OLDER_COPY, VAULT
from archive.ports import Store, Write
from archive.vault import TABLES as VAULT_TABLES
from tests.archive.site import Site, event


def copy(store: Store, tables: tuple[str, ...]) -> MemoryStore:
    """Return a copy of a store as it is now."""
    made = MemoryStore(tables)
    with store.view() as view:
        made.commit([Write(table, key, value) for table in tables for key, value in view.scan(table)])
    return made


def started(subjects: str = "a", site: Site | None = None) -> Site:
    """Return the site of a log that holds an entry of each of these students."""
    site = site or Site()
    archiver = site.start()
    for name in subjects:
        archiver.step([event(b"{}", subject=f"student:{name}", keys={"student": name})])
    return site


def refused(site: Site, section: str, words: str) -> None:
    """Check that an archiver does not start, twice, and that nothing was written while it was about to."""
    with site.log.view() as view:
        before = list(view.scan("leaves"))
    published = site.published.get()
    for _ in range(2):
        with pytest.raises(IntegrityError, match=words) as caught:
            site.start()
        assert caught.value.section == section
    with site.log.view() as view:
        assert list(view.scan("leaves")) == before
    assert site.published.get() == published


def test_a_log_that_is_gone_with_its_seal_is_not_begun_again() -> None:
    """The disk of the log is not mounted: a second log would sign the sizes of the first again."""
    site = started()
    site.log, site.seal = MemoryStore(TABLES), MemorySeal()
    refused(site, OLDER_COPY, "has 0 entries, but 3 were published")


def test_not_even_where_nobody_remembers_what_was_published() -> None:
    """The vault still knows that there were entries; where it has other logs, they may be theirs."""
    with pytest.raises(IntegrityError, match="the log is empty, but the vault knows 2 subjects") as caught:
        check_log_there(0, 2, 1)
    assert caught.value.section == OLDER_COPY
    check_log_there(0, 0, 1)
    check_log_there(5, 2, 1)
    check_log_there(0, 2, 2)


def test_an_older_log_with_its_own_seal_does_not_go_on() -> None:
    """Database and seal of a snapshot agree with each other; what was published since is more than they hold."""
    site = started()
    older, sealed = copy(site.log, TABLES), site.seal.last
    site.start().step([event(b"2", subject="student:a", keys={"student": "a"})])
    site.log, site.seal = older, MemorySeal()
    site.seal.last = sealed
    refused(site, OLDER_COPY, "but 5 were published")


def test_a_log_without_its_vault_is_not_written_to() -> None:
    """A new vault would give the next student the number of the first, and entries that nobody can read."""
    site = started("ab")
    site.vault = MemoryStore(VAULT_TABLES)
    refused(site, VAULT, "entries of 2 subjects, the vault knows 0")


def test_an_older_vault_is_refused() -> None:
    """It has not seen the newest student: his number would be given to another."""
    site = started("a")
    older = copy(site.vault, VAULT_TABLES)
    site.start().step([event(b"{}", subject="student:b", keys={"student": "b"})])
    newest, site.vault = site.vault, older
    refused(site, VAULT, "entries of 2 subjects, the vault knows 1")
    site.vault = newest
    assert isinstance(site.start().step([event(b"{}")])[0], Receipt)


def test_a_vault_that_has_seen_enough_is_taken() -> None:
    """A copy from before the last entries, but after the last new student, says all that there is to say."""
    site = started("ab")
    older = copy(site.vault, VAULT_TABLES)
    site.start().step([event(b"{}", subject="student:b", keys={"student": "b"})])
    site.vault = older
    site.start()


def test_the_vault_of_another_site_is_refused() -> None:
    """It may know as many students, under the same vault key: its secrets are others."""
    site, other = started("ab"), started("cd", Site(random=random.Random(2).randbytes))
    site.vault = other.vault
    refused(site, VAULT, "does not open with this vault")


def test_a_subject_that_was_erased_is_no_reason() -> None:
    """Who was forgotten leaves rows that nothing opens; the log goes on, with those of the others as witnesses."""
    site = started("ab")
    site.vault.commit([Write("subjects", (1).to_bytes(8), None)])
    site.start()
    site.vault.commit([Write("subjects", (0).to_bytes(8), None)])
    site.start()


def test_a_rotten_row_is_no_word_against_the_vault() -> None:
    """Bytes that changed on the disk say nothing of secrets: that is for verify-log to find."""
    site = started("ab")
    with site.log.view() as view:
        key, bundle = view.last("rows") or (b"", b"")
    site.log.commit([Write("rows", key, None), Write("rows", key, bundle[:-20] + b"?" + bundle[-19:])])
    site.start()


def test_a_key_that_has_signed_has_a_log(tmp_path: Path) -> None:
    """Whoever copies keys to a new machine, and nothing else, hears so before a second log is begun."""
    mark = tmp_path / "log-0.begun"
    check_begun(mark, 0)
    mark_begun(mark, "example.org/log")
    mark_begun(mark, "example.org/log")
    check_begun(mark, 5)
    assert mark.read_text() == "example.org/log\n"
    with pytest.raises(IntegrityError, match="there is no log, but its key has signed one before") as caught:
        check_begun(mark, 0)
    assert caught.value.section == OLDER_COPY
