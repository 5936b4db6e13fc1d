"""What is encrypted at rest: keys that follow each other, and texts that stay in their place."""

from __future__ import annotations

import pytest

from coordinator.data_cipher import CannotDecrypt, DataCipher

OLD, NEW = b"o" * 32, b"n" * 32


def test_a_text_comes_back() -> None:
    cipher = DataCipher([NEW])

    assert cipher.decrypt(cipher.encrypt("13800138888", purpose="phone"), purpose="phone") == (
        "13800138888"
    )


def test_the_same_text_is_stored_differently_each_time() -> None:
    cipher = DataCipher([NEW])

    assert cipher.encrypt("a", purpose="phone") != cipher.encrypt("a", purpose="phone")


def test_after_a_change_of_keys_what_the_old_one_encrypted_can_be_read() -> None:
    stored = DataCipher([OLD]).encrypt("13800138888", purpose="phone")

    assert DataCipher([NEW, OLD]).decrypt(stored, purpose="phone") == "13800138888"


def test_the_first_key_encrypts() -> None:
    stored = DataCipher([NEW, OLD]).encrypt("a", purpose="phone")

    assert DataCipher([NEW]).decrypt(stored, purpose="phone") == "a"


@pytest.mark.parametrize("stored", ["", "x", "00000000.", "00000000.AAAA", "13800138888"])
def test_what_is_no_encrypted_text_is_refused(stored: str) -> None:
    with pytest.raises(CannotDecrypt):
        DataCipher([NEW]).decrypt(stored, purpose="phone")


def test_a_key_that_is_not_set_does_not_decrypt() -> None:
    stored = DataCipher([OLD]).encrypt("a", purpose="phone")

    with pytest.raises(CannotDecrypt):
        DataCipher([NEW]).decrypt(stored, purpose="phone")


def test_a_text_that_was_moved_to_another_place_does_not_decrypt() -> None:
    cipher = DataCipher([NEW])
    stored = cipher.encrypt("a", purpose="phone of 1")

    with pytest.raises(CannotDecrypt):
        cipher.decrypt(stored, purpose="phone of 2")


def test_a_changed_text_does_not_decrypt() -> None:
    cipher = DataCipher([NEW])
    stored = cipher.encrypt("aaaaaaaa", purpose="phone")
    changed = stored[:-6] + ("A" if stored[-6] != "A" else "B") + stored[-5:]

    with pytest.raises(CannotDecrypt):
        cipher.decrypt(changed, purpose="phone")
