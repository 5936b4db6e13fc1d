"""Where a command that runs for minutes writes what it found: looked at before it begins."""

from __future__ import annotations

import argparse
import os
from pathlib import Path


def output_file(text: str) -> Path:
    """For `argparse`: a file that can be written.

    Raises:
        argparse.ArgumentTypeError: its folder is not there, or it may not be written.
    """
    path = Path(text)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path.parent}")
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{path} cannot be written")
    return path


def output_folder(text: str) -> Path:
    """For `argparse`: a folder, made where it is missing.

    Raises:
        argparse.ArgumentTypeError: it cannot be made.
    """
    path = Path(text)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{path}: {error.strerror}") from error
    return path
