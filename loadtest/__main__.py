"""`python -m loadtest`. Each watching process imports this module, too, and needs nothing of it."""

if __name__ == "__main__":
    import sys

    from loadtest.command_line import main

    sys.exit(main())
