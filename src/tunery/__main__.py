"""The entry of `tunery` and of `python -m tunery`."""

from tunery.cli import run


def main() -> None:
    """Run the command line."""
    run()


if __name__ == "__main__":
    main()
