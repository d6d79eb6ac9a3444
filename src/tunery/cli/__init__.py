"""The command line. Each command imports what it runs, so that --help is quick."""

from tunery.cli.app import run

__all__ = ["run"]
